"""From a case file to a case; each mistake is answered with file, key, value and what is allowed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nm_ode.registry import did_you_mean
from nm_ode.studies.errors import CaseError
from nm_ode.studies.schema import Case


def load_case(path: Path, *, engine: str | None = None) -> Case:
    """Read and validate a case file; `engine` takes the place of the file's `solver.engine`.

    Raises:
        CaseError: no such file, not TOML, or a mistake in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CaseError(f"no case file {path}; `nm-ode cases` lists those that there are") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(f"{path} cannot be read: {error}") from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CaseError(f"{path} is not valid TOML: {error}") from None
    if engine is not None and isinstance(raw.get("solver", {}), Mapping):
        raw["solver"] = {**raw.get("solver", {}), "engine": engine}
    try:
        return Case.model_validate(raw, context={"folder": path.parent})
    except ValidationError as error:
        raise CaseError("\n".join(_sentence(path, raw, item) for item in error.errors())) from None


def _sentence(path: Path, raw: Any, error: Any) -> str:
    """file: key: what was given; what is allowed."""
    kind, message = error["type"], str(error["msg"])
    key, given = _place(raw, error["loc"], missing=kind in ("missing", "no_name"))
    where = f"{path}: {key}" if key else f"{path}"
    if kind == "missing":
        return f"{where}: is missing, and has no default"
    if kind == "no_name":
        return f"{where}: is missing; it {message}"
    if kind in ("unknown_key", "combination"):
        return f"{where}: {message}"
    if kind == "unknown_name":
        return f"{where}: {given!r} was given{message}"
    if kind == "literal_error" and isinstance(given, str):
        allowed = [name.strip("' ") for name in error["ctx"]["expected"].replace(" or ", ", ").split(",")]
        reason = (
            "; float16 and bfloat16 are too coarse for a flow" if given in ("float16", "bfloat16") else ""
        )
        return f"{where}: {given!r} was given{did_you_mean(given, allowed)}{reason}"
    if kind == "string_pattern_mismatch":
        what = (
            "'file.py:function', a file relative to the case's"
            if error["loc"][-1] == "python"
            else "a file name of letters, digits, '_', '-' and '.'"
        )
        return f"{where}: {given!r} was given; it must be {what}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where}: {given!r} was given; it must be a table"
    message = message.removeprefix("Input ").removeprefix("should ").replace("tuple", "list")
    return f"{where}: {given!r} was given; it must {'be ' if kind == 'not_allowed' else ''}{message}"


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
