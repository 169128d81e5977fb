"""The root of a store, its `zarr.json`: of what the results are, and what is in each of their files.

One file says both, and is only ever replaced as a whole. So groups cannot come to be taken for those of another
case, at whatever point a process or the machine stops.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nm_ode.results.codec import encode
from nm_ode.results.files import write_atomically
from nm_ode.results.identity import Identity, StoreError
from nm_ode.results.records import StudyInfo
from nm_ode.results.verified import DamageError, sha256

SCHEMA_VERSION = 3
ROOT_FILE = "zarr.json"
REMEDY = "remove it and run the case again"
_GROUP = {"zarr_format": 3, "node_type": "group"}
_BLANK = "0" * 64
EMPTY_GROUP = json.dumps({**_GROUP, "attributes": {}}).encode()
"""The metadata of a group that has groups alone."""


class NoRootError(StoreError):
    """There is no root, or none that nm_ode wrote."""


@dataclass(frozen=True)
class Root:
    """What the root says.

    Attributes:
        identity: of what the results are.
        digests: group → file in its folder → SHA-256; groups that are not complete are not among them.
        attributes: of the study; none while it is not finished.
    """

    identity: Identity
    digests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        return "status" in self.attributes


def write_root(folder: Path, root: Root, info: StudyInfo | None = None) -> None:
    """Write the root, or replace it.

    Raises:
        OSError: the folder cannot be written, or is full.
    """
    attributes = {
        "case": json.dumps(root.identity.case),
        "code": json.dumps(root.identity.code),
        **(encode(info) if info is not None else {}),
        "schema_version": SCHEMA_VERSION,
        "digests": json.dumps(root.digests),
        "digest": _BLANK,
    }
    content = json.dumps({**_GROUP, "attributes": attributes}, indent=1).encode()
    # The file's own digest is that of the file with a blank in its place.
    blank, digest = f'"digest": "{_BLANK}"', f'"digest": "{sha256(content)}"'
    write_atomically(folder / ROOT_FILE, content.replace(blank.encode(), digest.encode()))


def read_root(folder: Path) -> tuple[Root, str]:
    """What the root says, and the SHA-256 of its file.

    Raises:
        DamageError: it is not what was written.
        NoRootError: nm_ode did not write it.
        StoreError: another version of nm_ode wrote it, or it cannot be read.
    """
    try:
        content = (folder / ROOT_FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise _no_root(folder, "it has no zarr.json", "zarr.json is missing") from None
    except OSError as error:
        raise StoreError(f"{folder} cannot be read ({error.strerror})") from None
    try:
        attributes = json.loads(content)["attributes"]
        digest = attributes.get("digest")
        version = attributes.get("schema_version")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _no_root(folder, "its zarr.json is none of a Zarr group", "zarr.json is damaged") from None
    if not isinstance(digest, str):
        if isinstance(version, int) and version != SCHEMA_VERSION:
            raise other_version(folder, version)
        raise _no_root(folder, "its zarr.json is not of nm_ode", "zarr.json is damaged")
    blank = content.replace(f'"digest": "{digest}"'.encode(), f'"digest": "{_BLANK}"'.encode())
    if digest != sha256(blank):
        raise DamageError(f"{folder} is damaged: zarr.json is not what was written; {REMEDY}")
    if version != SCHEMA_VERSION:
        raise other_version(folder, version)
    identity = Identity(json.loads(attributes.pop("case")), json.loads(attributes.pop("code")))
    digests = json.loads(attributes.pop("digests"))
    del attributes["digest"], attributes["schema_version"]
    return Root(identity, digests, attributes), sha256(content)


def other_version(path: Path, version: Any) -> StoreError:
    """The error of a store that another version of nm_ode wrote."""
    return StoreError(
        f"{path} has schema version {version}, and this nm_ode reads version {SCHEMA_VERSION}: run the case again "
        "into another folder with --out (the case's text is in the store, attribute 'case_text'), or open it with "
        "the version of nm_ode that wrote it"
    )


def _no_root(folder: Path, foreign: str, damaged: str) -> StoreError:
    """Only what nm_ode made may be called damaged, and be removed."""
    if any((folder / group / ROOT_FILE).is_file() for group in ("discrete", "symmetries")):
        return DamageError(f"{folder} is damaged: {damaged}; {REMEDY}")
    return NoRootError(f"{folder} is not a store of nm_ode: {foreign}")
