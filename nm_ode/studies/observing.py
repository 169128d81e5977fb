"""What a case observes: the observers that its tables name, and what of them does not go with the case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from nm_ode.data import DataSet
from nm_ode.errors import NmOdeError
from nm_ode.observers import Observer, sketch_in_place_of_theta
from nm_ode.optimizers import Optimizer
from nm_ode.studies.errors import CaseError
from nm_ode.studies.own_code import OwnCode
from nm_ode.studies.schema import Case
from nm_ode.symmetries import Symmetry


def observers_of(
    case: Case,
    path: Path,
    code: OwnCode,
    along: Literal["run", "flows"],
    symmetries: Sequence[Symmetry],
    held_out: Callable[[], DataSet] | None = None,
) -> list[Observer]:
    """The case's observers, for one run or flow.

    Args:
        symmetries: those whose charges the case records.
        held_out: gives the test split of the case's data; None if there is none.

    Raises:
        CaseError: what an observer refuses, or a function that is not there.
    """
    made = []
    for i, table in enumerate(case.observe):
        if not table.looks_at(along):
            continue
        given: dict[str, Any] = {}
        if table.functions:
            given["functions"] = {
                key.removeprefix("functions."): _loaded(code, f"observe[{i}].{key}", one)
                for key, one in table.functions.items()
            }
        if table.wants_symmetries:
            given["symmetries"] = tuple(symmetries)
        if held_out is not None and table.wants_held_out:
            given["data"] = held_out
        try:
            made.append(table.make(folder=path.parent, **given))
        except NmOdeError as error:
            raise CaseError(f"{path}: observe[{i}]: {error}") from None
    return made


def require_sketch_fits(case: Case, path: Path, optimizer: Optimizer, observers: Sequence[Observer]) -> None:
    """Flows start from the run's first theta, which a sketch in its place does not have.

    Raises:
        CaseError: it is not known otherwise.
    """
    if (
        case.flows
        and case.training.warm_steps
        and not optimizer.stateful
        and sketch_in_place_of_theta(observers)
    ):
        raise CaseError(
            f"{path}: observe: a sketch stands in for theta, from which the flows would start after "
            "training.warm_steps: give it keep_theta = true"
        )


def _loaded(code: OwnCode, key: str, table: Any) -> Any:
    function = code.function(key, table)
    more = code.arguments(key, table, function, positional=1)
    return partial(function, **more) if more else function
