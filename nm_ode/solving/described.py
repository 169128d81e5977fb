"""What a flow is, in words that another process writes the same way."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from nm_ode.flows import Flow


def options_of(flow: Flow) -> str:
    """Its optimiser and options, but for what is no number or name: what its field may depend on."""
    values: Any = flow
    declared = fields(values) if is_dataclass(values) else ()
    own = {one.name: getattr(flow, one.name) for one in declared if one.init and one.name != "problem"}
    return ", ".join(f"{name} = {value!r}" for name, value in own.items() if _is_plain(value))


def _is_plain(value: Any) -> bool:
    if is_dataclass(type(value)):
        # What can be written to counts or caches: it is no option.
        written_once: bool = type(value).__dataclass_params__.frozen
        return written_once and all(_is_plain(getattr(value, one.name)) for one in fields(value))
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
