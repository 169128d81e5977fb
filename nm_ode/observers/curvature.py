"""Sharpness along a run: how close the learning rate is to where steps stop following a flow, or diverge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nm_ode.arguments import as_count
from nm_ode.observers.base import Context, Observer, spread_steps
from nm_ode.observers.sharpest import SharpestDirection
from nm_ode.observers.sharpnesses import Sharpnesses


@dataclass(frozen=True)
class Curvature(Observer):
    """Along a run, at some steps, along `curvature_step`; the tree keeps it in `/discrete/curvature`.
    See docs/theory.md §4.5, §4.11.

    `sharpness` is λ_max of the Hessian that the optimiser sees (preconditioned for Adam, weight decay added; over
    minibatches of a loss that sums over its samples, of the part of the loss that a batch has on average), and
    `normalised_sharpness` the same times the learning rate that it is multiplied by, which is to be compared with the
    constants `series_limit` (the modified flow) and, where the optimiser's is known, `stability_limit` (the run).

    Where it is known how an error along an eigenvector grows under the optimiser, what
    `SharpestDirection` measures comes with it: from that the step is foreseen at which the run leaves the flow.

    Args:
        points: at how many steps to measure, spread over the run. Nothing is observed along a flow.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=9, observe=[nm_ode.Curvature(points=3)])
        >>> run.curvature_step.values, run.normalised_sharpness.values.round(3), float(run.stability_limit)
        (array([0, 4, 9]), array([0.805, 0.805, 0.805]), 2.0)
    """

    points: int = 20

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", as_count(self.points, "points"))

    def begin(self, context: Context) -> Sequence[Observer]:
        optimizer = context.optimizer
        if context.along_flow or optimizer is None:
            return []
        found = Sharpnesses(context, optimizer, spread_steps(context.steps, self.points))
        stability = optimizer.stability
        if stability is None or stability.momentum is None:
            return [found]
        return [found, SharpestDirection(context, found, optimizer, stability)]
