"""What a study of many members comes to: the numbers of each member, read off the study's tree in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.results import ResultError, Variable, annotate, decode, write
from nm_ode.results.codec import attributes

WHOLE, DIVERGED, STOPPED, FAILED, MISSING = "whole", "diverged", "stopped", "failed", "missing"
STATES = (WHOLE, DIVERGED, STOPPED, FAILED, MISSING)
"""Of a member: all of it is there; its run diverged; a flow's solver gave up; it has no results, and why is known; it
has not been run."""

_STATE_OF = {
    **dict.fromkeys(("complete", "success", "whole", ""), WHOLE),
    "diverged": DIVERGED,
    "stopped": STOPPED,
    "failed": FAILED,
    "missing": MISSING,
}
_NUMBERS = "numbers"
_SAID = {
    "member": Variable((), "name of the member", ""),
    "member_title": Variable((), "title of the member", ""),
    "state": Variable((), f"what became of the member: {', '.join(STATES)}", ""),
    "reason": Variable((), "why the member, or a part of it, is missing", ""),
    "parameters": Variable((), "number of parameters"),
    "wall_seconds": Variable((), "time from the member's start to its end", "s"),
    "steps": Variable((), "steps of the run"),
    "end_time": Variable((), "flow time at the last saved step"),
    "final_loss": Variable((), "loss over all samples at the last saved step"),
}
_AT_END = ("error", "relative_error", "loss_gap", "solver_error", "solver_limited")
_MEMBER = "member"


@dataclass(frozen=True)
class Quantity:
    """A number of each member.

    Attributes:
        key: as a column is called: "final_loss", "relative_error.gradient".
        kind: which says how it is drawn and written.
        title: for a reader.
        label: on an axis, with its unit.
        values: along the study's axes; NaN where it is not known.
        flow: place of its flow among the study's, for its colour; None of a number that is no flow's.
        limit: above it things are otherwise, or what theory gives; None if there is none.
    """

    key: str
    kind: Literal["loss", "error", "sharpness", "order"]
    title: str
    label: str
    values: xr.DataArray
    flow: int | None = None
    limit: float | None = None

    @property
    def logarithmic(self) -> bool:
        """Do its ratios say more than its differences?"""
        return self.kind in ("loss", "error")


@dataclass(frozen=True)
class About:
    """A study.

    Attributes:
        name, title: of the case.
        case_file, case_text: the file's name and its text.
    """

    name: str = ""
    title: str = ""
    case_file: str = ""
    case_text: str = ""


@dataclass(frozen=True)
class _OfFlow:
    """What a flow's group says of it."""

    title: str = ""
    expected_order: int | None = None


def axes_of(numbers: xr.Dataset) -> tuple[str, ...]:
    """Names of what varies, in the case's order."""
    return tuple(str(name) for name in numbers["state"].dims)


def study_numbers(tree: xr.DataTree) -> xr.Dataset:
    """The numbers of each member at its end.

    Args:
        tree: as `nm_ode.open_study` gives it.

    Returns:
        Along the study's axes `member` (its name), `state` (one of STATES), `reason`, `parameters`, `wall_seconds`,
        `steps`, `end_time`, `final_loss`, `largest_normalised_sharpness`; along them and `flow` what each flow's
        comparison has at the last step (`error`, `relative_error`, `loss_gap`, `solver_error`, `solver_limited`), with
        `flow_title` and `expected_order` along `flow`. What was not measured is NaN, or not there at all.

    Raises:
        ResultError: it is no study's.
    """
    attributes(tree)
    if _NUMBERS in tree.children:
        return tree[_NUMBERS].dataset.copy()
    root = tree.to_dataset(inherit=False)
    if "status" not in root or not root["status"].dims:
        raise ResultError(
            "the tree has no 'status' along the axes of a study, so it is not of one: open it with nm_ode.open_study"
        )
    axes = tuple(str(name) for name in root["status"].dims)
    found = xr.Dataset(coords={name: one for name, one in root.coords.items() if set(one.dims) <= set(axes)})
    states = [[_STATE_OF.get(text, FAILED) for text in _texts(root["status"])]]
    found = found.assign({"state": (axes, _objects(states[0], root["status"].shape))})
    for name, source in (("reason", "failure"), (_MEMBER, _MEMBER), ("member_title", "title")):
        if source in root:
            found[name] = (axes, _objects(_texts(root[source]), root["status"].shape))
    for name in ("parameters", "wall_seconds"):
        if name in root and root[name].dims == axes:
            found[name] = root[name].astype(float).compute()
    found = _of_flows(_of_run(found, tree, axes), tree, axes)
    declared = {str(name): Variable((), str(name)) for name in found.coords} | _SAID
    return write(annotate(found.drop_attrs(), declared), about(tree))


