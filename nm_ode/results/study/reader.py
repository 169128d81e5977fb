"""A study as one tree: groups as a member's, with the study's axes in front of every variable, read when used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.required import as_path
from nm_ode.results.codec import attributes, decode, encode
from nm_ode.results.failed_reading import readable
from nm_ode.results.folders import Folder
from nm_ode.results.identity import StoreError
from nm_ode.results.remote import folder_at
from nm_ode.results.root import NoRootError
from nm_ode.results.study.align import Shared
from nm_ode.results.study.catalogue import read_catalogue
from nm_ode.results.study.failures import read_failures
from nm_ode.results.study.groups import Group, Reader, group_names, per_member
from nm_ode.results.study.record import Axis, StudyRecord, StudyTreeInfo
from nm_ode.results.study.root import StudyRoot, read_study_root
from nm_ode.results.verified import VerifiedStore

STUDY, FAILED = "study.zarr", "failed"


def open_study(path: Path | str, align: Literal["time"] | None = None) -> xr.DataTree:
    """The tree of a study of many members: the groups of a member's tree, with the study's axes in front.

    One file a member is read now, its root, and one of each coordinate that differs; variables when they are used.
    Every file is verified when it is read. A member that is not whole is NaN everywhere (`whole` in the root says
    which are, `status` and `failure` why). Whole numbers that have such holes are floats.

    Members that differ lie on a shared dimension by label (`layer`, `saved_step`), or, where it has none, by position;
    the shorter ones end with NaN. Flow times that differ are no dimension: `time` is then a coordinate along the axes
    and `sample`. Each variable's attribute `alignment` says what was done. What a group says of itself is an attribute
    where all members say the same, and else a variable. A variable that is called like an axis has its dimension
    behind its name: the learning rate of each step is `lr_of_step` if `lr` is an axis.

    Args:
        path: of the study or its `study.zarr`, or the URL.
        align: "time" puts runs and flows on the flow times that all members share, as far as each got.

    Returns:
        The groups `/discrete`, `/flows/<name>` … of all members, and reductions such as `/convergence`.

    Raises:
        StoreError: it is no study, or its root is damaged, or a coordinate of a member.
        ArgumentError: an `align` that does not exist.

    Example:
        After `nm-ode run sweep_lr_momentum`:

        >>> import nm_ode
        >>> tree = nm_ode.open_study("results/sweep_lr_momentum")
        >>> list(tree.children), tree["whole"].dims
        (['comparison', 'discrete', 'flows'], ('lr', 'momentum'))
        >>> tree["comparison/modified_2_iterated_map"].relative_error.dims
        ('lr', 'momentum', 'saved_step')
    """
    if align not in (None, "time"):
        raise ArgumentError(f'align must be "time" or None; {said(align)} was given')
    study, beside, root = _found(path)
    reader = Reader(read_catalogue(study, root.record), align == "time")
    with readable(study.name):
        coords = _axes_coordinates(root.record)
        groups: dict[str, Group] = {}
        tree: dict[str, xr.Dataset] = {}
        for name in group_names(reader.catalogue):
            groups[name] = Group(reader, name, _above(name, groups))
            tree[name] = groups[name].dataset()
        for name, digests in root.digests.items():
            store = VerifiedStore(study.below(name), digests, "run the case again")
            tree[name] = _reduction(store, reader.axes, coords)
        tree["/"] = _root_dataset(reader, coords, beside)
        return xr.DataTree.from_dict(tree, name=root.record.name)


def study_tree_info(tree: xr.DataTree) -> StudyTreeInfo:
    """Of what `open_study` gives.

    Raises:
        ResultError: the tree is none of a study of many members.
    """
    return decode(StudyTreeInfo, attributes(tree))


def _found(path: Path | str) -> tuple[Folder, Folder, StudyRoot]:
    """The study's store, the folder that it is in, and its root."""
    if not (isinstance(path, str) and "://" in path):
        path = as_path(path, "path", error=StoreError)
    folder = folder_at(path)
    try:
        return folder, folder_at(_parent(path)), read_study_root(folder)
    except NoRootError as error:
        try:
            return folder.below(STUDY), folder, read_study_root(folder.below(STUDY))
        except NoRootError:
            raise error from None


def _parent(path: Path | str) -> Path | str:
    return path.absolute().parent if isinstance(path, Path) else path.rstrip("/").rpartition("/")[0]


def _above(name: str, groups: dict[str, Group]) -> dict[str, Shared]:
    parent = name.rpartition("/")[0]
    return groups[parent].dims if parent in groups else {}


