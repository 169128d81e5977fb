"""Symmetries: how well the laws predict their charges, and how well their constraints hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from nm_ode.comparison import SymmetryRow
from nm_ode.reporting.formats import NOT_MEASURED, count, exponent, power
from nm_ode.reporting.tables.table import Cell, Column, Table
from nm_ode.results import LawInfo
from nm_ode.symmetries.ended import Row as EndedRow

AT_REST = "at rest"
"""In place of an error: the charges do not move."""

_SYMMETRY = (Column(None, "kind", numeric=False), Column("symmetry", "symmetry", numeric=False))


def law_table(rows: Sequence[SymmetryRow], laws: Mapping[str, LawInfo]) -> Table:
    """How well each law, by the name of its group, predicts the charges of each symmetry that were recorded."""
    rows = [row for row in rows if not math.isnan(row.recorded_residual)] or rows
    columns = [*_SYMMETRY, Column("charges", "charges")]
    for info in laws.values():
        brief = info.law.replace("_", " ") + (" + ε" if info.with_residual else "")
        columns += [
            Column("together", brief, group=info.title),
            Column("worst", group=info.title),
        ]
    epsilon = (
        " A normalisation's ε breaks its scale symmetry: the exact law alone misses by that much, and closes once what "
        "was recorded of it, ⟨g, ξ⟩, is let in."
    )
    return Table(
        columns,
        [_law_cells(row, laws) for row in rows],
        caption=(
            "Largest error over the run, relative to how far the charges move: of a symmetry's charges together "
            "(2-norm over channels), and of its worst single charge. The exact law is SGD's own arithmetic and closes "
            "to rounding; a continuous law's error is that of taking steps for time. At rest: the charges do not move "
            "but by rounding, so there is nothing that an error could be relative to. – : it does not describe them."
            + (epsilon if any(info.with_residual for info in laws.values()) else "")
        ),
        brief_caption=(
            "largest error of each law over the run, relative to the motion of the symmetry's charges; at rest: they "
            "do not move; –: it does not describe them"
            if laws
            else ""
        ),
    )


def _law_cells(row: SymmetryRow, laws: Iterable[str]) -> list[Cell]:
    cells = [*_symmetry_cells(row), Cell(count(row.n_charges), f"{row.n_charges}")]
    for law in laws:
        error = row.laws[law]
        if error.still:
            cells += [Cell(AT_REST), Cell(AT_REST)]
            continue
        cells += [Cell(power(error.together), exponent(error.together)), Cell(power(error.worst))]
    return cells


def constraint_table(rows: Sequence[SymmetryRow]) -> Table:
    """How well each symmetry's constraints on gradient and Hessian hold."""
    columns = (
        *_SYMMETRY,
        Column("charges", "charges"),
        Column("gradient\n⟨g, ξ⟩ = 0", "gradient"),
        Column("of which\nfrom ε", "of ε"),
        Column("left", "left"),
        Column("Hessian\nHξ = −∂_ξ g", "Hessian"),
        Column("gradient,\nin the run"),
    )
    return Table(
        columns,
        [_constraint_cells(row) for row in rows],
        caption=(
            "Worst relative residuals at random parameters and batches in float64, and, last, over the run's own "
            "steps. What a symmetry forces is zero but for rounding; what a normalisation's ε adds is known and taken "
            "off."
        ),
        brief_caption=(
            "(in brackets: the diagonal of a matrix symmetry, counted with it)"
            if any(row.within for row in rows)
            else ""
        ),
    )


def _constraint_cells(row: SymmetryRow) -> list[Cell]:
    def residual(value: float) -> Cell:
        return Cell(power(value), exponent(value, 1))

    return [
        *_symmetry_cells(row, note=f"diagonal of {row.within}" if row.within else ""),
        Cell(count(row.n_charges), f"({row.n_charges})" if row.within else f"{row.n_charges}"),
        residual(row.gradient_residual),
        residual(row.epsilon_share) if row.epsilon else Cell(NOT_MEASURED, ""),
        residual(row.unexplained_residual),
        residual(row.hessian_residual),
        residual(row.recorded_residual),
    ]


def _symmetry_cells(row: SymmetryRow, note: str = "") -> list[Cell]:
    return [Cell("", row.kind), Cell(row.name, row.name.removeprefix(f"{row.kind} "), note=note)]


def ended_table(rows: Sequence[EndedRow]) -> Table:
    """Which operations ended the parameters that have no symmetry of a kind."""
    columns = tuple(
        Column(title, title, numeric=False)
        for title in ("kind", "parameters", "ended by", "why", "what to do")
    )
    return Table(
        columns,
        [
            [Cell(text) for text in (row.kind, _some(row.parameters), row.place, row.why, row.remedy)]
            for row in rows
        ],
    )


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
