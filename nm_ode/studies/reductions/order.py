"""The order of each flow in the learning rate, over the members of a sweep that end at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nm_ode.comparison import convergence
from nm_ode.registry import UnknownNameError
from nm_ode.results import SolveInfo, Variable, annotate, write
from nm_ode.results.study import Axis, Place, StudyRecord
from nm_ode.studies.reductions.ladder import Rung, confounders, point, rung
from nm_ode.studies.reductions.reduction import Members

LR, STEPS, WARM = "optimizer.lr", "training.steps", "training.warm_steps"
_POINTS = 6  # of a run at which sharpness and crossings are measured, where the case does not say
_SAME_TIME = 1e-6  # relative


class Order:
    """`/convergence`: the order of each flow, as `nm_ode.comparison.convergence` has it, along the axis of lr.

    Further axes are its first dimensions, and each of their places is such a dataset.
    """

    title = "order of each flow in the learning rate"

    def filled(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The ends are kept, and all steps of an optimiser with a transient; sharpness and crossings are measured."""
        made = dict(raw)
        training, solver = raw.get("training"), raw.get("solver", {})
        observe, steps = raw.get("observe", []), _at(training, "steps")
        if isinstance(training, Mapping) and "save_every" not in training and _is_count(steps):
            made["training"] = {**training, "save_every": 1 if _is_stateful(raw) else steps}
            if isinstance(solver, Mapping):
                made["solver"] = {"samples": 2, **solver}
        made.setdefault("stability", {"points": _POINTS, "required": False})
        if isinstance(observe, list) and not any(_name(entry) == "kink_crossings" for entry in observe):
            made["observe"] = [*observe, {"name": "kink_crossings", "points": _POINTS}]
        return made

    def mistake(self, record: StudyRecord, raw: Mapping[str, Any]) -> str | None:
        """Of a sweep without learning rates, or whose members do not end at one time."""
        case = record.case
        if not _lr_axis(record):
            return f'it needs several learning rates: "{LR}" = [0.2, 0.1, 0.05], say'
        if not case["flows"]:
            return "there is no flow whose order it could show: name some in flows"
        if case["optimizer"].get("schedule") is not None:
            return "optimizer.schedule does not go with it, for which lr is constant: leave it out"
        if not case["solver"]["check"]:
            return "it needs the solver's own error: leave solver.check = false out"
        for ladder in ladders(record):
            if len({one.values[LR] for one in ladder}) < len(ladder):
                return f"{LR} has one value at several places of its axis: give it other ones, or an axis of its own"
            for key in (STEPS, WARM):
                said = _other_time(ladder, key, case)
                if said is not None:
                    return said
        return None

    def reduce(self, record: StudyRecord, members: Members, path: Path) -> Mapping[str, xr.Dataset]:
        """Members that are not there are left out of the fit; nothing where no member has a flow."""
        rungs = {
            _elsewhere(record, ladder[0]): [rung(float(one.values[LR]), members(one.name)) for one in ladder]
            for ladder in ladders(record)
        }
        seen = [one for ladder in rungs.values() for one in ladder]
        flows, layers = _flows(seen), list(dict.fromkeys(layer for one in seen for layer in one.layers))
        if not flows:
            return {}
        step = record.case["solver"]["step"] is not None or "solver.step" in record.members[0].values
        found = {
            index: convergence(
                [point(one, flows, layers) for one in ladder], confounders(ladder, fixed_step=step)
            )
            for index, ladder in rungs.items()
        }
        whole = _stacked([axis for axis in record.axes if LR not in axis.values], found)
        return {"convergence": annotate(write(whole, confounders(seen, fixed_step=step)), _declared(record))}


def ladders(record: StudyRecord) -> Iterator[list[Place]]:
    """The members of each place of the other axes, along the learning rates."""
    found: dict[tuple[int, ...], list[Place]] = {}
    for place in record.members:
        found.setdefault(_elsewhere(record, place), []).append(place)
    yield from found.values()


def _lr_axis(record: StudyRecord) -> list[Axis]:
    return [axis for axis in record.axes if LR in axis.values and axis.size > 1]


def _elsewhere(record: StudyRecord, place: Place) -> tuple[int, ...]:
    """Its index along the axes that are not of the learning rate."""
    return tuple(i for axis, i in zip(record.axes, place.index, strict=True) if LR not in axis.values)


def _other_time(ladder: Sequence[Place], key: str, case: Mapping[str, Any]) -> str | None:
    """What to do if the members of a ladder do not take so many steps of their lr that it is the same time."""
    *table, name = key.split(".")
    written = case[table[0]][name]
    times = {float(one.values[LR]): one.values.get(key, written) * one.values[LR] for one in ladder}
    largest, least = max(times, key=lambda lr: times[lr]), min(times, key=lambda lr: times[lr])
    if times[largest] - times[least] <= _SAME_TIME * times[largest]:
        return None
    lr = case["optimizer"]["lr"]
    return (
        f"lr · {name} is {times[largest]:g} at lr = {largest:g} and {times[least]:g} at lr = {least:g}, and must be "
        f'one number: constraint = "lr * {name} = {lr * written:g}" makes it so'
    )


def _flows(rungs: Sequence[Rung]) -> dict[str, SolveInfo]:
    """By expected order and name, as the table of flows has them."""
    found = {name: seen.info for one in reversed(rungs) for name, seen in one.flows.items()}
    return dict(sorted(found.items(), key=lambda item: (item[1].expected_order, item[0])))


def _stacked(axes: Sequence[Axis], found: Mapping[tuple[int, ...], xr.Dataset]) -> xr.Dataset:
    """One dataset of those at all places of the axes, which become its first dimensions."""
    if not axes:
        return found[()]
    *above, last = axes
    rows: dict[tuple[int, ...], list[xr.Dataset]] = {}
    for index in sorted(found):
        rows.setdefault(index[:-1], []).append(found[index])
    return _stacked(above, {index: _along(last, row) for index, row in rows.items()})


def _along(axis: Axis, row: Sequence[xr.Dataset]) -> xr.Dataset:
    made = xr.concat(row, axis.name, data_vars="all", coords="minimal", compat="override")
    values = next(iter(axis.values.values()))
    plain = all(isinstance(value, int | float) for value in values) or all(
        isinstance(value, str) for value in values
    )
    return made.assign_coords({axis.name: np.array(values)}) if plain else made


def _declared(record: StudyRecord) -> dict[str, Variable]:
    """The coordinates of the axes."""
    return {axis.name: Variable((), next(iter(axis.values))) for axis in record.axes if LR not in axis.values}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _name(entry: Any) -> Any:
    return _at(entry, "name") if isinstance(entry, Mapping) else entry


def _at(table: Any, key: str) -> Any:
    return table.get(key) if isinstance(table, Mapping) else None


def _is_stateful(raw: Mapping[str, Any]) -> bool:
    """Has the optimiser of a case a state beyond theta? What is wrong with it is told elsewhere."""
    from nm_ode.studies.entries import OptimizerTable

    try:
        made = OptimizerTable.model_validate(raw.get("optimizer")).make(folder=Path())
    except (UnknownNameError, ValueError):
        return False
    return bool(made.stateful)


ORDER = Order()
