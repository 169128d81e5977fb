"""One group of the tree over all members: its dimensions, variables and attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.core.indexing import LazilyIndexedArray
from zarr.core.dtype import get_data_type_from_json

from nm_ode.results.study.align import Labels, Shared, aligned, time_of
from nm_ode.results.study.catalogue import Catalogue, Member
from nm_ode.results.study.lazy import Part, Stack

_XARRAYS_OWN = ("coordinates", "_FillValue")
HOLES = "whole numbers as floats, for NaN is where a member has none"


@dataclass
class Reader:
    """What all groups share.

    Attributes:
        by_time: put members on the flow times that they share.
        remarks: sentences on what of the members is not in the dataset.
    """

    catalogue: Catalogue
    by_time: bool
    remarks: list[str] = field(default_factory=list)
    _values: dict[tuple[str, ...], npt.NDArray[Any]] = field(default_factory=dict)
    _dtypes: dict[str, np.dtype[Any]] = field(default_factory=dict)

    @cached_property
    def axes(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.catalogue.record.axes)

    @cached_property
    def flat(self) -> dict[int, Member]:
        """Members that are whole, by index along the axes, flat."""
        return {self.catalogue.record.flat(member.place): member for member in self.catalogue.whole}

    @cached_property
    def n_places(self) -> int:
        return int(np.prod(self.catalogue.record.shape, dtype=int))

    def metadata(self, member: Member, array: str) -> Mapping[str, Any]:
        return self.catalogue.metadata[member.arrays[array]]

    def part(self, member: Member, array: str, places: tuple[Any, ...]) -> Part:
        return Part(member.folder, array, member.files, self.metadata(member, array), places)

    def values(self, member: Member, array: str) -> npt.NDArray[Any]:
        """Of a coordinate; the file of one member is read for all that have the same."""
        signature = member.signatures[array]
        if signature not in self._values:
            self._values[signature] = self.part(member, array, ()).read_all()
        return self._values[signature]

    def dtype(self, metadata: Mapping[str, Any]) -> np.dtype[Any]:
        key = json.dumps(metadata["data_type"])
        if key not in self._dtypes:
            kind = get_data_type_from_json(metadata["data_type"], zarr_format=3)
            self._dtypes[key] = np.dtype(kind.to_native_dtype())
        return self._dtypes[key]


def group_names(catalogue: Catalogue) -> list[str]:
    """Of all members, those above before those in them."""
    return list(dict.fromkeys(name for member in catalogue.whole for name in sorted(member.groups)))


class Group:
    """A group of all members that have it.

    Args:
        above: dimension → as the groups above have it.
    """

    def __init__(self, reader: Reader, name: str, above: Mapping[str, Shared]) -> None:
        self._reader, self._name = reader, name
        self._members = {i: member for i, member in reader.flat.items() if name in member.groups}
        self._arrays = list(
            dict.fromkeys(array for member in self._members.values() for array in self._own(member))
        )
        self.dims = {
            **above,
            **{dim: self._shared(dim, labels, above) for dim, labels in self._labels().items()},
        }

    def dataset(self) -> xr.Dataset:
        """Lazy: variables are read when they are used."""
        coords: dict[str, xr.Variable] = {}
        variables: dict[str, xr.Variable] = {}
        named = self._coordinates()
        for array in self._arrays:
            name = array.rpartition("/")[2]
            if self._index(name) is not None:
                continue
            is_coordinate = name in named or name in self.dims
            variable = self._variable(array, is_coordinate)
            target = coords if is_coordinate else variables
            target[self._free(name, array)] = variable
        own = {dim for variable in (*coords.values(), *variables.values()) for dim in variable.dims}
        for shared in self.dims.values():
            name = self._renamed(shared.name)
            if shared.index is not None and name in own:
                coords[name] = xr.Variable((name,), shared.index, self._attrs_of(shared.name))
        attrs = self._attributes({*coords, *variables, *own}, variables)
        return xr.Dataset(variables, coords, attrs)

    def _own(self, member: Member) -> Sequence[str]:
        return member.in_group.get(self._name, ())

    def _labels(self) -> dict[str, dict[int, Labels]]:
        """Dimension → of each member that has it."""
        found: dict[str, dict[int, Labels]] = {}
        cache: dict[tuple[Any, ...], Labels] = {}
        for i, member in self._members.items():
            arrays = {array.rpartition("/")[2]: array for array in self._own(member)}
            sizes: dict[str, int] = {}
            for array in arrays.values():
                metadata = self._reader.metadata(member, array)
                sizes.update(zip(metadata.get("dimension_names") or (), metadata["shape"], strict=False))
            for dim, size in sizes.items():
                time = time_of(dim, arrays)
                key = (
                    dim,
                    size,
                    *(member.signatures[arrays[name]] for name in (dim, time) if name in arrays),
                )
                if key not in cache:
                    cache[key] = Labels(
                        size,
                        self._reader.values(member, arrays[dim]) if dim in arrays else None,
                        self._reader.values(member, arrays[time]) if time in arrays else None,
                    )
                found.setdefault(dim, {})[i] = cache[key]
        return found

    def _shared(self, dim: str, labels: Mapping[int, Labels], above: Mapping[str, Shared]) -> Shared:
        given = above[dim].index if dim in above else None
        names = {array.rpartition("/")[2] for array in self._arrays}
        return aligned(dim, labels, time_of(dim, names), self._reader.by_time, given)

    def _index(self, name: str) -> npt.NDArray[Any] | None:
        """Of a variable that is the coordinate of its dimension."""
        return next((shared.index for shared in self.dims.values() if shared.name == name), None)

    def _coordinates(self) -> set[str]:
        """Names that some member says are coordinates."""
        described = {member.arrays[array] for member in self._members.values() for array in self._own(member)}
        metadata = self._reader.catalogue.metadata
        texts = {metadata[digest].get("attributes", {}).get("coordinates", "") for digest in described}
        texts |= {member.groups[self._name].get("coordinates", "") for member in self._members.values()}
        return {name for text in texts for name in text.split()}

    def _variable(self, array: str, is_coordinate: bool) -> xr.Variable:
        reader = self._reader
        having = {i: member for i, member in self._members.items() if array in member.arrays}
        first = next(iter(having.values()))
        described = reader.metadata(first, array)
        dims = tuple(described.get("dimension_names") or ())
        parts: dict[int, Part] = {}
        whole = True
        for i, member in having.items():
            metadata = reader.metadata(member, array)
            if tuple(metadata.get("dimension_names") or ()) != dims:
                reader.remarks.append(
                    f"{member.place.name}: {array} has other dimensions than in other members"
                )
                continue
            places = tuple(self.dims[dim].places[i] for dim in dims)
            whole &= all(
                size == self.dims[dim].size if place is None else bool((place >= 0).all())
                for dim, place, size in zip(dims, places, metadata["shape"], strict=True)
            )
            parts[i] = reader.part(member, array, places)
        lie_alike = len({tuple(map(id, part.places)) for part in parts.values()}) == 1
        alike = (
            is_coordinate and whole and lie_alike and len({having[i].signatures[array] for i in parts}) == 1
        )
        inner = tuple(self.dims[dim].size for dim in dims)
        names = tuple(self._renamed(self.dims[dim].name) for dim in dims)
        dtype = np.result_type(*{reader.dtype(reader.metadata(having[i], array)) for i in parts})
        attrs = _attrs(described)
        chunks = dict(zip(names, _chunks(described), strict=True))
        if alike:
            stack = Stack(inner, 0, (next(iter(parts.values())),), dtype, _fill(dtype))
            return xr.Variable(names, LazilyIndexedArray(stack), attrs, {"preferred_chunks": chunks})
        if not whole or len(parts) < reader.n_places:
            dtype, attrs = _with_holes(dtype, attrs)
        if how := "; ".join(f"{dim}: {self.dims[dim].how}" for dim in dims if self.dims[dim].how):
            attrs["alignment"] = how
        shape = reader.catalogue.record.shape
        stacked = tuple(parts.get(i) for i in range(reader.n_places))
        stack = Stack(shape + inner, len(shape), stacked, dtype, _fill(dtype))
        encoding = {"preferred_chunks": {**dict.fromkeys(reader.axes, 1), **chunks}}
        return xr.Variable(reader.axes + names, LazilyIndexedArray(stack), attrs, encoding)

    def _attrs_of(self, name: str) -> dict[str, Any]:
        array = f"{self._name}/{name}"
        for member in self._members.values():
            if array in member.arrays:
                return _attrs(self._reader.metadata(member, array))
        return {}

    def _renamed(self, dim: str) -> str:
        """A dimension that is called like an axis of the study is another."""
        return f"{dim}_of_member" if dim in self._reader.axes else dim

    def _free(self, name: str, array: str) -> str:
        """xarray keeps an axis' name, "lr", for its coordinate: the learning rate of each step is "lr_of_step"."""
        if name not in self._reader.axes:
            return name
        member = next(member for member in self._members.values() if array in member.arrays)
        dims = self._reader.metadata(member, array).get("dimension_names") or ("member",)
        return f"{name}_of_{dims[0]}"

    def _attributes(self, taken: set[Any], variables: dict[str, xr.Variable]) -> dict[str, Any]:
        """What all members say alike; what they say each for itself becomes variables."""
        names = dict.fromkeys(name for member in self._members.values() for name in member.groups[self._name])
        kept = {}
        for name in names:
            if name in _XARRAYS_OWN:
                continue
            said = {i: member.groups[self._name].get(name) for i, member in self._members.items()}
            first = next(iter(said.values()))
            if all(value is first or value == first for value in said.values()):
                kept[name] = first
            elif name not in self._reader.axes:
                free = name if name not in taken else f"{name}_attribute"
                variables[free] = per_member(self._reader, said, name)
        return kept


