"""Recorded charges and what their law predicts, as arrays: of a run, of a study's tree, or of each of its members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.charges import LAWS
from nm_ode.comparison import law_infos
from nm_ode.errors import ArgumentError
from nm_ode.observers.track import time_of
from nm_ode.reporting.plots.given import Given, as_tree, study_axes, with_law
from nm_ode.results import ResultError, run_info

Array = NDArray[np.float64]
Names = NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Followed:
    """Charges of one run beside a law's.

    Attributes:
        about: what tells the run from others: hyperparameters and samples, or its place in a study.
        times: shape (T,), flow time.
        recorded, predicted: shape (T, C); predictions are NaN where the law does not describe a charge.
        symmetry, kind: shape (C,), names.
        motion: shape (C,), max |Q(t) − Q(0)| over what is finite; 0 where nothing moves but by rounding.
        errors: symmetry → the law's largest error over the run, relative to the motion of its charges together; NaN
            where they do not move.
        law, title: name of the law's group, and the law for a reader.
    """

    about: Mapping[str, Any]
    times: Array
    recorded: Array
    predicted: Array
    symmetry: Names
    kind: Names
    motion: Array
    errors: Mapping[str, float]
    law: str
    title: str

    @property
    def symmetries(self) -> dict[str, str]:
        """Symmetry → its kind, in the run's order."""
        return dict(zip(self.symmetry.tolist(), self.kind.tolist(), strict=True))

    def channels(self, symmetry: str) -> NDArray[np.int_]:
        """Which charges are a symmetry's; shape (channels,)."""
        return np.flatnonzero(self.symmetry == symmetry)

    def moves(self, symmetry: str) -> bool:
        """Does a charge of the symmetry move, not by rounding alone?"""
        return bool(self.motion[self.channels(symmetry)].any())

    def require(self, symmetry: str) -> str:
        """The symmetry's name.

        Raises:
            ArgumentError: the run has no charges of it.
        """
        there = self.symmetries
        if symmetry not in there:
            raise ArgumentError(f"the run has no charges of {symmetry!r}; it has those of {', '.join(there)}")
        return symmetry


def law_groups(tree: xr.DataTree) -> list[str]:
    """Groups of predictions in the order of preference: differential equations, the last first, before recursions."""
    infos = law_infos(tree)
    continuous = [group for group, info in infos.items() if info.law in LAWS and LAWS[info.law].equation]
    return list(dict.fromkeys([*reversed(continuous), *infos]))


def followed(given: Given, law: str | None = None, name: str = "run") -> list[Followed]:
    """Of a run or a study's tree one, of a study of many members one for each that is whole and has charges.

    Args:
        given: from `train`, `open_store` or `open_study`.
        law: name of a law or of its group; a differential equation's, where one was predicted, if None. Of a run alone
            the law is predicted here.
        name: of the argument, for messages.

    Raises:
        LawError: no charges were recorded, or no law describes them.
        ArgumentError: there is no such law.
        ResultError: there are no charges, or no run.
    """
    tree = as_tree(given, name=name)
    axes = study_axes(tree)
    if axes is None:
        tree = with_law(tree)
        run = tree["discrete"].to_dataset()
        info = run_info(run)
        about = {**info.hyperparameters, "batch size": info.grid.batch_size, "seed": info.grid.seed}
        if info.optimizer != "SGD":
            about = {"optimizer": info.optimizer, **about}
        return [_of(tree, {}, about, _groups(tree, law, name))]
    groups = _groups(tree, law, name)
    found = list(_of_members(tree, axes, groups)) if groups and "charge" in tree["discrete"] else []
    if not found:
        raise ResultError(f"no member of the study in {name} has recorded charges beside a law's")
    return found


def _groups(tree: xr.DataTree, law: str | None, name: str) -> list[str]:
    infos = law_infos(tree)
    if law is None:
        return law_groups(tree)
    chosen = [group for group, info in infos.items() if group == law] or [
        group for group, info in infos.items() if info.law == law
    ]
    if not chosen:
        there = ", ".join(infos) or "none"
        raise ArgumentError(f"{name} has no charges predicted by the law {law!r}; it has those by {there}")
    return chosen


def _of_members(tree: xr.DataTree, axes: tuple[str, ...], groups: list[str]) -> Iterator[Followed]:
    root = tree.to_dataset(inherit=False)
    for place in np.argwhere(np.asarray(root["whole"].values)).tolist():
        where = dict(zip(axes, place, strict=True))
        about = _place(root, where)
        if np.isfinite(_chosen(tree["discrete"].dataset["charge"], where)).any():
            one = _of(tree, where, about, groups)
            if np.isfinite(one.predicted).any():
                yield one


def _place(root: xr.Dataset, where: Mapping[str, int]) -> dict[str, Any]:
    """A member's values of what varies, those that vary together with an axis among them."""
    about: dict[str, Any] = {}
    for axis, i in where.items():
        along = [str(name) for name, one in root.coords.items() if one.dims == (axis,) and name != axis]
        about[axis] = root[axis].values[i] if axis in root.coords else i
        about |= {name.rpartition(".")[2]: root[name].values[i] for name in along}
    return about


def _of(tree: xr.DataTree, where: Mapping[str, int], about: Mapping[str, Any], groups: list[str]) -> Followed:
    run = tree["discrete"].dataset
    along = str(next(dim for dim in run["charge"].dims if str(dim) in ("step", "charge_step")))
    recorded, times = (_numbers(run[name], where) for name in ("charge", time_of(along)))
    names, kinds = (_chosen(run[name], where).astype(object) for name in ("charge_symmetry", "kind"))
    group, predicted = _prediction(tree, where, groups, like=recorded)
    compared = tree[f"comparison/{group}"].dataset
    motion = _numbers(compared["charge_motion"], where)
    motion = np.where(np.isfinite(motion), motion, _way(recorded))
    if study_axes(tree) is not None:  # a member with fewer steps or charges than others is filled up
        steps = np.isfinite(times) & np.isfinite(recorded).any(axis=1)
        there = (names != "") & np.isfinite(recorded[steps]).any(axis=0)
        times, names, kinds, motion = times[steps], names[there], kinds[there], motion[there]
        recorded, predicted = recorded[np.ix_(steps, there)], predicted[np.ix_(steps, there)]
    relative = _numbers(compared["symmetry_relative_error"], where)
    errors = {str(name): _largest(relative[:, i]) for i, name in enumerate(compared["symmetry"].values)}
    title = law_infos(tree)[group].title
    return Followed(about, times, recorded, predicted, names, kinds, motion, errors, group, title)


def _prediction(
    tree: xr.DataTree, where: Mapping[str, int], groups: list[str], like: Array
) -> tuple[str, Array]:
    """The first of these groups that has predictions, and what it has."""
    for group in groups:
        values = _numbers(tree[f"laws/{group}"].dataset["charge"], where)
        if np.isfinite(values).any():
            return group, values
    return groups[-1], np.full_like(like, np.nan)


def _numbers(values: xr.DataArray, where: Mapping[str, int]) -> Array:
    return np.asarray(_chosen(values, where), dtype=np.float64)


def _chosen(values: xr.DataArray, where: Mapping[str, int]) -> NDArray[Any]:
    return np.asarray(values.isel({axis: i for axis, i in where.items() if axis in values.dims}).values)


def _way(charges: Array) -> Array:
    """How far each charge goes from its first value in all that is finite."""
    away = np.abs(charges - charges[:1])
    return np.asarray(np.where(np.isfinite(away), away, 0.0).max(axis=0, initial=0.0))


def _largest(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else float("nan")
