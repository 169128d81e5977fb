"""Typed records to the attributes of a dataset and back: the one place that writes or reads them."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import xarray as xr

from nm_ode.arguments import said
from nm_ode.errors import NmOdeError
from nm_ode.parameters import Layout, Slot
from nm_ode.results.beyond import BeyondLaws

R = TypeVar("R")


class ResultError(NmOdeError, ValueError):
    """A dataset that nm_ode did not write, or not as what it is taken for.

    Example:
        >>> import xarray as xr
        >>> import nm_ode
        >>> nm_ode.run_info(xr.Dataset({"loss": ("step", [1.0, 0.5])}))
        Traceback (most recent call last):
            ...
        nm_ode.results.codec.ResultError: the dataset lacks the attribute 'optimizer', ...
    """


def encode(record: Any) -> dict[str, Any]:
    """A frozen dataclass as attributes that Zarr and NetCDF hold; fields that are None are left out."""
    return {
        field.name: _plain(value)
        for field in fields(record)
        if (value := getattr(record, field.name)) is not None
    }


def attributes(given: Any) -> Mapping[Any, Any]:
    """Of a dataset or a tree.

    Raises:
        ResultError: it is neither.
    """
    if not isinstance(given, xr.Dataset | xr.DataTree):
        raise ResultError(f"a dataset of nm_ode is asked for; {said(given)} was given")
    return given.attrs


def decode(kind: type[R], attrs: Mapping[Any, Any]) -> R:
    """What `encode` wrote.

    Raises:
        ResultError: an attribute is missing or of another type.
    """
    hints = _hints(kind)  # type: ignore[arg-type]
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in attrs:
            try:
                values[field.name] = _typed(hints[field.name], attrs[field.name])
            except (TypeError, ValueError, KeyError) as error:
                raise ResultError(
                    f"attribute {field.name!r} is {attrs[field.name]!r}, which is no {hints[field.name]} ({error})"
                ) from None
        elif _optional(hints[field.name]):
            values[field.name] = None
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ResultError(
                f"the dataset lacks the attribute {field.name!r}, so it is not {_what(kind)}: was it made by nm_ode?"
            )
    return kind(**values)


def write(dataset: xr.Dataset, *records: Any) -> xr.Dataset:
    """The dataset with the records among its attributes."""
    for record in records:
        dataset = dataset.assign_attrs(encode(record))
    return dataset


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _plain(value: Any) -> Any:
    if isinstance(value, Layout):
        return json.dumps([[slot.name, list(slot.shape), slot.start] for slot in value.slots])
    if isinstance(value, BeyondLaws):
        return value.text
    if isinstance(value, Mapping):
        return json.dumps(value, default=dict)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value


def _typed(hint: Any, value: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        # A union here is one type or None, or a word or a number.
        for part in (part for part in get_args(hint) if part is not type(None)):
            try:
                return _typed(part, value)
            except (TypeError, ValueError):
                continue
        raise ValueError(f"none of {get_args(hint)}")
    if hint is Any:
        return value
    if get_origin(hint) is typing.Literal:
        if value not in get_args(hint):
            raise ValueError(f"one of {get_args(hint)} is expected")
        return value
    if hint is BeyondLaws:
        return BeyondLaws.of_text(value)
    if hint is Layout:
        return Layout(tuple(Slot(name, tuple(shape), start) for name, shape, start in json.loads(value)))
    if get_origin(hint) is tuple:
        parts = [value] if isinstance(value, str) else list(value)
        return tuple(_typed(get_args(hint)[0], part) for part in parts)
    if get_origin(hint) in (Mapping, dict):
        return json.loads(value)
    if hint in (int, float, bool) and isinstance(value, str):
        raise ValueError("a number is expected")
    if hint is str and not isinstance(value, str):
        raise ValueError("a text is expected")
    if hint is int and int(value) != value:
        raise ValueError("a whole number is expected")
    return hint(value)


def _optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def _what(kind: type[Any]) -> str:
    """The first clause of its docstring: "a run of nm_ode.train"."""
    clause = re.split(r"[:.](?:\s|$)", kind.__doc__ or kind.__name__)[0].strip()
    return clause[:1].lower() + clause[1:]
