"""The symmetries of a case and the laws of their charges, as groups of the tree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from nm_ode.charges import predict_charges
from nm_ode.loss import Problem
from nm_ode.optimizers import Optimizer
from nm_ode.results.schema import annotate
from nm_ode.studies.case import SymmetriesTable
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
    laws = table.laws_for(optimizer) if chosen else []
    if "exact" in laws and any(s.epsilon for s in chosen):
        laws.insert(laws.index("exact") + 1, WITH_EPSILON)
    return Wanted(chosen, tuple(laws), _table(found), found.defects)


def _table(found: Symmetries) -> xr.Dataset:
    """Dimension `family`."""
    checks = [found.checks[symmetry.name] for symmetry in found]

    def column(values: list[float]) -> tuple[str, np.ndarray]:
        return "family", np.array(values, dtype=float)

    return annotate(
        xr.Dataset(
            {
                "kind": ("family", np.array([s.kind for s in found], dtype=object)),
                "n_charges": ("family", np.array([s.count for s in found], dtype=int)),
                "within": ("family", np.array([s.within or "" for s in found], dtype=object)),
                "epsilon": column([s.epsilon for s in found]),
                "gradient_residual": column([check.gradient for check in checks]),
                "epsilon_share": column([check.epsilon_share for check in checks]),
                "unexplained_residual": column([check.unexplained for check in checks]),
                "hessian_residual": column([check.hessian for check in checks]),
            },
            coords={"family": np.array([s.name for s in found], dtype=object)},
            attrs={"status": "success", "n_charges": found.n_charges()},
        )
    )


def prediction(run: xr.Dataset, law: str) -> xr.Dataset:
    """A law's group; the exact law comes with and without what ε adds."""
    if law == WITH_EPSILON:
        return predict_charges(run, "exact", with_residual=True)
    return predict_charges(run, law)
