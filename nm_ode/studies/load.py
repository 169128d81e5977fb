"""From a case file to a case, or to the members of its sweep."""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nm_ode.data import DATA
from nm_ode.required import as_path
from nm_ode.studies.entries import CodeTable
from nm_ode.studies.errors import CaseError
from nm_ode.studies.options import options_of
from nm_ode.studies.schema import Case
from nm_ode.studies.sentences import sentences_of
from nm_ode.studies.smoke import TABLE, require_in_effect, smoked
from nm_ode.studies.sweep.expand import Sweep, expand
from nm_ode.studies.written import as_toml, file_name


@dataclass(frozen=True)
class Loaded:
    """What a case file says, or what a caller makes of it.

    Attributes:
        case: of a case with a sweep as `Sweep.case`.
        sweep: with all members, if there is one.
        text: of the case file; of a smoke run, of a file that says the same.
        has_smoke: is there a table `[smoke]`?
    """

    case: Case
    sweep: Sweep | None
    text: str
    has_smoke: bool

    @property
    def in_folder(self) -> bool:
        """Do the data lie in a folder?"""
        return not isinstance(self.case.data, CodeTable) and "folder" in self.case.data.options


def load(
    path: Path,
    *,
    engine: str | None = None,
    data: Path | None = None,
    smoke: bool = False,
    out: Path | None = None,
) -> Loaded:
    """Read and validate a case file, its sweep and its table `[smoke]`.

    Args:
        path: of the file.
        engine: takes the place of the file's `solver.engine`.
        data: takes the place of the file's `data.folder`.
        smoke: the case as its table `[smoke]` has it?
        out: folder for the results, in which data of a smoke run are generated.

    Raises:
        CaseError: no such file, not TOML, mistakes in it, or no table `[smoke]` where it is asked for.

    Example:
        >>> from nm_ode.studies import find_case, load
        >>> loaded = load(find_case("vgg16_tiny_imagenet"))
        >>> loaded.has_smoke, loaded.in_folder
        (True, True)
    """
    path = as_path(path, "path")
    raw, text = read_case(path)
    table = raw.pop(TABLE, None)
    plain = _asked(raw, engine, data, path)
    if smoke and table is None:
        raise CaseError(
            f"{path}: {TABLE}: there is no such table; write [{TABLE}] with what is smaller there, "
            '"training.steps" = 20, say'
        )
    if table is None:
        return Loaded(*_validated(plain, path, text), text, False)
    mistakes, own = [], None
    try:
        own = _validated(plain, path, text)
    except CaseError as error:
        mistakes += str(error).split("\n")
    small = None
    try:
        changed = smoked(raw, table, path, out=out if smoke and data is None else None)
        small_raw = _asked(changed, engine, data, path)
        small_text = _of_smoke(small_raw, path)
        small = _validated(small_raw, path, small_text)
        if small[1] is not None:
            require_in_effect(table, small[1].members[0].values, path)
    except CaseError as error:
        others = [sentence for sentence in str(error).split("\n") if sentence not in mistakes]
        mistakes += [_of_table(path, sentence) for sentence in others]
    if mistakes or own is None or small is None:
        raise CaseError("\n".join(mistakes))
    return Loaded(*small, small_text, True) if smoke else Loaded(*own, text, True)


def load_case(
    path: Path, *, engine: str | None = None, data: Path | None = None, smoke: bool = False
) -> Case:
    """The case of a file, as `load` reads it.

    Of a case with a sweep all members are validated; `load_sweep` gives them.

    Args:
        path, engine, data, smoke: as of `load`.

    Raises:
        CaseError: as `load`.

    Example:
        >>> from nm_ode.studies import find_case, load_case
        >>> case = load_case(find_case("digits_mlp"))
        >>> case.name, case.model.name, case.training.steps
        ('digits_mlp', 'mlp', 400)
    """
    return load(path, engine=engine, data=data, smoke=smoke).case


def load_sweep(
    path: Path, *, engine: str | None = None, data: Path | None = None, smoke: bool = False
) -> Sweep | None:
    """The sweep of a case file with all its members; None of a case that has none.

    Args:
        path, engine, data, smoke: as of `load`.

    Raises:
        CaseError: as `load`.

    Example:
        >>> from nm_ode.studies import find_case, load_sweep
        >>> sweep = load_sweep(find_case("sweep_lr_momentum"))
        >>> len(sweep.members), sweep.members[0].name
        (48, 'lr=2,momentum=0')
    """
    return load(path, engine=engine, data=data, smoke=smoke).sweep


def read_case(path: Path) -> tuple[dict[str, Any], str]:
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
    return raw, text


def _validated(raw: Mapping[str, Any], path: Path, text: str) -> tuple[Case, Sweep | None]:
    if "sweep" in raw:
        sweep = expand(raw, path, text)
        return sweep.case, sweep
    try:
        return Case.model_validate(raw, context={"folder": path.parent}), None
    except ValidationError as error:
        raise CaseError("\n".join(sentences_of(path, raw, error.errors()))) from None


def _asked(raw: Mapping[str, Any], engine: str | None, data: Path | None, path: Path) -> dict[str, Any]:
    """The case with what a caller asks for in place of what the file says."""
    made = dict(raw)
    if engine is not None:
        solver = raw.get("solver", {})
        if isinstance(solver, Mapping):
            made["solver"] = {**solver, "engine": engine}
    if data is not None:
        made["data"] = _in_folder(raw.get("data"), data, path)
    return made


def _of_smoke(raw: Mapping[str, Any], path: Path) -> str:
    """The text of a file that says what a smoke run is of."""
    return f"# {file_name(path)} as its table [{TABLE}] has it.\n\n{as_toml(raw)}"


def _of_table(path: Path, sentence: str) -> str:
    """A sentence on a mistake that is there in a smoke run alone."""
    rest = sentence.removeprefix(f"{path}: ")
    return sentence if rest.startswith(f"{TABLE}: ") else f"{path}: {TABLE}: {rest}"


def _in_folder(data: Any, folder: Path, path: Path) -> Any:
    """The table `data` with another folder.

    Raises:
        CaseError: the data lie in none.
    """
    table = {"name": data} if isinstance(data, str) else data
    name = table.get("name") if isinstance(table, Mapping) else None
    if isinstance(name, str) and name in DATA and "folder" not in options_of(DATA[name]):
        others = ", ".join(repr(one) for one in DATA if "folder" in options_of(DATA[one]))
        raise CaseError(
            f"{path}: data: {name!r} lies in no folder, and {str(folder)!r} was given as its: leave --data out "
            f"(it is for {others})"
        )
    return {**table, "folder": str(folder.absolute())} if isinstance(table, Mapping) else data


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
