"""The charge table: one row a symmetry, read off a finished tree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class LawAccuracy:
    """The worst of a law over a run, relative to the motion of the charges; NaN where they do not move.

    Attributes:
        family: of the symmetry's charges together.
        channel: of its worst charge by itself.
    """

    family: float
    channel: float


@dataclass(frozen=True)
class SymmetryRow:
    """A symmetry: what the verification measured, and how well each law predicts its charges.

    Attributes:
        recorded_residual: largest |⟨g, ξ⟩| / (‖g‖ ‖ξ‖) over the run; NaN where its charges were not recorded.
        laws: law → its error.
    """

    name: str
    kind: str
    n_charges: int
    within: str
    epsilon: float
    gradient_residual: float
    epsilon_share: float
    unexplained_residual: float
    hessian_residual: float
    recorded_residual: float
    laws: dict[str, LawAccuracy]


def law_titles(tree: xr.DataTree) -> dict[str, str]:
    """Law → title, of those that were predicted."""
    if "laws" not in tree.children:
        return {}
    titles = {name: str(node.attrs["title"]) for name, node in tree["laws"].children.items()}
    return dict(sorted(titles.items()))  # a store lists groups as they come


def symmetry_summary(tree: xr.DataTree) -> list[SymmetryRow]:
    """Rows in the order in which the symmetries were found; empty where none were looked for."""
    if "symmetries" not in tree.children:
        return []
    table, run = tree["symmetries"].dataset, tree["discrete"].dataset
    comparisons = {law: tree[f"comparison/{law}"].dataset for law in law_titles(tree)}
    rows = []
    for i, name in enumerate(table["family"].values.tolist()):
        values = {
            key: table[key].values.tolist()[i] for key in SymmetryRow.__dataclass_fields__ if key in table
        }
        rows.append(
            SymmetryRow(
                name=name,
                recorded_residual=_recorded_residual(run, name),
                laws={law: _law_error(comparison, name) for law, comparison in comparisons.items()},
                **values,
            )
        )
    return rows


def _law_error(comparison: xr.Dataset, name: str) -> LawAccuracy:
    if name not in comparison["family"].values:
        return LawAccuracy(math.nan, math.nan)
    family = comparison["family_relative_error"].values[:, comparison["family"].values == name]
    of_channels = comparison["charge_relative_error"].values[:, comparison["symmetry"].values == name]
    return LawAccuracy(_largest(family), _largest(of_channels))


def _recorded_residual(run: xr.Dataset, name: str) -> float:
    if "constraint_residual" not in run or name not in run["symmetry"].values:
        return math.nan
    here = run["symmetry"].values == name
    size = run["generator_norm"].values[:, here] * run["grad_norm"].values[:, None]
    return _largest(
        np.abs(run["constraint_residual"].values[:, here]) / np.maximum(size, np.finfo(float).tiny)
    )


def _largest(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else math.nan
