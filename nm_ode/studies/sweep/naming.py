"""What members of a sweep are called: by what varies, "lr=0.1,seed=3"."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from nm_ode.studies.sweep.axes import canonical, is_number

LONGEST = 120  # letters of a member's name, which is a folder's
_LONGEST_PART = 40  # of a key's or of a value's
_DIGITS = 8  # of a hash
_DIMENSIONS = frozenset({"step", "time", "layer", "flow", "param", "symmetry"})
"""Of a member's datasets: no axis is called like one."""

_WORD = re.compile(r"[a-z]([a-z0-9_.-]*[a-z0-9_])?")
_NO_WORDS = ("true", "false", "inf", "nan", "none")


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Key → its last parts, as many as tell it from the other keys: "optimizer.lr" → "lr".

    They are names on any system, and no two are the same, small and capital letters not told apart.
    """
    keys = list(dict.fromkeys(keys))
    endings = {key: _endings(key) for key in keys}
    taken = Counter(ending.lower() for found in endings.values() for ending in found)
    whole = Counter(found[-1].lower() for found in endings.values())
    names = {}
    for key, found in endings.items():
        alone = (name for name in found if taken[name.lower()] == 1 and name not in _DIMENSIONS)
        name = next(alone, found[-1] if whole[found[-1].lower()] == 1 else None)
        if name is None or len(name) > _LONGEST_PART:
            name = f"{found[-1][: _LONGEST_PART - _DIGITS - 1]}_{_hash(key)}"
        names[key] = name
    return names


def _endings(key: str) -> list[str]:
    parts = [re.sub(r"\[(\d+)\]", r"\1", part) for part in key.split(".")]
    return ["_".join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]


def resolve(name: str, keys: Iterable[str]) -> list[str]:
    """The keys that a name may mean: "steps" is `training.steps`, not `optimizer.schedule.steps`, which is deeper."""
    keys = list(dict.fromkeys(keys))
    if name in keys:
        return [name]
    found = [key for key in keys if key.endswith(f".{name}")]
    least = min((key.count(".") for key in found), default=0)
    return [key for key in found if key.count(".") == least]


def member_name(values: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The name of a member.

    Args:
        values: key → value, of all that varies.
        names: from `short_names`.
    """
    name = ",".join(f"{names[key]}={value_name(value)}" for key, value in values.items())
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 2 * _DIGITS - 1].rstrip('=,.-')}-{_hash(name, 2 * _DIGITS)}"


def value_name(value: Any) -> str:
    """A value in a name: numbers and short words as they are, lists of numbers as 64x32x10, all else by its hash.

    Two values that a case tells apart have two names, and the same value always has the same one.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if is_number(value):
        return _number(value)
    if isinstance(value, str):
        return value if _is_word(value) else f"{_letters(value)}-{_hash(canonical(value))}"
    if isinstance(value, list | tuple) and value and all(map(is_number, value)):
        joined = "x".join(map(_number, value)) + ("x" if len(value) == 1 else "")
        if len(joined) <= _LONGEST_PART:
            return joined
    what = (
        next((value[key] for key in ("name", "kind") if key in value), "")
        if isinstance(value, Mapping)
        else ""
    )
    return f"{_letters(str(what)) or 'v'}-{_hash(canonical(value))}"


def _number(value: float) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        value = int(value)
    try:
        text = repr(value).replace("e+", "e")
    except ValueError:  # Python writes out no more than some thousand digits
        return f"n-{_hash(hex(int(value)))}"
    return text if len(text) <= _LONGEST_PART else f"n-{_hash(text)}"


def _is_word(text: str) -> bool:
    """No text that is the name of another value too: it has no capital letters, and is no number and no hash."""
    if len(text) > _LONGEST_PART or text in _NO_WORDS or re.search(rf"-[0-9a-f]{{{_DIGITS}}}$", text):
        return False
    return _WORD.fullmatch(text) is not None


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "", text.lower())[:16]


def _hash(text: str, digits: int = _DIGITS) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
