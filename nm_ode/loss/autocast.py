"""Mixed precision: a forward pass under torch.autocast, of parameters and a gradient in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from nm_ode.arguments import all_finite, dtype_name, said
from nm_ode.loss.evaluation import Evaluation
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.objective import Objective

Autocast: TypeAlias = Literal["bfloat16", "float16"]

_DTYPES: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_LARGEST_SCALE, _SMALLEST_SCALE = 2.0**16, 2.0**-16
_SMALLER = 16.0  # by so much a scale is made smaller, and so much room is left at the start


def as_autocast(given: Any, dtype: torch.dtype) -> Autocast | None:
    """What a caller gives as `autocast`.

    Raises:
        ProblemError: no dtype that a forward pass can have, or float64, which autocast leaves as it is.
    """
    name = dtype_name(given) if isinstance(given, torch.dtype) else given
    if name is None:
        return None
    if name not in _DTYPES:
        raise ProblemError(f"autocast must be 'bfloat16', 'float16' or None; {said(given)} was given")
    if dtype != torch.float32:
        raise ProblemError(
            f"autocast = {name!r} needs parameters in float32, and they are in {dtype_name(dtype)}, which it would "
            "leave as they are: give dtype=torch.float32"
        )
    found: Autocast = "bfloat16" if name == "bfloat16" else "float16"
    return found


class Lowered(nn.Module):
    """An objective whose forward pass is under autocast, and whose scalar is in float32."""

    def __init__(self, objective: Objective, device: torch.device, autocast: Autocast) -> None:
        super().__init__()
        self.objective = objective
        self._device, self._autocast, self._is_off = device.type, autocast, False

    def forward(self, model: Any, batch: Any) -> Tensor:
        """The loss, a scalar."""
        if self._is_off:
            return self.objective(model, batch)
        with self.context():
            loss = self.objective(model, batch)
        return loss.float() if isinstance(loss, Tensor) else loss

    def context(self) -> AbstractContextManager[Any]:
        """Under autocast, unless that is off."""
        return nullcontext() if self._is_off else torch.autocast(self._device, _DTYPES[self._autocast])

    @contextmanager
    def off(self) -> Iterator[None]:
        """A context in which the objective is evaluated in the parameters' own precision."""
        before, self._is_off = self._is_off, True
        try:
            yield
        finally:
            self._is_off = before


class MayBeLowered:
    """What a `Problem` is, under autocast or not.

    Attributes:
        autocast: the dtype of its forward passes; None where that is the parameters'.
        device: where they are.
    """

    autocast: Autocast | None
    device: torch.device
    _lowered: Lowered

    @property
    def beyond_float16(self) -> str:
        """The end of a sentence about a loss that is not finite; empty but in float16."""
        beyond = (
            "; or numbers in the network are beyond 65504, the largest of float16: take autocast='bfloat16'"
        )
        return beyond * (self.autocast == "float16")

    def lowered(self) -> AbstractContextManager[Any]:
        """A context with the autocast of its forward passes, for an evaluation beside them."""
        return nullcontext() if self.autocast is None else self._lowered.context()

    def _lowered_to(self, autocast: Autocast | None, objective: Objective) -> Objective:
        """The objective that is evaluated."""
        self.autocast = autocast
        if autocast is None:
            return objective
        self._lowered = Lowered(objective, self.device, autocast)
        return self._lowered

    def _in_own_precision(self) -> AbstractContextManager[None]:
        """A context without autocast."""
        return nullcontext() if self.autocast is None else self._lowered.off()


class ScaledEvaluation(Evaluation):
    """Gradients of a loss in float16: numbers of the backward pass would else be too small for it, or too large.

    The loss is multiplied by a power of two before the backward pass, and the gradient divided by it, which changes no
    digit of what neither vanishes nor overflows. Where something overflows, the gradient is taken again with a smaller
    one. Each evaluation begins at the same scale, so that the gradient is a function of theta.
    """

    _scale = 1.0

    def settle(self, batch: Any) -> None:
        """Begin from now on at the largest scale whose gradient over this batch is finite with room to spare."""
        loss = self.loss(batch).detach()
        scale = _LARGEST_SCALE
        while scale > _SMALLEST_SCALE and loss.isfinite() and not self._is_finite_at(batch, scale * _SMALLER):
            scale /= _SMALLER
        self._scale = scale

    def loss_and_grad(self, batch: Any, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """L and ∇L, the gradient into `out` if given."""
        scale = self._scale
        while True:
            loss = self.loss(batch)
            gradient = self._gradient(loss * scale, out)
            if scale <= _SMALLEST_SCALE or all_finite(gradient) or not bool(loss.isfinite()):
                return loss.detach(), gradient.div_(scale)
            scale /= _SMALLER

    def loss_and_add_grad(self, batch: Any, to: Tensor, factor: float) -> Tensor:
        """L; factor · ∇L is added to a vector."""
        loss, gradient = self.loss_and_grad(batch)
        to.add_(gradient, alpha=factor)
        return loss

    def _is_finite_at(self, batch: Any, scale: float) -> bool:
        return all(map(all_finite, self._derivatives(self.loss(batch) * scale)))
