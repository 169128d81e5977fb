"""Modified flow: the equation whose time-h map is the optimiser's step (docs/theory.md §4.1, §4.2).

Backward error analysis: Hairer, Lubich, Wanner, "Geometric Numerical Integration", ch. IX.
"""

from __future__ import annotations

from typing import Literal

from nm_ode.arguments import said
from nm_ode.flows.base import Flow, FlowError, UpdateMap, require_descent, require_plain, require_update_map
from nm_ode.flows.gradient import GradientFlow
from nm_ode.flows.hessian import HessianFlow
from nm_ode.flows.iterated_map import IteratedMapFlow, as_map_order
from nm_ode.loss import Problem

Form = Literal["iterated_map", "hessian"]


def modified_flow(
    problem: Problem, optimizer: UpdateMap, order: int = 2, form: Form = "iterated_map"
) -> Flow:
    """The modified flow of `optimizer` on `problem`, matching its run to O(η^order) at fixed time.

    From K calls of the optimiser's own update; docs/theory.md §4.1 (Hessian form), §4.2 (4.3) (iterated map).

    Args:
        problem: the loss.
        optimizer: SGD, Adam, AdamW or RMSProp with any of their options.
        order: K ≥ 1. 1 is gradient flow, and for a stateful optimiser the first difference of its
            whole state.
        form: "iterated_map" (every optimiser and order; K gradients an evaluation) or "hessian" (plain descent, order
            2: one gradient and one Hessian product, order 3: another and a third derivative).

    Returns:
        A `Flow`, whose state is the optimiser's: theta, and its memory where it has some.

    Raises:
        FlowError: an order or optimiser for which this form is not built.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.1)
        >>> run = nm_ode.train(problem, sgd, steps=10)
        >>> flows = [nm_ode.modified_flow(problem, sgd, order) for order in (1, 2, 4)]
        >>> [f"{float(nm_ode.compare(run, nm_ode.solve(flow, run)).error[-1]):.0e}" for flow in flows]
        ['2e-02', '2e-03', '5e-05']
    """
    if not isinstance(form, str) or form not in ("iterated_map", "hessian"):
        raise FlowError(f"form must be 'iterated_map' or 'hessian'; {said(form)} was given")
    require_update_map(optimizer)
    order = as_map_order(order)
    if form == "hessian":
        plain = require_plain(optimizer, "modified flow in Hessian form")
        return GradientFlow(problem, plain) if order == 1 else HessianFlow(problem, plain, order)
    if order == 1 and optimizer.is_descent and not optimizer.stateful:
        return GradientFlow(problem, require_descent(optimizer, "gradient flow"))
    return IteratedMapFlow(problem, optimizer, order)
