"""The root of a study's store, its `zarr.json`: who the members are, and what is in each file of the reductions.

What the members' files are is said by the members' own roots. Like those, this one carries its own digest and is only
ever replaced as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nm_ode.results.folders import Folder
from nm_ode.results.identity import StoreError
from nm_ode.results.root import ROOT_FILE, NoRootError, is_sealed, sealed
from nm_ode.results.study.record import Axis, Place, StudyRecord
from nm_ode.results.verified import DamageError

STUDY_VERSION = 1
_REMEDY = "run the same case again and it is written anew; the members stay"


@dataclass(frozen=True)
class StudyRoot:
    """What the root says.

    Attributes:
        digests: group of a reduction → file in its folder → SHA-256.
    """

    record: StudyRecord
    digests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def write_study_root(folder: Folder, root: StudyRoot) -> None:
    """Write the root, or replace it.

    Raises:
        OSError: the folder cannot be written, or is full.
    """
    folder.write(
        ROOT_FILE,
        sealed(
            {
                "title": root.record.title,
                "study": json.dumps(plain(root.record)),
                "study_version": STUDY_VERSION,
                "digests": json.dumps(root.digests),
            }
        ),
    )


def read_study_root(folder: Folder) -> StudyRoot:
    """What the root says.

    Raises:
        DamageError: it is not what was written.
        NoRootError: it is not there, or none of a study.
        StoreError: another version of nm_ode wrote it, or it cannot be read.
    """
    try:
        content = folder.read(ROOT_FILE)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NoRootError(f"{folder.name} is not a study of nm_ode: it has no {ROOT_FILE}") from None
    except OSError as error:
        raise StoreError(f"{folder.name} cannot be read ({error.strerror})") from None
    try:
        attributes = json.loads(content)["attributes"]
        digest, version = attributes["digest"], attributes["study_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        if b'"study_version"' in content:
            raise _damage(folder) from None
        raise NoRootError(
            f"{folder.name} is not a study of nm_ode: its {ROOT_FILE} says nothing of members"
        ) from None
    if not isinstance(digest, str) or not is_sealed(content, digest):
        raise _damage(folder)
    if version != STUDY_VERSION:
        raise StoreError(
            f"{folder.name} is a study of version {version}, and this nm_ode reads version {STUDY_VERSION}: open it "
            "with the version of nm_ode that wrote it, or run the case into another folder with --out"
        )
    return StudyRoot(_record(json.loads(attributes["study"])), json.loads(attributes["digests"]))


def _damage(folder: Folder) -> DamageError:
    return DamageError(f"{folder.name} is damaged: {ROOT_FILE} is not what was written; {_REMEDY}")


def plain(record: StudyRecord) -> dict[str, Any]:
    """A record as JSON holds it."""
    return {
        "name": record.name,
        "title": record.title,
        "case": record.case,
        "case_file": record.case_file,
        "case_text": record.case_text,
        "axes": [[axis.name, dict(axis.values)] for axis in record.axes],
        "members": [[place.name, list(place.index), dict(place.values)] for place in record.members],
    }


def _record(plain: Mapping[str, Any]) -> StudyRecord:
    return StudyRecord(
        name=plain["name"],
        title=plain["title"],
        case=plain["case"],
        case_file=plain["case_file"],
        case_text=plain["case_text"],
        axes=tuple(
            Axis(name, {key: tuple(values) for key, values in by_key.items()})
            for name, by_key in plain["axes"]
        ),
        members=tuple(Place(name, tuple(index), values) for name, index, values in plain["members"]),
    )
