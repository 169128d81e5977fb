"""A case as a case file has it: what Python's own library reads and does not write."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def as_toml(raw: Mapping[str, Any], above: str = "") -> str:
    """The text of a file that is read as this; what is None is left out."""
    given = {key: value for key, value in raw.items() if value is not None}
    tables = {key: value for key, value in given.items() if isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in given.items() if key not in tables]
    text = "\n".join(lines) + ("\n" if lines else "")
    for key, table in tables.items():
        name = f"{above}{_key(key)}"
        text += f"\n[{name}]\n{as_toml(table, f'{name}.')}"
    return text.lstrip("\n")


def file_name(path: Path) -> str:
    """The name of a case file as a store can have it, in UTF-8 whatever the system allows."""
    return path.name.encode("utf-8", "backslashreplace").decode("utf-8")


def with_code_found(raw: Any, folder: Path) -> Any:
    """The case as it may stand in any folder: the user's own code and files, as they are found from here.

    Args:
        folder: of the case file.
    """
    if isinstance(raw, Mapping):
        return {key: _found(key, value, folder) for key, value in raw.items()}
    return [with_code_found(value, folder) for value in raw] if isinstance(raw, list) else raw


def _found(key: str, value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        name, mark, function = value.rpartition(":") if key == "python" else (value, "", "")
        if key == "python" or (key in ("path", "file", "folder") and (folder / name).exists()):
            return f"{(folder / name).resolve().as_posix()}{mark}{function}"
    return with_code_found(value, folder)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        inner = (f"{_key(key)} = {_value(one)}" for key, one in value.items() if one is not None)
        return "{ " + ", ".join(inner) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return _text(str(value))


def _text(value: str) -> str:
    # JSON's escapes are TOML's, but for letters beyond the first plane, which stand as they are.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
