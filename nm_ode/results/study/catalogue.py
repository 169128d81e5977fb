"""What the members of a study have, from their roots alone: one file a member is read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from nm_ode.results.folders import Folder, each
from nm_ode.results.identity import StoreError
from nm_ode.results.root import ROOT_FILE, NoRootError, RootFile, metadata_of, read_root_file
from nm_ode.results.study.record import Place, StudyRecord


@dataclass(frozen=True, slots=True)
class Member:
    """A member that is whole.

    Attributes:
        files: path in its store → SHA-256.
        arrays: path → which of `Catalogue.metadata` it has.
        in_group: path of a group → its arrays.
        signatures: path of an array → digests of its files: arrays with the same ones have the same values.
        groups: path → attributes.
        info: attributes of its root.
    """

    place: Place
    folder: Folder
    files: Mapping[str, str]
    arrays: Mapping[str, str]
    in_group: Mapping[str, tuple[str, ...]]
    signatures: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, Mapping[str, Any]]
    info: Mapping[str, Any]


@dataclass(frozen=True)
class Catalogue:
    """The members of a study.

    Attributes:
        members: in the record's order; None for one that is not whole.
        metadata: of arrays, as Zarr writes it; members share what is the same.
        trouble: member → sentence, where a store is there and cannot be read.
    """

    record: StudyRecord
    members: tuple[Member | None, ...]
    metadata: Mapping[str, Mapping[str, Any]]
    trouble: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> Iterator[Member]:
        return (member for member in self.members if member is not None)


def read_catalogue(study: Folder, record: StudyRecord) -> Catalogue:
    """Read the roots of all members.

    Raises:
        StoreError: the study cannot be read, as a whole.
    """
    metadata: dict[str, Mapping[str, Any]] = {}
    trouble: dict[str, str] = {}
    shared: dict[Any, Any] = {}
    members: list[Member | None] = []
    folders = [study.below(place.name) for place in record.members]
    for place, folder, found in zip(record.members, folders, each(_root, folders, folders), strict=True):
        if isinstance(found, StoreError):
            if not isinstance(found, NoRootError):
                trouble[place.name] = str(found)
            members.append(None)
            continue
        members.append(_member(place, folder, found, metadata, shared))
    return Catalogue(record, tuple(members), metadata, trouble)


def _root(folder: Folder) -> RootFile | StoreError:
    try:
        return read_root_file(folder)
    except StoreError as error:
        return error


def _member(
    place: Place,
    folder: Folder,
    found: RootFile,
    metadata: dict[str, Mapping[str, Any]],
    shared: dict[Any, Any],
) -> Member | None:
    root = found.root
    if not root.is_finished:
        return None
    files = {sys.intern(file): digest for file, digest in root.files.items()}
    arrays: dict[str, str] = {}
    groups: dict[str, Mapping[str, Any]] = {}
    for path, described in (found.metadata or metadata_of(folder, files)).items():
        digest = files[f"{path}/{ROOT_FILE}"]
        if described["node_type"] == "array":
            metadata.setdefault(digest, described)
            arrays[sys.intern(path)] = digest
        else:
            groups[sys.intern(path)] = _shared(described.get("attributes", {}), shared)
    digests = {file: shared.setdefault(digest, digest) for file, digest in files.items()}
    return Member(
        place,
        folder,
        digests,
        arrays,
        _in_groups(arrays, shared),
        _signatures(digests),
        groups,
        _shared(root.attributes, shared),
    )


def _in_groups(arrays: Iterable[str], shared: dict[Any, Any]) -> Mapping[str, tuple[str, ...]]:
    names = tuple(arrays)
    if names not in shared:
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(name.rpartition("/")[0], []).append(name)
        shared[names] = {group: tuple(own) for group, own in found.items()}
    return cast(Mapping[str, tuple[str, ...]], shared[names])


def _signatures(digests: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for file, digest in digests.items():
        array = file.removesuffix(f"/{ROOT_FILE}")
        if array == file:  # a chunk: name/c/0/1, or name/c of one number
            array = file.removesuffix("/c").rpartition("/c/")[0] or file.rpartition("/")[0]
        found[array] = (*found.get(array, ()), digest)
    return found


def _shared(attributes: Mapping[str, Any], shared: dict[Any, Any]) -> dict[str, Any]:
    """The same texts once: a layout is as long as a network is deep."""
    return {
        sys.intern(name): shared.setdefault(value, value) if isinstance(value, str) else value
        for name, value in attributes.items()
        if name not in ("case", "case_text", "versions")
    }
