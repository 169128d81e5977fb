"""The symmetries of a case and the laws of their charges, as groups of the tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from nm_ode.charges import LAWS, LawError, require_described
from nm_ode.loss import Problem
from nm_ode.optimizers import Optimizer, hyperparameters
from nm_ode.registry import did_you_mean
from nm_ode.results import SymmetriesInfo, annotate, write
from nm_ode.studies.errors import CaseError
from nm_ode.studies.schema import Case
from nm_ode.symmetries import Symmetries, Symmetry, SymmetryError, symmetries_of


@dataclass(frozen=True)
class WantedLaw:
    """A law that is to predict the charges.

    Attributes:
        name: in `LAWS`.
        with_residual: with what a normalisation's ε adds.
    """

    name: str
    with_residual: bool = False

    @property
    def group(self) -> str:
        """Name of its group in `/laws`."""
        return self.name + ("_epsilon" if self.with_residual else "")


@dataclass(frozen=True)
class Wanted:
    """The symmetries that a case asks for.

    Attributes:
        chosen: those of the wanted kinds, whose charges are recorded.
        laws: that predict them.
        table: `/symmetries`, what the verification measured.
        defects: sentences on what the rules found and the numbers did not bear out.
    """

    chosen: tuple[Symmetry, ...]
    laws: tuple[WantedLaw, ...]
    table: xr.Dataset
    defects: tuple[str, ...]


def wanted_symmetries(case: Case, problem: Problem, optimizer: Optimizer) -> Wanted | None:
    """Find and verify; None if the case asks for none.

    Raises:
        SymmetryError: the model cannot be traced, or no symmetry is among the layers that the case names.
    """
    if case.symmetries is None:
        return None
    kinds, layers, found = case.symmetries.kinds, case.symmetries.layers, symmetries_of(problem)
    chosen = tuple(
        s
        for s in found
        if (kinds is None or s.kind in kinds) and (layers is None or _layers_of(s, problem).issubset(layers))
    )
    if layers is not None and not chosen:
        there = ", ".join(s.name for s in found)
        raise SymmetryError(
            f"layers: {', '.join(layers)} were given, and no symmetry is among them alone: name all layers of those "
            f"that are wanted ({f'there are {there}' if there else 'there is none'})"
        )
    laws = []
    for law in _laws(case, problem, optimizer) if chosen else ():
        laws.append(WantedLaw(law))
        if LAWS[law].takes_residual and any(s.epsilon for s in chosen):
            laws.append(WantedLaw(law, with_residual=True))
    remarks = [*found.left_out, *found.notes]
    if chosen and problem.foreign_gradient:
        remarks.append(f"no law predicts the charges: {problem.foreign_gradient}")
    return Wanted(chosen, tuple(laws), _table(found, remarks), found.defects)


def _layers_of(symmetry: Symmetry, problem: Problem) -> set[str]:
    return {problem.layout[parameter].layer for parameter in symmetry.parameters}


def require_layers_fit(case: Case, path: Path, problem: Problem) -> None:
    """Raises CaseError for a layer that the model has not."""
    if case.symmetries is None:
        return
    known = problem.layout.layers
    for i, layer in enumerate(case.symmetries.layers or ()):
        if layer not in known:
            raise CaseError(
                f"{path}: symmetries.layers[{i}]: {layer!r} was given{did_you_mean(layer, known)}"
            )


def require_laws_fit(case: Case, path: Path, problem: Problem, optimizer: Optimizer) -> None:
    """Raises CaseError for a law that does not describe the case's run."""
    if case.symmetries is None:
        return
    for i, law in enumerate(case.symmetries.laws or ()):
        try:
            _require_described(law, case, optimizer)
        except LawError as error:
            raise CaseError(f"{path}: symmetries.laws[{i}]: {law!r} was given; {error}") from None
    if case.symmetries.laws and problem.foreign_gradient:
        raise CaseError(
            f"{path}: symmetries.laws: {problem.foreign_gradient}; no law describes its charges: leave laws out"
        )


def _laws(case: Case, problem: Problem, optimizer: Optimizer) -> list[str]:
    """Those that were asked for; else the discrete ones that describe the run, and the first such continuous one.

    None of a run whose gradient is not the loss's.
    """
    assert case.symmetries is not None
    if case.symmetries.laws is not None:
        return list(case.symmetries.laws)
    if problem.foreign_gradient:
        return []
    fitting = [name for name in LAWS if _describes(name, case, optimizer)]
    if case.symmetries.charges_every > 1:
        fitting = [name for name in fitting if LAWS[name].recursion is not None]
    continuous = [name for name in fitting if LAWS[name].equation is not None]
    return [name for name in fitting if name not in continuous[1:]]


def _describes(law: str, case: Case, optimizer: Optimizer) -> bool:
    try:
        _require_described(law, case, optimizer)
    except LawError:
        return False
    return True


def _require_described(law: str, case: Case, optimizer: Optimizer) -> None:
    at_rest = not (case.training.warm_steps and optimizer.stateful)
    require_described(law, type(optimizer).__name__, hyperparameters(optimizer), at_rest=at_rest)


def _table(found: Symmetries, remarks: Sequence[str]) -> xr.Dataset:
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
            "hessian_residual": column(
                [np.nan if check.hessian is None else check.hessian for check in checks]
            ),
        },
        coords={"symmetry": words([s.name for s in found])},
    )
    return annotate(write(table, SymmetriesInfo(found.n_charges(), remarks=tuple(remarks))))
