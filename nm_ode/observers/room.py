"""How much memory a run's series take, at least: asked before a run of many steps begins."""

from __future__ import annotations

from nm_ode.arguments import said
from nm_ode.loss import Problem
from nm_ode.memory import require_memory

_WHOLE = 28 + 2 * 8  # bytes of a whole number of Python's in a table: the saved steps are kept as such
_PER_STEP = 7  # lr, time, loss, the norms of gradient and update, and their steps


def require_room(
    problem: Problem, steps: int, saved: int, charges: int = 0, sketch: int | None = None
) -> None:
    """Refuse a run whose series alone do not fit into memory.

    Args:
        saved: how often theta is kept.
        charges: how many are recorded at each step.
        sketch: numbers that are kept in place of each theta.

    Raises:
        ArgumentError: with how much it would take, and how much there is.
    """
    layout, number = problem.layout, problem.dtype.itemsize
    thetas = saved * ((layout.size * number if sketch is None else 8 * sketch) + _WHOLE)
    series = steps * (8 * _PER_STEP + 2 * number * len(layout.layers) + 4 * 8 * charges)
    remedy = (
        f"raise save_every (theta is kept {said(saved)} times), or take fewer steps"
        if thetas > series
        else "take fewer steps"
    )
    require_memory(thetas + series, f"a run of {said(steps)} steps", remedy)
