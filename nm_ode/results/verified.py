"""Files of a Zarr store that are read only if they are, to the bit, what was written."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from nm_ode.results.folders import Folder, LocalFolder
from nm_ode.results.identity import StoreError

_GONE = {errno.EIO, errno.EISDIR, errno.ELOOP}
"""What a file answers that will not be read at another time either."""


class DamageError(StoreError):
    """A file is not what was written: the sentence says which."""


def sha256(content: bytes) -> str:
    """The digest of these bytes, as text."""
    return hashlib.sha256(content).hexdigest()


def digests_of(folder: Path) -> dict[str, str]:
    """The digest of each file in a folder, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()) for path in files}


class VerifiedStore(Store):
    """A folder's files for Zarr to read. Only those with a digest exist, and each is verified whenever it is read.

    So a file that is missing is no missing chunk, which Zarr would read as fill values, and a file that somebody
    added is not there.

    Args:
        folder: where the files are; a path, or another place.
        digests: SHA-256 by path in the folder.
        remedy: ends the sentence of `DamageError`, which reading raises.
    """

    def __init__(self, folder: Path | Folder, digests: Mapping[str, str], remedy: str = "") -> None:
        super().__init__(read_only=True)
        self._folder: Folder = LocalFolder(folder) if isinstance(folder, Path) else folder
        self._name, self._digests, self._remedy = self._folder.name, dict(digests), remedy

    def read(self, key: str) -> bytes:
        """A file's bytes.

        Raises:
            DamageError: it is missing, or not what was written.
            StoreError: it cannot be read for another reason, which may pass.
        """
        try:
            content = self._folder.read(key)
        except OSError as error:
            raise self._error(key, error) from None
        if sha256(content) != self._digests[key]:
            raise self._damage(f"{key} is not what was written")
        return content

    def require_all(self) -> None:
        """Look whether each file is there; what is in it is verified when it is read.

        Raises:
            DamageError, StoreError: as `read`.
        """
        found = self._folder.fault(self._digests)
        if found is not None:
            raise self._error(*found) from None

    def _error(self, key: str, error: OSError) -> StoreError:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return self._damage(f"{key} is missing")
        if error.errno in _GONE:
            return self._damage(f"{key} cannot be read ({error.strerror})")
        return StoreError(f"{self._name}/{key} cannot be read ({error.strerror})")

    def _damage(self, what: str) -> DamageError:
        return DamageError(f"{self._name} is damaged: {what}" + (f"; {self._remedy}" if self._remedy else ""))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, VerifiedStore)
            and self._folder.place("") == other._folder.place("")
            and self._digests == other._digests
        )

    __hash__ = None  # type: ignore[assignment]

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if key not in self._digests:
            return None
        content = await asyncio.to_thread(self.read, key)
        return prototype.buffer.from_bytes(_part(content, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        return key in self._digests

    async def list(self) -> AsyncIterator[str]:
        for key in self._digests:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in self._digests:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        start = f"{prefix.rstrip('/')}/" if prefix else ""
        for name in dict.fromkeys(
            key[len(start) :].split("/")[0] for key in self._digests if key.startswith(start)
        ):
            yield name

    supports_writes = supports_deletes = supports_partial_writes = False
    supports_listing = True

    async def set(self, key: str, value: Buffer) -> None:
        raise self._no_writing()

    async def set_partial_values(self, key_start_values: Iterable[tuple[str, int, bytes]]) -> None:
        raise self._no_writing()

    async def delete(self, key: str) -> None:
        raise self._no_writing()

    def _no_writing(self) -> StoreError:
        return StoreError(f"{self._name} is opened to be read, not written")


def _part(content: bytes, wanted: ByteRequest | None) -> bytes:
    match wanted:
        case RangeByteRequest(start=start, end=end):
            return content[start:end]
        case OffsetByteRequest(offset=offset):
            return content[offset:]
        case SuffixByteRequest(suffix=suffix):
            return content[max(0, len(content) - suffix) :]
        case _:
            return content
