"""A study is begun, or gone on with: is what is there its own, and what of it is no longer part of it?"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from nm_ode.results.folders import Folder, LocalFolder
from nm_ode.results.identity import StoreError, first_difference
from nm_ode.results.root import ROOT_FILE, NoRootError
from nm_ode.results.store import unfinished_identity
from nm_ode.results.study.claims import Busy, clear, locked
from nm_ode.results.study.record import StudyRecord
from nm_ode.results.study.root import StudyRoot, plain, read_study_root, write_study_root
from nm_ode.results.verified import DamageError

RUN = "run.zarr"
"""How a member's store is called while it is made."""
_NAMED = 3


def begun(study: Folder, failed: Folder, unfinished: Path, record: StudyRecord) -> list[str]:
    """Write the study's root, or replace it; see `StudyStore.begin`.

    Raises:
        StoreError: what is there is another study's, or not nm_ode's.
        OSError: no room, or no access.
    """
    sentences: list[str] = []
    found = _found(study, sentences)
    there = study.names()
    if found is not None and (there_is_more(there) or _has_working(unfinished)):
        _require_same_study(study, found.record, record)
    same = found is not None and _text(found.record) == _text(record)
    if not same:
        write_study_root(study, StudyRoot(record))
        for group in found.digests if found is not None else ():
            study.remove(group)
    _tidy(study, failed, unfinished, there)
    members = {place.name for place in record.members}
    sentences += _no_longer(study, [name for name in there if "=" in name and name not in members])
    return sentences


def there_is_more(names: Iterable[str]) -> bool:
    """Is anything there beside the root?"""
    return any(name != ROOT_FILE for name in names)


def _found(study: Folder, sentences: list[str]) -> StudyRoot | None:
    try:
        return read_study_root(study)
    except DamageError as error:
        sentences.append(f"{error}, which was done")
        return None
    except NoRootError:
        names = study.names()
        for name in names:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                study.require_file(f"{name}/{ROOT_FILE}")
                continue
            raise
        return None


def _require_same_study(study: Folder, there: StudyRecord, here: StudyRecord) -> None:
    if there.name != here.name:
        raise StoreError(
            f"{study.name} holds the study {there.name!r}, not {here.name!r}: choose another folder with --out"
        )
    varied = _varied(there) | _varied(here) | {"sweep"}
    difference = first_difference(
        _as_stored(_without(there.case, varied)), _as_stored(_without(here.case, varied))
    )
    if difference is not None:
        raise StoreError(
            f"{study.name} holds the members of another case (it differs in {difference}): choose another folder with "
            "--out, give the case another name, or remove it"
        )


def _varied(record: StudyRecord) -> set[str]:
    """The keys that members have values of their own for."""
    keys = {key for axis in record.axes for key in axis.values}
    return keys | {key for place in record.members for key in place.values}


def _without(case: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The case without these dotted keys; of an entry of a list, "flows[0].order", without the list."""
    kept = deepcopy(dict(case))
    for key in keys:
        *above, last = key.split("[")[0].split(".")
        table: Any = kept
        for name in above:
            table = table.get(name) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table.pop(last, None)
    return kept


def _as_stored(case: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(case))


def _text(record: StudyRecord) -> str:
    return json.dumps(plain(record))


def _has_working(unfinished: Path) -> bool:
    """Was anything computed? Until then, a mistake in the case may be corrected."""
    return any(
        (folder / RUN).exists() or unfinished_identity(folder / RUN) is not None
        for folder in unfinished.glob("[!.]*/")
    )


def _tidy(study: Folder, failed: Folder, unfinished: Path, there: Iterable[str]) -> None:
    """What was left by a process that was killed just when a member had become whole."""
    there = set(there)
    for leftover in unfinished.glob(".writing-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if isinstance(study, LocalFolder):
        study.remove_leftovers(ROOT_FILE)
    for member in failed.names():
        if member in there and is_there(study, member):
            failed.remove(member)
    for folder in unfinished.glob("[!.]*/"):
        if folder.name in there and is_there(study, folder.name):
            with contextlib.suppress(Busy), locked(folder, folder.name):
                clear(folder)


def is_there(study: Folder, member: str) -> bool:
    """Is the member's root there, which comes last?

    Raises:
        OSError: that cannot be known.
    """
    try:
        study.require_file(f"{member}/{ROOT_FILE}")
    except FileNotFoundError:
        return False
    return True


def _no_longer(study: Folder, members: list[str]) -> list[str]:
    if not members:
        return []
    named = ", ".join(members[:_NAMED]) + (", …" if len(members) > _NAMED else "")
    if len(members) == 1:
        what, stay = "member is", "it stays, and is"
    else:
        what, stay = "members are", "they stay, and are"
    return [
        f"{study.name}: {len(members)} {what} no longer part of the study ({named}); {stay} not in its dataset"
    ]
