"""The relative tolerance of a solve: asked for, or left to the package; never below what the field's rounding holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bridges import EngineError, default_rtol, finest_rtol
from nm_ode.arguments import dtype_name
from nm_ode.flows import Flow
from nm_ode.loss import Problem
from nm_ode.loss.precision import Precision, gradient_precision

_MARGIN = 4.0  # noise, over what a tolerance must be for the error control to see more than noise
_CHECKED = 10.0  # a tolerance that was left to the package leaves room for the tighter one of its check
_COARSEST = 0.1


@dataclass(frozen=True)
class Floor:
    """The smallest relative tolerance that means anything for a field, and the noise that it follows from."""

    rtol: float
    precision: Precision
    dtype: torch.dtype
    of_flow: float = 0.0

    @property
    def noise(self) -> float:
        """Noise of the field, relative to it."""
        return max(self.precision.noise, torch.finfo(self.dtype).eps, self.of_flow)

    @property
    def reason(self) -> str:
        """Why it is no lower, as a clause."""
        if self.of_flow >= max(self.precision.noise, torch.finfo(self.dtype).eps):
            return f"the flow finds its field by iteration, to {self.of_flow:.0e} of its size"
        return _of_dtype(self.dtype) if self.precision.own else self.precision.words()


def rtol_floor(flow: Flow, problem: Problem) -> Floor:
    """By the dtype that a flow's problem computes in, and by the measured noise where it is more than that."""
    precision = gradient_precision(problem)
    finest = finest_rtol(dtype_name(problem.dtype))
    if not precision.own:
        finest = max(finest, _MARGIN * precision.noise * flow.amplification)
    return Floor(max(finest, flow.noise), precision, problem.dtype, flow.noise)


def settled_rtol(rtol: float | None, floor: Floor, kinks: Sequence[str]) -> tuple[float | None, str]:
    """The tolerance to plan with, and a clause that says why it is not the usual one ("" if it is).

    Args:
        rtol: as the caller gave it; None leaves it to the package.

    Raises:
        EngineError: the caller's is below what the field holds, or nothing is above it.
    """
    if floor.rtol > _COARSEST:
        raise EngineError(
            f"this field is too noisy for any solver: {floor.reason}; let the model compute in "
            f"{dtype_name(floor.dtype)} inside"
        )
    if rtol is not None:
        if rtol < floor.rtol:
            raise EngineError(
                f"rtol = {rtol:g} is below what this field holds, {floor.rtol:.2g}: {floor.reason}; give a larger "
                f"rtol, or let the model compute in {dtype_name(floor.dtype)} inside"
            )
        return rtol, ""
    usual, least = default_rtol(kinks), min(_CHECKED * floor.rtol, _COARSEST)
    if usual >= least:
        return None, ""
    return least, f"; rtol raised from {usual:g} to {least:.2g}, since {floor.reason}"


def _of_dtype(dtype: torch.dtype) -> str:
    return f"the problem computes in {dtype_name(dtype)}"
