"""From a case file to a case; each mistake is answered with file, key, value and what is allowed."""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nm_ode.registry import did_you_mean
from nm_ode.required import as_path
from nm_ode.studies.errors import CaseError
from nm_ode.studies.schema import Case


def load_case(path: Path, *, engine: str | None = None) -> Case:
    """Read and validate a case file; `engine` takes the place of the file's `solver.engine`.

    Raises:
        CaseError: no such file, not TOML, or a mistake in it.
    """
    path = as_path(path, "path")
    text = case_text(path)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CaseError(f"{path} is not valid TOML: {error}") from None
    except (ValueError, OverflowError) as error:  # Python reads no more than some thousand digits
        raise CaseError(f"{path}: a value in it cannot be read ({str(error).partition(';')[0]})") from None
    except RecursionError:
        raise CaseError(f"{path} is not valid TOML: tables and lists are nested too deep") from None
    if engine is not None:
        solver = raw.get("solver", {})
        if isinstance(solver, Mapping):
            raw["solver"] = {**solver, "engine": engine}
    try:
        return Case.model_validate(raw, context={"folder": path.parent})
    except ValidationError as error:
        sentences = dict.fromkeys(_sentence(path, raw, item) for item in error.errors())
        raise CaseError("\n".join(sentences)) from None


def case_text(path: Path) -> str:
    """The text of a case file, as any editor saves it: in UTF-8, with or without a byte order mark.

    Raises:
        CaseError: no such file, no file, or another encoding; with the place of what is not UTF-8.
    """
    try:
        if path.is_dir():
            raise CaseError(f"{path} is a folder; a case is a .toml file")
        if path.exists() and not path.is_file():
            raise CaseError(f"{path} is no ordinary file; a case is a .toml file")
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise CaseError(f"no case file {path}; `nm-ode cases` lists those that there are") from None
    except (OSError, ValueError) as error:
        raise CaseError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if len(content) > _LARGEST:
        raise CaseError(f"{path} is larger than {_LARGEST // 10**6} MB, which no case is")
    if content.startswith(_OTHER_MARKS) or content[1:2] == b"\0" or content[:1] == b"\0":
        raise CaseError(f"{path} is in UTF-16 or UTF-32: save as UTF-8")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        raise CaseError(
            f"{path} is not in UTF-8 (line {line}, column {column}, byte 0x{content[error.start]:02x}): save as UTF-8"
        ) from None


_LARGEST = 10**7  # bytes of a case file
_OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


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
