"""Sharpness along a run: how close the learning rate is to where steps stop following a flow, or diverge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from torch import Tensor

from nm_ode.loss import Problem
from nm_ode.loss.spectrum import Sharpness, sharpness
from nm_ode.optimizers import SERIES_LIMIT, Optimizer
from nm_ode.results.schema import annotate

__all__ = ["CurvatureRecord", "Sharpness", "sharpness", "spread_steps"]


class CurvatureRecord:
    """Watches a run: the sharpness at some of its steps, each Lanczos started from the eigenvector before.

    Args:
        steps: at which to measure; `spread_steps` chooses some.
    """

    def __init__(self, problem: Problem, optimizer: Optimizer, steps: Sequence[int]) -> None:
        self.steps = frozenset(steps)
        self._problem, self._optimizer = problem, optimizer
        self._found: dict[int, Sharpness] = {}

    def __call__(self, step: int, state: Tensor) -> None:
        """Measure at the state before a step."""
        theta = state[: self._problem.layout.size]
        before = next(reversed(self._found.values()), None)
        self._found[step] = sharpness(
            self._problem,
            theta,
            preconditioner=self._preconditioner(state, theta),
            v0=None if before is None else before.vector,
        )

    def _preconditioner(self, state: Tensor, theta: Tensor) -> Tensor | None:
        if not self._optimizer.multiscale:
            return None  # and no gradient is spent to learn it
        return self._optimizer.preconditioner(state, self._problem.grad(theta))

    def dataset(self, run: xr.Dataset) -> xr.Dataset:
        """`/discrete/curvature`: dimension `curvature_step`.

        `sharpness` is λ_max of the Hessian that the optimiser sees (preconditioned for Adam, weight decay added), and
        `normalised_sharpness` the same times the learning rate that it is multiplied by, which is to be compared with
        the attributes `series_limit` (the modified flow) and `stability_limit` (the run).
        """
        steps = np.array(sorted(self._found), dtype=int)
        steps = steps[steps <= run.sizes["step"]]
        optimizer = self._optimizer
        lrs = np.append(run["lr"].values, run["lr"].values[-1])[steps]
        times = np.interp(steps, run["saved_step"].values, run["saved_time"].values)
        seen = np.array([self._found[int(step)].value for step in steps]) + optimizer.decay_curvature
        return annotate(
            xr.Dataset(
                {
                    "sharpness": ("curvature_step", seen),
                    "normalised_sharpness": (
                        "curvature_step",
                        seen * lrs * (optimizer.curvature_step / optimizer.lr),
                    ),
                },
                coords={"curvature_step": steps, "curvature_time": ("curvature_step", times)},
                attrs={
                    "series_limit": SERIES_LIMIT,
                    "stability_limit": optimizer.stability_limit,
                    "hvp_evaluations": sum(found.hvp_evaluations for found in self._found.values()),
                    "status": "success",
                },
            )
        )


def spread_steps(steps: int, points: int) -> list[int]:
    """`points` steps of 0 … steps, evenly spread, with both ends."""
    return sorted({round(place) for place in np.linspace(0, steps, max(points, 2)).tolist()})