def with_numbers(tree: xr.DataTree) -> xr.DataTree:
    """The tree with its numbers as a group, so that whoever asks for them next need not read the members again."""
    if _NUMBERS in tree.children:
        return tree
    return tree.assign({_NUMBERS: xr.DataTree(study_numbers(tree))})


def quantities(numbers: xr.Dataset) -> list[Quantity]:
    """What there is to be drawn of each member, the loss first."""
    found = []
    if "final_loss" in numbers:
        found.append(
            Quantity("final_loss", "loss", "Loss at the end", "loss over all samples", numbers["final_loss"])
        )
    for i, (name, title) in enumerate(flows_of(numbers)):
        for key, what, unit in (
            ("relative_error", "error over the motion", "dimensionless"),
            ("error", "error", "units of θ"),
        ):
            if key in numbers and bool(np.isfinite(numbers[key].sel(flow=name)).any()):
                values = numbers[key].sel(flow=name, drop=True)
                start = title[:1].upper() + title[1:]
                found.append(
                    Quantity(f"{key}.{name}", "error", f"{start}: {what}", f"{what}  ({unit})", values, i)
                )
                break
    if "largest_normalised_sharpness" in numbers:
        found.append(_sharpness(numbers))
    return [one for one in found if bool(np.isfinite(one.values).any())]


def _sharpness(numbers: xr.Dataset) -> Quantity:
    """Over the limit of stability, where members have different ones."""
    values = numbers["largest_normalised_sharpness"]
    key, title, label = (
        "largest_normalised_sharpness",
        "Largest lr · λ_max along the run",
        "largest lr · λ_max",
    )
    limits = np.unique(numbers["stability_limit"].values) if "stability_limit" in numbers else np.empty(0)
    known = limits[np.isfinite(limits)]
    limit = float(known[0]) if known.size else None
    if known.size > 1:
        values, limit = values / numbers["stability_limit"], 1.0
        key, title = "sharpness_over_limit", "Largest lr · λ_max over the limit of stability"
        label = "lr · λ_max over its limit"
    return Quantity(key, "sharpness", title, f"{label}  (dimensionless)", values, limit=limit)


def flows_of(numbers: xr.Dataset) -> list[tuple[str, str]]:
    """Name and title of each flow."""
    if "flow" not in numbers.dims:
        return []
    return list(zip(numbers["flow"].values.tolist(), numbers["flow_title"].values.tolist(), strict=True))


def last(values: xr.DataArray, dim: str) -> xr.DataArray:
    """The last value along `dim` that is no padding."""
    there = values.get_axis_num(dim)
    known = np.isfinite(values.values)
    at = known.shape[there] - 1 - np.flip(known, there).argmax(there)
    taken = np.take_along_axis(values.values.astype(float), np.expand_dims(at, there), there).squeeze(there)
    return values.isel({dim: -1}, drop=True).copy(data=np.where(known.any(there), taken, math.nan))


