"""The flows' errors before and after the run leaves them."""

from __future__ import annotations

from nm_ode.comparison import Stability
from nm_ode.reporting.formats import NOT_MEASURED, exponent, power
from nm_ode.reporting.tables.table import Cell, Column, Table


def stability_table(seen: Stability) -> Table | None:
    """One row a flow: its error where the stability limit is passed, where the run jumps, and at the end.

    None where the run is stable, or nothing was compared with it.
    """
    if not seen.errors:
        return None
    jump = None if seen.jump is None else seen.jump.step
    at_limit, at_jump = f"step {seen.unstable_from}", NOT_MEASURED if jump is None else f"step {jump}"
    columns = (
        Column("flow", "flow", numeric=False),
        Column(f"error at the limit,\n{at_limit}", f"limit, {at_limit}"),
        Column(f"error at the jump,\n{at_jump}", f"jump, {at_jump}"),
        Column("error at\nthe end", "end"),
    )
    rows = [
        [Cell(one.title), *(Cell(power(x), exponent(x)) for x in (one.there, one.at_jump, one.at_end))]
        for one in seen.errors
    ]
    caption = (
        f"Distance from the run over its motion, at the saved steps nearest to these. {_steps(seen)}".strip()
    )
    return Table(
        columns, rows, caption=caption, brief_caption=f"errors over the motion. {_steps(seen)}".strip()
    )


def _steps(seen: Stability) -> str:
    """ "The jump: foreseen at step 294, seen at step 298." """
    if seen.jump is None:
        return ""
    foreseen, found = (
        "not foreseen" if seen.jump.foreseen is None else f"foreseen at step {seen.jump.foreseen}",
        "not seen" if seen.jump.seen is None else f"seen at step {seen.jump.seen}",
    )
    return f"The jump: {foreseen}, {found}."
