"""What pydantic refuses in a case, as a sentence: file, key, value and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nm_ode.registry import did_you_mean


def sentences_of(path: Path, raw: Any, errors: Iterable[Any]) -> list[str]:
    """A sentence for each mistake, each once.

    Args:
        path: of the case file.
        raw: what was read from it.
        errors: of pydantic's ValidationError.
    """
    return list(dict.fromkeys(_sentence(path, raw, item) for item in errors))


def _sentence(path: Path, raw: Any, error: Any) -> str:
    """file: key: what was given; what is allowed."""
    kind, message, context = error["type"], str(error["msg"]), error.get("ctx", {})
    key, given = _place(raw, error["loc"], missing=kind in ("missing", "no_name"))
    where = f"{path}: {key}" if key else f"{path}"
    if kind == "missing":
        return f"{where}: is missing, and has no default"
    if kind == "no_name":
        return f"{where}: is missing; it {message}"
    if kind in ("unknown_key", "combination"):
        return f"{where}: {message}"
    was = f"{where}: {in_brief(given)} was given"
    if kind == "unknown_name":
        return f"{was}{message}"
    if kind == "literal_error" and isinstance(given, str):
        allowed = [name.strip("' ") for name in context["expected"].replace(" or ", ", ").split(",")]
        reason = (
            "; float16 and bfloat16 are too coarse for a flow" if given in ("float16", "bfloat16") else ""
        )
        return f"{was}{did_you_mean(given, allowed)}{reason}"
    return f"{was}; it must {_wanted(kind, message, context, error['loc'])}"


_KINDS = {
    "finite_number": "be a finite number",
    "bool_type": "be true or false",
    "string_type": "be a text",
    "list_type": "be a list",
    "tuple_type": "be a list",
    "dict_type": "be a table",
    "model_type": "be a table",
    "model_attributes_type": "be a table",
    "path_type": "be a path",
    "is_instance_of": "be a path",
}
_NAMED = ("model", "data", "optimizer", "schedule", "flows", "observe")


def _wanted(kind: str, message: str, context: Mapping[str, Any], loc: tuple[int | str, ...]) -> str:
    """ "be a whole number": what is allowed of a value that pydantic refused."""
    if kind == "not_allowed":
        return f"be {message}"
    if kind == "string_pattern_mismatch":
        code = loc[-1] == "python"
        return "be " + (
            "'file.py:function', a file relative to the case's"
            if code
            else "a file name of letters, digits, '_', '-' and '.'"
        )
    if kind in ("too_short", "too_long", "string_too_long"):
        least = kind == "too_short"
        length = context["min_length" if least else "max_length"]
        return (
            f"have at {'least' if least else 'most'} {length} {'letters' if 'string' in kind else 'entries'}"
        )
    if kind in ("model_type", "model_attributes_type") and any(part in _NAMED for part in loc):
        return "be a table, or the name of an entry"
    plain = message.removeprefix("Input ").removeprefix("Value error, ").removeprefix("should ")
    return _KINDS.get(kind, plain.replace("tuple", "list"))


def in_brief(given: Any) -> str:
    """A value of a case for a sentence: as Python writes it, but on one line, and not at any length."""
    if isinstance(given, Path):
        given = str(given)
    try:
        text = repr(given)
    except ValueError:  # Python writes out no more than some thousand digits
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 2]} …"


_SHOWN = 120  # letters of a value in a sentence


def _place(raw: Any, loc: tuple[int | str, ...], *, missing: bool) -> tuple[str, Any]:
    """The key as written in the file and its value; pydantic's own names of union members are left out."""
    key, value = "", raw
    for i, part in enumerate(loc):
        if isinstance(value, Mapping) and part in value:
            key, value = f"{key}.{part}" if key else str(part), value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            key, value = f"{key}[{part}]", value[part]
        elif missing and i == len(loc) - 1:
            key, value = f"{key}.{part}" if key else str(part), None
    return key, value
