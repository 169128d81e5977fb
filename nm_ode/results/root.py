"""The root of a store, its `zarr.json`: of what the results are, and what is in each of their files.

One file says both, and is only ever replaced as a whole. So groups cannot come to be taken for those of another
case, at whatever point a process or the machine stops.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nm_ode.results.codec import encode
from nm_ode.results.files import remove_leftovers, write_atomically
from nm_ode.results.folders import Folder, LocalFolder
from nm_ode.results.identity import Identity, StoreError
from nm_ode.results.records import StudyInfo
from nm_ode.results.verified import DamageError, VerifiedStore, sha256

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

    @property
    def files(self) -> dict[str, str]:
        """Path in the store → SHA-256."""
        return {
            f"{group}/{name}": digest
            for group, names in self.digests.items()
            for name, digest in names.items()
        }


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
    }
    write_atomically(folder / ROOT_FILE, sealed(attributes))


def sealed(attributes: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> bytes:
    """A group's metadata with these attributes and the file's own digest among them.

    Args:
        metadata: of all groups and arrays in the group, by path: Zarr's consolidated metadata.
    """
    text = json.dumps({**_GROUP, "attributes": {**attributes, "digest": _BLANK}}, indent=1)
    if metadata is not None:
        within = {"kind": "inline", "must_understand": False, "metadata": metadata}
        compact = json.dumps(within, separators=(",", ":"))
        text = f'{text[:-2]},\n "consolidated_metadata": {compact}\n}}'
    content = text.encode()
    # The file's own digest is that of the file with a blank in its place.
    return content.replace(_said(_BLANK), _said(sha256(content)))


def is_sealed(content: bytes, digest: str) -> bool:
    """Is this, to the bit, what `sealed` gave? With the digest that is in it."""
    return digest == sha256(content.replace(_said(digest), _said(_BLANK)))


def _said(digest: str) -> bytes:
    return f'"digest": "{digest}"'.encode()


def add_metadata(folder: Path) -> None:
    """Let the root of a finished store hold the metadata of all its groups and arrays, so that one file tells of them.

    Nobody else may be writing it now.

    Raises:
        StoreError: as `read_root`.
        OSError: the folder cannot be read or written.
    """
    remove_leftovers(folder / ROOT_FILE)
    root, _ = read_root(folder)
    metadata = metadata_of(LocalFolder(folder), root.files)
    attributes = json.loads((folder / ROOT_FILE).read_bytes())["attributes"]
    del attributes["digest"]
    write_atomically(folder / ROOT_FILE, sealed(attributes, dict(sorted(metadata.items()))))


def metadata_of(folder: Folder, files: Mapping[str, str]) -> dict[str, Any]:
    """Path → metadata of each group and array of a store, from its files.

    Args:
        files: as `Root.files`.

    Raises:
        DamageError, StoreError: as `VerifiedStore.read`.
    """
    store, end = VerifiedStore(folder, files, REMEDY), f"/{ROOT_FILE}"
    return {file.removesuffix(end): json.loads(store.read(file)) for file in files if file.endswith(end)}


def read_root(folder: Path | Folder) -> tuple[Root, str]:
    """What the root says, and the SHA-256 of its file.

    Raises:
        DamageError, NoRootError, StoreError: as `read_root_file`.
    """
    found = read_root_file(folder)
    return found.root, found.digest


@dataclass(frozen=True)
class RootFile:
    """The root and its file.

    Attributes:
        digest: SHA-256 of the file.
        metadata: path → metadata of each group and array, as Zarr writes it; None if the root does not hold it.
    """

    root: Root
    digest: str
    metadata: Mapping[str, Any] | None


def read_root_file(folder: Path | Folder) -> RootFile:
    """The root, with all that its file has.

    Raises:
        DamageError: it is not what was written.
        NoRootError: nm_ode did not write it.
        StoreError: another version of nm_ode wrote it, or it cannot be read.
    """
    if isinstance(folder, Path):
        folder = LocalFolder(folder)
    try:
        content = folder.read(ROOT_FILE)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        if not isinstance(folder, LocalFolder):  # an upload's root comes last
            raise NoRootError(f"{folder.name} is not a store of nm_ode: it has no zarr.json") from None
        raise _no_root(folder, "it has no zarr.json", "zarr.json is missing") from None
    except OSError as error:
        raise StoreError(f"{folder.name} cannot be read ({error.strerror})") from None
    try:
        document = json.loads(content)
        attributes = document["attributes"]
        digest = attributes.get("digest")
        version = attributes.get("schema_version")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _no_root(folder, "its zarr.json is none of a Zarr group", "zarr.json is damaged") from None
    if not isinstance(digest, str):
        if isinstance(version, int) and version != SCHEMA_VERSION:
            raise other_version(folder.name, version)
        raise _no_root(folder, "its zarr.json is not of nm_ode", "zarr.json is damaged")
    if not is_sealed(content, digest):
        raise DamageError(f"{folder.name} is damaged: zarr.json is not what was written; {REMEDY}")
    if version != SCHEMA_VERSION:
        raise other_version(folder.name, version)
    identity = Identity(json.loads(attributes.pop("case")), json.loads(attributes.pop("code")))
    digests = json.loads(attributes.pop("digests"))
    del attributes["digest"], attributes["schema_version"]
    metadata = document.get("consolidated_metadata")
    return RootFile(
        Root(identity, digests, attributes), sha256(content), metadata["metadata"] if metadata else None
    )


def other_version(path: Path | str, version: Any) -> StoreError:
    """The error of a store that another version of nm_ode wrote."""
    return StoreError(
        f"{path} has schema version {version}, and this nm_ode reads version {SCHEMA_VERSION}: run the case again "
        "into another folder with --out (the case's text is in the store, attribute 'case_text'), or open it with "
        "the version of nm_ode that wrote it"
    )


def _no_root(folder: Folder, foreign: str, damaged: str) -> StoreError:
    """Only what nm_ode made may be called damaged, and be removed."""
    for group in ("discrete", "symmetries"):
        with contextlib.suppress(OSError):
            folder.require_file(f"{group}/{ROOT_FILE}")
            return DamageError(f"{folder.name} is damaged: {damaged}; {REMEDY}")
    return NoRootError(f"{folder.name} is not a store of nm_ode: {foreign}")
