"""How many units cross their kink in one step of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nm_ode.arguments import as_count
from nm_ode.loss import Problem
from nm_ode.loss.nonsmooth import changed_share, kinks, sides
from nm_ode.observers.base import Context, Observer, View, spread_steps
from nm_ode.results import Variable, variable


@dataclass(frozen=True)
class KinkCrossings(Observer):
    """`crossing_share`: the share of units on another side of their kink after a step than before, at some steps.
    See docs/theory.md §4.7.

    NaN where the loss is smooth.

    Args:
        points: how many steps to measure, spread over the run. Nothing is observed along a flow.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 8, 10], "relu"), cross_entropy, digits(samples=64))
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.5), steps=20, observe=[nm_ode.KinkCrossings(points=3)])
        >>> run.crossing_step.values, bool((run.crossing_share > 0).any())
        (array([ 0, 10, 19]), True)
    """

    points: int = 6

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", as_count(self.points, "points"))

    def begin(self, context: Context) -> Sequence[Observer]:
        if context.along_flow:
            return []
        return [_Crossings(context.problem, spread_steps(context.steps - 1, self.points))]


class _Crossings(Observer):
    dim: str = "crossing_step"
    update_variables: Mapping[str, Variable] = {"crossing_share": variable("crossing_share")}

    def __init__(self, problem: Problem, steps: Sequence[int]) -> None:
        self._problem, self._steps = problem, steps
        self._before: list[Tensor] = []

    def steps(self, context: Context) -> Collection[int]:
        return self._steps

    def memory(self) -> Mapping[str, Any]:
        return {}  # nothing outlives a step

    def observe(self, view: View) -> Mapping[str, Any]:
        self._before = self._sides(view)
        return {}

    def observe_update(self, view: View) -> Mapping[str, Any]:
        return {"crossing_share": changed_share(self._before, self._sides(view))}

    def _sides(self, view: View) -> list[Tensor]:
        kinked = kinks(self._problem)
        return sides(self._problem, view.theta, kinked) if kinked else []
