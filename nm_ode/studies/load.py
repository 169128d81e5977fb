"""From a case file to a case, or to the members of its sweep."""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nm_ode.required import as_path
from nm_ode.studies.errors import CaseError
from nm_ode.studies.schema import Case
from nm_ode.studies.sentences import sentences_of
from nm_ode.studies.sweep.expand import Sweep, expand


def load_case(path: Path, *, engine: str | None = None) -> Case:
    """Read and validate a case file; `engine` takes the place of the file's `solver.engine`.

    Of a case with a sweep all members are validated; `load_sweep` gives them.

    Raises:
        CaseError: no such file, not TOML, or a mistake in it.
    """
    path = as_path(path, "path")
    raw, text = read_case(path, engine=engine)
    if "sweep" in raw:
        return expand(raw, path, text).case
    try:
        return Case.model_validate(raw, context={"folder": path.parent})
    except ValidationError as error:
        raise CaseError("\n".join(sentences_of(path, raw, error.errors()))) from None


def load_sweep(path: Path, *, engine: str | None = None) -> Sweep | None:
    """The sweep of a case file with all its members; None of a case that has none.

    Raises:
        CaseError: as `load_case`.
    """
    path = as_path(path, "path")
    raw, text = read_case(path, engine=engine)
    return expand(raw, path, text) if "sweep" in raw else None


def read_case(path: Path, *, engine: str | None = None) -> tuple[dict[str, Any], str]:
    """What a case file says, not validated yet, and its text.

    Raises:
        CaseError: no such file, or not TOML.
    """
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
    return raw, text


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