def _root_dataset(reader: Reader, coords: Mapping[str, xr.Variable], beside: Folder) -> xr.Dataset:
    record = reader.catalogue.record
    failures = _failures(beside)
    names, status, failure = {}, {}, {}
    for place, member in zip(record.members, reader.catalogue.members, strict=True):
        i = record.flat(place)
        names[i] = place.name
        if member is not None:
            status[i] = member.info["status"]
            failure[i] = "; ".join(np.atleast_1d(member.info.get("failures", [])).tolist())
        elif place.name in reader.catalogue.trouble:
            status[i], failure[i] = "damaged", reader.catalogue.trouble[place.name]
        elif place.name in failures:
            status[i], failure[i] = failures[place.name].kind, failures[place.name].sentence
        else:
            status[i], failure[i] = "missing", ""
    info = {i: member.info for i, member in reader.flat.items()}
    whole = np.zeros(reader.n_places, dtype=bool)
    whole[list(reader.flat)] = True
    variables = {
        "whole": xr.Variable(
            reader.axes,
            whole.reshape(record.shape),
            {"long_name": "are the member's results there", "units": ""},
        ),
        "status": per_member(reader, status, "how the member ended, or why it is not there"),
        "failure": per_member(reader, failure, "what did not go well"),
        "member": per_member(reader, names, "name of the member"),
        "member_title": per_member(
            reader, {i: found["title"] for i, found in info.items()}, "title of the member"
        ),
        "parameters": per_member(
            reader, {i: found["parameters"] for i, found in info.items()}, "number of parameters", "1"
        ),
        "wall_seconds": per_member(
            reader, {i: _wall(found) for i, found in info.items()}, "time that it took", "s"
        ),
    }
    info_of_all = StudyTreeInfo(
        name=record.name,
        title=record.title,
        case=record.case,
        case_file=record.case_file,
        case_text=record.case_text,
        axes=reader.axes,
        members=len(record.members),
        whole_members=int(whole.sum()),
        remarks=tuple(dict.fromkeys(reader.remarks)),
    )
    free = {name: found for name, found in coords.items() if name not in variables}
    return xr.Dataset(variables, free, encode(info_of_all))


def _axes_coordinates(record: StudyRecord) -> dict[str, xr.Variable]:
    """The axes' values; those of keys that vary with the first; and what a constraint makes of them."""
    coords = {}
    axes = tuple(axis.name for axis in record.axes)
    for axis in record.axes:
        keys = list(axis.values)
        coords[axis.name] = _labels(axis, keys[0], axis.name)
        for key in keys[1:]:
            coords[key] = _labels(axis, key, axis.name)
    known = {key for axis in record.axes for key in axis.values}
    computed = dict.fromkeys(key for place in record.members for key in place.values if key not in known)
    for key in computed:
        values = np.full(record.shape, np.nan)
        for place in record.members:
            found = place.values.get(key)
            if isinstance(found, int | float):
                values[place.index] = found
        dims = list(axes)
        for axis_name in axes:  # it depends on few of them
            number = dims.index(axis_name)
            first = values.take([0], axis=number)
            if np.array_equal(np.broadcast_to(first, values.shape), values, equal_nan=True):
                values = values.take(0, axis=number)
                dims.remove(axis_name)
        coords[key] = xr.Variable(tuple(dims), values, {"long_name": key, "units": ""})
    return coords


def _labels(axis: Axis, key: str, dim: str) -> xr.Variable:
    values = list(axis.values[key])
    if all(isinstance(value, bool) for value in values) or not all(
        isinstance(value, int | float) for value in values
    ):
        texts = np.empty(len(values), dtype=object)
        texts[:] = [value if isinstance(value, str) else json.dumps(value) for value in values]
        return xr.Variable((dim,), texts, {"long_name": key, "units": ""})
    return xr.Variable((dim,), np.array(values), {"long_name": key, "units": ""})


def _failures(beside: Folder) -> dict[str, Any]:
    try:
        return dict(read_failures(beside.below(FAILED)))
    except OSError as error:
        raise StoreError(f"{beside.place(FAILED)} cannot be read ({error.strerror or error})") from None


def _wall(info: Any) -> float | None:
    try:
        return (
            datetime.fromisoformat(info["ended"]) - datetime.fromisoformat(info["started"])
        ).total_seconds()
    except ValueError:
        return None


def _reduction(store: VerifiedStore, axes: Sequence[str], coords: Mapping[str, xr.Variable]) -> xr.Dataset:
    """A group beside the members; along the axes as the members are."""
    dataset = xr.load_dataset(store, engine="zarr", zarr_format=3, consolidated=False)  # type: ignore[arg-type]
    for axis in axes:
        if axis not in dataset.dims:
            continue
        wanted = coords[axis].values
        there = dataset.indexes.get(axis)
        if there is not None and set(there) == set(wanted.tolist()):
            dataset = dataset.sel({axis: wanted}).drop_vars(axis)  # it is the root's
        elif there is not None or dataset.sizes[axis] != len(wanted):
            dataset = dataset.rename({axis: f"{axis}_of_reduction"})
    return dataset
