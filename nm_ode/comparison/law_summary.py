"""The charge table: one row a symmetry, read off a finished tree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from nm_ode.results import LawInfo, law_info
from nm_ode.symmetries import Symmetries


@dataclass(frozen=True)
class LawAccuracy:
    """A law's largest error over a run, relative to the motion of the charges; NaN where they do not move.

    Attributes:
        together: of the symmetry's charges together.
        worst: of its worst charge by itself.
        still: do none of the charges move, but by rounding? Then there is nothing that an error could be relative to.
    """

    together: float
    worst: float
    still: bool = False


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
    recorded_residual: float = math.nan
    laws: Mapping[str, LawAccuracy] = field(default_factory=dict)


def law_infos(tree: xr.DataTree) -> dict[str, LawInfo]:
    """Name of a law's group → what the prediction is, of those that there are."""
    if "laws" not in tree.children:
        return {}
    infos = {name: law_info(node.dataset) for name, node in tree["laws"].children.items()}
    return dict(sorted(infos.items()))  # a store lists groups as they come


def symmetry_summary(tree: xr.DataTree) -> list[SymmetryRow]:
    """Rows in the order in which the symmetries were found; empty where none were looked for."""
    if "symmetries" not in tree.children:
        return []
    table, run = tree["symmetries"].dataset, tree["discrete"].dataset
    comparisons = {law: tree[f"comparison/{law}"].dataset for law in law_infos(tree)}
    rows = []
    for i, name in enumerate(table["symmetry"].values.tolist()):
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


def symmetry_rows(found: Symmetries) -> list[SymmetryRow]:
    """Rows of symmetries that were found and verified, without a run."""
    checks = [(symmetry, found.checks[symmetry.name]) for symmetry in found]
    return [
        SymmetryRow(
            name=symmetry.name,
            kind=symmetry.kind,
            n_charges=symmetry.count,
            within=symmetry.within or "",
            epsilon=symmetry.epsilon,
            gradient_residual=check.gradient,
            epsilon_share=check.epsilon_share,
            unexplained_residual=check.unexplained,
            hessian_residual=math.nan if check.hessian is None else check.hessian,
        )
        for symmetry, check in checks
    ]


def _law_error(comparison: xr.Dataset, name: str) -> LawAccuracy:
    if name not in comparison["symmetry"].values:
        return LawAccuracy(math.nan, math.nan)
    together = comparison["symmetry_relative_error"].values[:, comparison["symmetry"].values == name]
    each = comparison["charge_relative_error"].values[:, comparison["charge_symmetry"].values == name]
    motion = comparison["charge_motion"].values[comparison["charge_symmetry"].values == name]
    return LawAccuracy(_largest(together), _largest(each), still=bool((motion == 0).all()))


def _recorded_residual(run: xr.Dataset, name: str) -> float:
    if "constraint_residual" not in run or name not in run["charge_symmetry"].values:
        return math.nan
    here = run["charge_symmetry"].values == name
    steps = run[run["generator_norm"].dims[0]]  # all, or those at which charges were recorded
    size = run["generator_norm"].values[:, here] * run["grad_norm"].sel(step=steps).values[:, None]
    return _largest(
        np.abs(run["constraint_residual"].values[:, here]) / np.maximum(size, np.finfo(float).tiny)
    )


def _largest(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else math.nan
