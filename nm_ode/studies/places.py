"""Dotted keys of a case, "optimizer.lr" or "flows[0].order", and values put at them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nm_ode.studies.errors import CaseError
from nm_ode.studies.sweep.axes import is_span
from nm_ode.studies.tables import combination

_KEY = re.compile(r"[A-Za-z_][\w-]*(\[\d+\])*(\.[A-Za-z_][\w-]*(\[\d+\])*)*")
_INDEX = re.compile(r"\[(\d+)\]")


def leaves(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key → what stands there: `[sweep.optimizer] lr = […]` is `"optimizer.lr" = […]`."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value and not is_span(value):
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def require_key(key: str) -> None:
    """Raises an error of kind "combination" for what cannot be a key of a case."""
    if not _KEY.fullmatch(key):
        raise combination(f'{key!r} is no key of a case; write it as "optimizer.lr" or "flows[0].order"')


def require_apart(keys: Sequence[str], does: str) -> None:
    """Raises an error of kind "combination" for a key that is a part of another one.

    Args:
        does: what is said of the keys: "varies".
    """
    for key in keys:
        for other in keys:
            if is_part_of(other, key):
                raise combination(f"{other} is a part of {key}, which {does} too: leave one of them out")


def is_part_of(key: str, whole: str) -> bool:
    """Does the key lie within what stands at the other one?"""
    return key.startswith((f"{whole}.", f"{whole}["))


def has(raw: Any, key: str) -> bool:
    """Does anything stand at the key?"""
    for step in _steps(key):
        if not _is_there(raw, step):
            return False
        raw = raw[step]
    return True


def put(raw: Mapping[str, Any], key: str, value: Any, path: Path, table: str) -> dict[str, Any]:
    """The case with another value at a key; what is not on the way to it is shared.

    Args:
        path: of the case file.
        table: which says so, for messages: "sweep" or "smoke".

    Raises:
        CaseError: there is no such place.
    """
    made = dict(raw)
    here: Any = made
    *above, last = _steps(key)
    for i, step in enumerate(above):
        _require_place(here, step, key, path, table)
        below = here[step] if _is_there(here, step) else {}
        after = above[i + 1] if i + 1 < len(above) else last
        if isinstance(below, str) and isinstance(after, str):  # an entry, by its name alone
            below = {"kind" if above[0] == "flows" else "name": below}
        here[step] = (
            list(below) if isinstance(below, list) else dict(below) if isinstance(below, Mapping) else below
        )
        here = here[step]
    _require_place(here, last, key, path, table)
    here[last] = value
    return made


def _steps(key: str) -> list[str | int]:
    """ "flows[0].order" → "flows", 0, "order"."""
    found: list[str | int] = []
    for part in key.split("."):
        found.append(part.partition("[")[0])
        found += [int(index) for index in _INDEX.findall(part)]
    return found


def _is_there(table: Any, step: str | int) -> bool:
    if isinstance(step, int):
        return isinstance(table, list) and step < len(table)
    return isinstance(table, Mapping) and step in table


def _require_place(here: Any, step: str | int, key: str, path: Path, table: str) -> None:
    if isinstance(step, int) and not _is_there(here, step):
        another = (
            "write it, or let the whole list vary" if table == "sweep" else "write it, or the whole list"
        )
        raise CaseError(f"{path}: {table}: {key}: the case has no entry [{step}] there: {another}")
    if isinstance(step, str) and not isinstance(here, dict):
        raise CaseError(f"{path}: {table}: {key}: there is no table there that it could be a key of")
