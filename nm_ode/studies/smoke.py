"""The table `[smoke]` of a case file: the same case for some steps, small enough for any machine."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

from nm_ode.data.images.generated import GENERATED
from nm_ode.errors import NmOdeError
from nm_ode.studies.entries import CodeTable
from nm_ode.studies.errors import CaseError
from nm_ode.studies.places import is_part_of, leaves, put, require_apart, require_key
from nm_ode.studies.schema import Case
from nm_ode.studies.sentences import in_brief
from nm_ode.studies.sweep.axes import SweepMistakeError, canonical
from nm_ode.studies.tables import combination

TABLE = "smoke"
ENDING = "_smoke"  # of its name
_DATA = "images"  # folder of what is generated, in that of the results


def smoked(raw: Mapping[str, Any], table: Any, path: Path, *, out: Path | None = None) -> dict[str, Any]:
    """A case with the values of its table `[smoke]`, as it would be read from a file of its own.

    Its name ends with "_smoke", and its device is "cpu" unless the table says another. Data that lie in a folder, of a
    layout that can be generated, are generated in the folder for the results, unless the table says where they are.

    Args:
        raw: the case without the table.
        table: what stands there.
        path: of the case file, for messages.
        out: folder for the results; None where no data are to be generated.

    Raises:
        CaseError: what is no key of the case, or would change nothing; all of them.
    """
    if not isinstance(table, Mapping):
        raise CaseError(f"{path}: {TABLE}: {in_brief(table)} was given; it must be a table")
    values = dict(leaves(table))
    _require_values(values, path)
    made, told = {**raw, "device": "cpu"}, []
    for key, value in values.items():
        try:
            made = (
                _swept(made, key, value) if key.startswith("sweep.") else put(made, key, value, path, TABLE)
            )
        except CaseError as error:
            told.append(str(error))
    if told:
        raise CaseError("\n".join(told))
    if isinstance(name := made.get("name"), str):
        made["name"] = f"{name}{ENDING}"
        title = made.get("title")
        made["title"] = f"{title if isinstance(title, str) and title else name} (smoke run)"
    if out is not None and "data.folder" not in values and isinstance(made.get("name"), str):
        data = made.get("data")
        kind = data.get("name") if isinstance(data, Mapping) else data
        if isinstance(kind, str) and kind in GENERATED:
            made = put(made, "data.folder", str(_generated_folder(made["name"], out)), path, TABLE)
    return made


def require_in_effect(table: Mapping[str, Any], varied: Mapping[str, Any], path: Path) -> None:
    """Raises CaseError for a key of the table that a sweep gives the members itself.

    Args:
        varied: a member's values.
    """
    told = []
    for key in dict(leaves(table)):
        for other in varied:
            if key == other or is_part_of(key, other) or is_part_of(other, key):
                told.append(
                    f"{path}: {TABLE}: {key} is the sweep's to give, which has {other}: change what the sweep says of "
                    f'it, with "sweep.{other}", say'
                )
    if told:
        raise CaseError("\n".join(told))


def _require_values(values: Mapping[str, Any], path: Path) -> None:
    told = []
    for key, value in values.items():
        try:
            require_key(key)
            if key in ("name", "sweep", TABLE) or is_part_of(key, "name") or is_part_of(key, TABLE):
                raise combination(_REFUSED.get(key, f"{key!r} is no key of a case that could be changed"))
            canonical(value)
        except PydanticCustomError as error:
            told.append(f"{path}: {TABLE}: {error.message()}")
        except SweepMistakeError as error:
            told.append(f"{path}: {TABLE}: {key}: {in_brief(value)} was given; {error}")
    try:
        require_apart(list(values), "is changed")
    except PydanticCustomError as error:
        told.append(f"{path}: {TABLE}: {error.message()}")
    if told:
        raise CaseError("\n".join(told))


_REFUSED = {
    "name": f"'name' is not changed: it is the case's, with {ENDING!r} at its end",
    "sweep": "'sweep' is not changed as a whole: write its keys, \"sweep.optimizer.lr\" = [0.1], say",
}


def _swept(raw: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The case with other values of a key of its sweep, however that key is written there."""
    sweep = raw.get("sweep", {})
    if not isinstance(sweep, Mapping):
        return dict(raw)  # a mistake, which is told of the case
    return {**raw, "sweep": {**dict(leaves(sweep)), key.removeprefix("sweep."): value}}


def _generated_folder(name: str, out: Path) -> Path:
    """Where data of the smoke run of this name are generated."""
    return (out / name / _DATA).absolute()


def make_data(case: Case, out: Path) -> None:
    """Generate the data of a smoke run, if they are to lie in the folder for its results and are not there.

    Args:
        out: as of `smoked`.

    Raises:
        CaseError: the folder cannot be written.
    """
    table, folder = case.data, _generated_folder(case.name, out)
    if isinstance(table, CodeTable) or table.name not in GENERATED:
        return
    if table.options.get("folder") != folder or folder.exists():
        return
    aside = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        GENERATED[table.name](aside)
        aside.rename(folder)
    except (NmOdeError, OSError) as error:
        if folder.exists():  # another command was first, with the same images
            return
        raise CaseError(f"{folder}: data of a smoke run cannot be generated there: {error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