def per_member(reader: Reader, said: Mapping[int, Any], long_name: str, units: str = "") -> xr.Variable:
    """A variable of one number or text for each member; NaN or "" where there is none."""
    values = [said.get(i) for i in range(reader.n_places)]
    shape = reader.catalogue.record.shape
    attrs = {"long_name": long_name, "units": units}
    there = [value for value in values if value is not None]
    if there and all(isinstance(value, int | float) for value in there):
        if len(there) == len(values) and all(isinstance(value, int) for value in there):
            return xr.Variable(reader.axes, np.array(values).reshape(shape), attrs)
        numbers = [np.nan if value is None else float(value) for value in values]
        return xr.Variable(reader.axes, np.array(numbers).reshape(shape), attrs)
    texts = np.empty(len(values), dtype=object)
    texts[:] = [_text(value) for value in values]
    return xr.Variable(reader.axes, texts.reshape(shape), attrs)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "; ".join(value)
    return value if isinstance(value, str) else json.dumps(value)


def _with_holes(dtype: np.dtype[Any], attrs: Mapping[str, Any]) -> tuple[np.dtype[Any], dict[str, Any]]:
    if dtype.kind in "iub":
        return np.dtype(np.float64), {**attrs, "holes": HOLES}
    return dtype, dict(attrs)


def _attrs(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Of an array, without those that xarray writes for itself."""
    found = metadata.get("attributes", {})
    return {name: value for name, value in found.items() if name not in _XARRAYS_OWN}


def _fill(dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "fc":
        return np.nan
    return 0 if dtype.kind in "iub" else np.datetime64("NaT") if dtype.kind == "M" else ""


def _chunks(metadata: Mapping[str, Any]) -> Sequence[int]:
    shape = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    return [max(1, int(size)) for size in shape]
