"""The symmetries of a case and the laws of their charges, as groups of the tree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from nm_ode.charges import predict_charges
from nm_ode.loss import Problem
from nm_ode.optimizers import Optimizer
from nm_ode.results import SymmetriesInfo, annotate, write
from nm_ode.studies.errors import CaseError
from nm_ode.studies.schema import Case, SymmetriesTable
from nm_ode.symmetries import Symmetries, Symmetry, symmetries_of

WITH_EPSILON = "exact_epsilon"


@dataclass(frozen=True)
class Wanted:
    """The symmetries that a case asks for.

    Attributes:
        chosen: those of the wanted kinds, whose charges are recorded.
        laws: names of groups of predictions.
        table: `/symmetries`, what the verification measured.
        defects: sentences on what the rules found and the numbers did not bear out.
    """

    chosen: tuple[Symmetry, ...]
    laws: tuple[str, ...]
    table: xr.Dataset
    defects: tuple[str, ...]


def wanted_symmetries(table: SymmetriesTable, problem: Problem, optimizer: Optimizer) -> Wanted:
    """Find and verify.

    Raises:
        SymmetryError: the model cannot be traced.
    """
    found = symmetries_of(problem)
    chosen = tuple(s for s in found if table.kinds is None or s.kind in table.kinds)
    laws = _laws(table, optimizer) if chosen else []
    if "exact" in laws and any(s.epsilon for s in chosen):
        laws.insert(laws.index("exact") + 1, WITH_EPSILON)
    return Wanted(chosen, tuple(laws), _table(found), found.defects)


def prediction(run: xr.Dataset, law: str) -> xr.Dataset:
    """A law's group; the exact law comes with and without what ε adds."""
    if law == WITH_EPSILON:
        return predict_charges(run, "exact", with_residual=True)
    return predict_charges(run, law)


def require_laws_fit(case: Case, path: Path, optimizer: Optimizer) -> None:
    """Raises CaseError for a law that the charges do not follow under this optimiser."""
    laws = case.symmetries.laws if case.symmetries is not None else None
    if not laws:
        return
    if not optimizer.is_descent:
        raise CaseError(
            f"{path}: symmetries.laws: the laws of the charges are SGD's; optimizer.name is {case.optimizer.name!r}: "
            "leave laws out, and the charges are recorded"
        )
    if "first_order" in laws and optimizer.stateful:
        raise CaseError(
            f"{path}: symmetries.laws: 'first_order' is for momentum = 0; this case has "
            f"{case.optimizer.options['momentum']}: use 'second_order'"
        )


def _laws(table: SymmetriesTable, optimizer: Optimizer) -> list[str]:
    """Those that were asked for; else the exact law and the continuous one that fits; none but for SGD."""
    if table.laws is not None:
        return list(table.laws)
    if not optimizer.is_descent:
        return []
    return ["exact", "second_order" if optimizer.stateful else "first_order"]


def _table(found: Symmetries) -> xr.Dataset:
    """Dimension `symmetry`."""
    checks = [found.checks[symmetry.name] for symmetry in found]

    def column(values: list[float]) -> tuple[str, np.ndarray]:
        return "symmetry", np.array(values, dtype=float)

    def words(values: list[str]) -> tuple[str, np.ndarray]:
        return "symmetry", np.array(values, dtype=object)

    table = xr.Dataset(
        {
            "kind": words([s.kind for s in found]),
            "n_charges": ("symmetry", np.array([s.count for s in found], dtype=int)),
            "within": words([s.within or "" for s in found]),
            "epsilon": column([s.epsilon for s in found]),
            "gradient_residual": column([check.gradient for check in checks]),
            "epsilon_share": column([check.epsilon_share for check in checks]),
            "unexplained_residual": column([check.unexplained for check in checks]),
            "hessian_residual": column([check.hessian for check in checks]),
        },
        coords={"symmetry": words([s.name for s in found])},
    )
    return annotate(write(table, SymmetriesInfo(found.n_charges())))
