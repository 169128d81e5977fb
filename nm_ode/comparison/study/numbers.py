"""What a study of many members comes to: the numbers of each member, read off the study's tree in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.arguments import said
from nm_ode.comparison.convergence import USED
from nm_ode.results import ResultError, Variable, annotate, decode, write
from nm_ode.results.codec import attributes

WHOLE, DIVERGED, STOPPED, FAILED, MISSING = "whole", "diverged", "stopped", "failed", "missing"
STATES = (WHOLE, DIVERGED, STOPPED, FAILED, MISSING)
"""Of a member: all of it is there; its run diverged; a flow's solver gave up; it has no results, and why is known; it
has not been run."""

_NUMBERS = "numbers"
DESCRIBED = {
    "member": Variable((), "name of the member", ""),
    "member_title": Variable((), "title of the member", ""),
    "state": Variable((), f"what became of the member: {', '.join(STATES)}", ""),
    "reason": Variable((), "why the member, or a part of it, is missing", ""),
    "parameters": Variable((), "number of parameters"),
    "wall_seconds": Variable((), "time from the member's start to its end", "s"),
    "steps": Variable((), "steps of the run"),
    "end_time": Variable((), "flow time at the last saved step"),
    "in_fit": Variable((), "is the member in the fit of the flow's order"),
    "final_loss": Variable((), "loss over all samples at the last saved step"),
    "last_batch_loss": Variable(
        (), "loss of the last step's batch, where none over all samples was recorded"
    ),
    "final_test_loss": Variable((), "loss over held-out samples, at the end"),
    "final_test_accuracy": Variable((), "share of held-out samples classified rightly, at the end"),
}
_OF_RUN: tuple[tuple[str, Literal["loss", "accuracy"], str, str], ...] = (
    ("final_loss", "loss", "Loss at the end", "loss over all samples"),
    ("last_batch_loss", "loss", "Loss of the last batch", "loss of the last batch"),
    ("final_test_loss", "loss", "Test loss at the end", "loss over held-out samples"),
    ("final_test_accuracy", "accuracy", "Test accuracy at the end", "share classified rightly"),
)
AT_END = (
    "error",
    "relative_error",
    "error_to_average",
    "relative_error_to_average",
    "loss_gap",
    "solver_error",
    "solver_limited",
)
"""Of a flow's comparison, where they are known last."""


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
    kind: Literal["loss", "accuracy", "error", "sharpness", "order"]
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
class _Remarks:
    """What a study's tree says is not in it."""

    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _OfRun:
    """What a run's group says of all runs."""

    status: str = "success"


@dataclass(frozen=True)
class _OfFlow:
    """What a flow's group says of it."""

    title: str = ""
    expected_order: int | None = None


def axes_of(numbers: xr.Dataset) -> tuple[str, ...]:
    """Names of what varies, in the case's order."""
    return tuple(str(name) for name in numbers["state"].dims)


def with_results(numbers: xr.Dataset) -> list[str]:
    """Names of the members that have results, whole or not."""
    there = ~np.isin(numbers["state"].values, (FAILED, MISSING))
    return [str(name) for name in numbers["member"].values[there]]


def study_numbers(tree: xr.DataTree) -> xr.Dataset:
    """The numbers of each member at its end.

    Args:
        tree: as `nm_ode.open_study` gives it.

    Returns:
        Along the study's axes `member` (its name), `state` (one of STATES), `reason`, `parameters`, `wall_seconds`,
        `steps`, `end_time`, `final_loss` (or `last_batch_loss`), `final_test_loss`, `final_test_accuracy`,
        `largest_normalised_sharpness`; along them and `flow` what each flow's comparison has at the last step
        at which it is known (`error`, `relative_error`, `loss_gap`, `solver_error`, `solver_limited`; beside a central
        flow `error_to_average` and `relative_error_to_average`), with `flow_title` and
        `expected_order` along `flow`, and `in_fit` where the study has a reduction to orders. What was not measured is
        NaN, or not there at all.

    Raises:
        ResultError: it is no study's.
    """
    if not isinstance(tree, xr.DataTree):
        raise ResultError(f"the tree of a study is asked for, as open_study gives it; {said(tree)} was given")
    if _NUMBERS in tree.children:
        return tree[_NUMBERS].dataset.copy()
    root = tree.to_dataset(inherit=False)
    if not {"status", "whole"} <= set(root.data_vars) or not root["status"].dims:
        raise ResultError(
            "the tree does not say what became of members along the axes of a study, so it is not of one: open it with "
            "nm_ode.open_study"
        )
    axes = tuple(str(name) for name in root["status"].dims)
    shape = root["status"].shape
    found = xr.Dataset(coords={name: one for name, one in root.coords.items() if set(one.dims) <= set(axes)})
    found = found.assign({"state": (axes, _objects(_states(root, tree), shape))})
    for name, source in (("reason", "failure"), ("member", "member"), ("member_title", "member_title")):
        if source in root:
            found[name] = (axes, _objects(_texts(root[source]), shape))
    for name in ("parameters", "wall_seconds"):
        if name in root and root[name].dims == axes:
            found[name] = root[name].astype(float).compute()
    found = _of_fit(_of_flows(_of_run(found, tree, axes), tree, axes), tree, axes)
    declared = {str(name): Variable((), str(name)) for name in found.coords} | DESCRIBED
    return write(annotate(found.drop_attrs(), declared), about(tree))


def with_numbers(tree: xr.DataTree) -> xr.DataTree:
    """The tree with its numbers as a group, so that whoever asks for them next need not read the members again."""
    numbers = study_numbers(tree)
    if _NUMBERS in tree.children:
        return tree
    return tree.assign({_NUMBERS: xr.DataTree(numbers)})