def _of_run(found: xr.Dataset, tree: xr.DataTree, axes: Sequence[str]) -> xr.Dataset:
    if "discrete" not in tree.children:
        return found
    run = tree["discrete"].dataset
    for name, source in (("final_loss", "full_loss"), ("end_time", "saved_time")):
        if source in run.variables and run.sizes.get("saved_step"):
            found[name] = _along(
                last(run[source].reset_coords(drop=True).compute(), "saved_step"), found, axes
            )
    if "lr" in run.variables and "step" in run["lr"].dims:
        found["steps"] = _along(run["lr"].notnull().sum("step").astype(float), found, axes)
    elif "loss" in run and "step" in run["loss"].dims:
        found["steps"] = _along(run["loss"].notnull().sum("step").astype(float), found, axes)
    if "curvature" in tree["discrete"].children:
        curvature = tree["discrete/curvature"].dataset
        if "normalised_sharpness" in curvature and curvature.sizes.get("curvature_step"):
            largest = curvature["normalised_sharpness"].max("curvature_step").compute()
            found["largest_normalised_sharpness"] = _along(largest, found, axes)
        if "stability_limit" in curvature:
            found["stability_limit"] = _along(curvature["stability_limit"].compute(), found, axes)
    return found


def _along(
    values: xr.DataArray, found: xr.Dataset, axes: Sequence[str]
) -> tuple[Sequence[str], NDArray[np.float64]]:
    """Values along all axes, what is the same everywhere repeated; NaN where the member has no results."""
    bare = xr.DataArray(values.values.astype(float), dims=values.dims)
    full = bare.expand_dims({name: found.sizes[name] for name in axes if name not in bare.dims}).transpose(
        *axes
    )
    there = ~np.isin(found["state"].values, (FAILED, MISSING))
    return axes, np.where(there, full.values, math.nan)


def _of_flows(found: xr.Dataset, tree: xr.DataTree, axes: Sequence[str]) -> xr.Dataset:
    comparisons = {
        name: node.dataset
        for name, node in (tree["comparison"].children.items() if "comparison" in tree.children else ())
        if name not in (tree["laws"].children if "laws" in tree.children else ())
    }
    about = {name: _flow_about(tree, name, one) for name, one in comparisons.items()}
    names = sorted(about, key=lambda name: (about[name][1], name))
    if not names:
        return found
    found = found.assign_coords(
        flow=np.array(names, dtype=object),
        flow_title=("flow", np.array([about[name][0] for name in names], dtype=object)),
        expected_order=("flow", np.array([about[name][1] for name in names])),
    )
    for key in _AT_END:
        if not any(key in one for one in comparisons.values()):
            continue
        columns = [
            _along(last(one[key].compute(), "saved_step"), found, axes)[1]
            if key in one and one.sizes.get("saved_step")
            else np.full(found["state"].shape, math.nan)
            for one in (comparisons[name] for name in names)
        ]
        found[key] = ((*axes, "flow"), np.stack(columns, axis=-1))
    return found


def _flow_about(tree: xr.DataTree, name: str, comparison: xr.Dataset) -> tuple[str, float]:
    """Title and expected order, as whichever of its groups has them."""
    groups = [comparison]
    if "flows" in tree.children and name in tree["flows"].children:
        groups.append(tree[f"flows/{name}"].dataset)
    found = [decode(_OfFlow, attributes(group)) for group in groups]
    titles = [one.title for one in found if one.title]
    orders = [one.expected_order for one in found if one.expected_order is not None]
    return (titles or [name])[-1], float(orders[-1]) if orders else math.nan


def about(of: xr.DataTree | xr.Dataset) -> About:
    """What a study's tree, or its numbers, say of it."""
    return decode(About, attributes(of))


def _texts(values: xr.DataArray) -> list[str]:
    return ["" if text is None or text != text else str(text) for text in values.values.reshape(-1).tolist()]


def _objects(texts: Sequence[str], shape: tuple[int, ...]) -> NDArray[np.object_]:
    return np.array(texts, dtype=object).reshape(shape)