def quantities(numbers: xr.Dataset) -> list[Quantity]:
    """What there is to be drawn of each member, the loss first."""
    found = [
        Quantity(key, kind, title, label, numbers[key])
        for key, kind, title, label in _OF_RUN
        if key in numbers
    ]
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
    """Over the stability limit, where members have different ones."""
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
        key, title = "sharpness_over_limit", "Largest lr · λ_max over the stability limit"
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


def _states(root: xr.Dataset, tree: xr.DataTree) -> list[str]:
    """Of each member, flat."""
    run = tree["discrete"].dataset if "discrete" in tree.children else xr.Dataset()
    alike = decode(_OfRun, attributes(run)).status
    ends = _texts(run["status"]) if "status" in run else [alike] * root["status"].size
    return [
        _state(bool(whole), status, end)
        for whole, status, end in zip(
            root["whole"].values.reshape(-1), _texts(root["status"]), ends, strict=True
        )
    ]


def _state(whole: bool, status: str, end: str) -> str:
    if not whole:
        return MISSING if status == "missing" else FAILED
    if status == "complete":
        return WHOLE
    return DIVERGED if end == "diverged" else STOPPED


def _of_run(found: xr.Dataset, tree: xr.DataTree, axes: Sequence[str]) -> xr.Dataset:
    if "discrete" not in tree.children:
        return found
    run = tree["discrete"].dataset
    for name, source in (
        ("final_loss", "full_loss"),
        ("end_time", "saved_time"),
        ("final_test_loss", "test_loss"),
        ("final_test_accuracy", "test_accuracy"),
    ):
        if source in run.variables:
            found[name] = _along(_end(run[source], axes), found, axes)
    if "loss" in run.data_vars and _lacks_loss(found):
        found["last_batch_loss"] = _along(_end(run["loss"], axes), found, axes)
    # What is called like an axis has its dimension behind its name.
    lrs = next((run[name] for name in ("lr", "lr_of_step") if name in run and "step" in run[name].dims), None)
    if lrs is not None:
        found["steps"] = _along(lrs.notnull().sum("step").astype(float), found, axes)
    if "curvature" in tree["discrete"].children:
        curvature = tree["discrete/curvature"].dataset
        if "normalised_sharpness" in curvature:
            along = curvature["normalised_sharpness"]
            largest = along.max([dim for dim in along.dims if dim not in axes]).compute()
            found["largest_normalised_sharpness"] = _along(largest, found, axes)
        for name in ("stability_limit", "foreseen_step", "seen_step"):
            if name in curvature and bool(curvature[name].notnull().any()):
                found[name] = _along(curvature[name].compute(), found, axes)
    return found


def _lacks_loss(found: xr.Dataset) -> bool:
    """Has a member that is whole no loss over all samples?"""
    if "final_loss" not in found:
        return True
    return bool(((found["state"] == WHOLE) & found["final_loss"].isnull()).any())


def _end(values: xr.DataArray, axes: Sequence[str]) -> xr.DataArray:
    """The last value along whatever the series lies on: saved steps, or flow times."""
    bare = values.reset_coords(drop=True).compute()
    for dim in [str(dim) for dim in values.dims if dim not in axes]:
        bare = last(bare, dim) if bare.sizes[dim] else bare.sum(dim) * math.nan
    return bare


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
    for key in AT_END:
        if not any(key in one for one in comparisons.values()):
            continue
        columns = [
            _along(_end(one[key], axes), found, axes)[1]
            if key in one
            else np.full(found["state"].shape, math.nan)
            for one in (comparisons[name] for name in names)
        ]
        found[key] = ((*axes, "flow"), np.stack(columns, axis=-1))
    return found


def _of_fit(found: xr.Dataset, tree: xr.DataTree, axes: Sequence[str]) -> xr.Dataset:
    """Which members the study's own reduction has in the fit of each order, where it has made one."""
    if "convergence" not in tree.children or "flow" not in found.dims:
        return found
    left_out = tree["convergence"].dataset["left_out"].reset_coords(drop=True)
    if set(left_out.dims) != {*axes, "flow"} or set(left_out["flow"].values) != set(found["flow"].values):
        return found
    found["in_fit"] = (left_out.sel(flow=found["flow"].values) == USED).transpose(*axes, "flow").variable
    return found


def _flow_about(tree: xr.DataTree, name: str, comparison: xr.Dataset) -> tuple[str, float]:
    """Title and expected order, as whichever of its groups has them; alike in all members, or a variable."""
    groups = [comparison]
    if "flows" in tree.children and name in tree["flows"].children:
        groups.insert(0, tree[f"flows/{name}"].dataset)
    title, order = name, math.nan
    for group in reversed(groups):
        alike = decode(_OfFlow, attributes(group))
        told = [text for text in _texts(group["title"]) if text] if "title" in group else []
        title = alike.title or next(iter(told), title)
        if alike.expected_order is not None:
            order = float(alike.expected_order)
        elif "expected_order" in group:
            order = float(group["expected_order"].max())
    return title, order


def remarks_of(tree: xr.DataTree) -> tuple[str, ...]:
    """Sentences on what of the members is not in the study's tree."""
    return decode(_Remarks, attributes(tree)).remarks


def about(of: xr.DataTree | xr.Dataset) -> About:
    """What a study's tree, or its numbers, say of it."""
    return decode(About, attributes(of))


def _texts(values: xr.DataArray) -> list[str]:
    return ["" if text is None or text != text else str(text) for text in values.values.reshape(-1).tolist()]


def _objects(texts: Sequence[str], shape: tuple[int, ...]) -> NDArray[np.object_]:
    return np.array(texts, dtype=object).reshape(shape)
