"""Decoded images on disk: an .npy file that is mapped into memory, and an .about file that says what it is of.

The name has the digest of all that decides about the pixels: the files with their sizes and times of change, the size
that is asked for, the version of the decoder. The .about file has the digests of the pixels, a piece at a time, and all
of them are checked when a cache is opened; one that is damaged is made again. Both files appear whole or not at all,
the .about file last. Caches can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import sys
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from nm_ode.data.base import DataError
from nm_ode.data.images.decode import (
    CHANNELS,
    Decoded,
    Piece,
    Pixels,
    Progress,
    Size,
    decoded,
    decoder,
    in_memory,
    rows_of_a_piece,
    threads,
)
from nm_ode.data.images.listing import Listing

_FORMAT = 1  # of the cache; another number is another cache
_BESIDE = ".nm_ode_cache"  # after the name of the folder of the data


def cached(
    listing: Listing,
    size: Size,
    split: str,
    folder: Path | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Decoded:
    """The images of a listing: from a cache, or decoded and, where there is a place for it, kept in one.

    Args:
        split: in front of the cache's name.
        folder: of caches; if None, the first that can be written of one beside the data and one of the user's.

    Raises:
        DataError: an image cannot be decoded, or `folder` cannot be written.
    """
    images = _Images(f"{split}-{_key(listing, size)[:32]}", listing, size, workers, progress)
    places = _places(listing.folder) if folder is None else [Path(folder)]
    for place in places:
        found = _read(place, images)
        if found is not None:
            return found
    for place in places:
        try:
            return _made(place, images)
        except OSError as error:
            if folder is not None:
                raise DataError(
                    f"cache: {place} cannot be written ({error.strerror or error}): give another folder"
                ) from None
    return in_memory(listing, size, images.decoded())


def users_caches() -> Path:
    """Where this user's programs keep what they can make again."""
    home = Path.home()
    if sys.platform == "darwin":
        usual = home / "Library" / "Caches"
    elif sys.platform == "win32":
        usual = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        usual = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return usual / "nm_ode" / "images"


def _places(data: Path) -> list[Path]:
    """Not in the folder of the data, where whoever lists its folders would take a cache for a class."""
    whole = data.resolve()
    beside = whole.with_name(whole.name + _BESIDE)
    try:
        return [beside, users_caches()]
    except RuntimeError:  # a user without a home, as in containers
        return [beside]


def _key(listing: Listing, size: Size) -> str:
    digest = hashlib.sha256()
    head = [_FORMAT, decoder(), str(listing.folder.resolve()), size.side, size.resize]
    digest.update(json.dumps(head).encode())
    for file in listing.files:
        digest.update(f"{file.name}\0{file.size}\0{file.time}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@dataclass(frozen=True)
class _Images:
    """What a cache is of, its name without the endings, and how it is decoded."""

    name: str
    listing: Listing
    size: Size
    workers: int | None
    progress: Progress | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the pixels, of a byte each."""
        return len(self.listing), CHANNELS, self.size.side, self.size.side

    def decoded(self) -> Generator[Piece, None, None]:
        """A piece at a time."""
        return decoded(self.listing, self.size, workers=self.workers, progress=self.progress)


def _made(place: Path, images: _Images) -> Decoded:
    """Decoded into a cache by this process, or by another that was first.

    Raises:
        OSError: the folder cannot be written, or is full.
    """
    place.mkdir(parents=True, exist_ok=True)
    needed = math.prod(images.shape)
    if shutil.disk_usage(place).free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB do not fit on its disk")
    with _alone(place / f"{images.name}.lock"):
        found = _read(place, images)
        if found is not None:
            return found
        for leftover in place.glob(f".{images.name}-*"):  # of a process that was killed
            leftover.unlink(missing_ok=True)
        _write(place, images)
        found = _read(place, images)
    if found is None:
        raise OSError(None, "what was written there is read back as something else")
    return found


def _write(place: Path, images: _Images) -> None:
    sums, squares = np.zeros(CHANNELS, np.int64), np.zeros(CHANNELS, np.int64)
    digests: list[str] = []
    with _appearing(place / f"{images.name}.npy") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": images.shape}
        np.lib.format.write_array_header_1_0(file, header)
        with contextlib.closing(images.decoded()) as pieces:
            for piece in pieces:
                file.write(piece.pixels.data)
                digests.append(piece.digest)
                sums += piece.sums
                squares += piece.squares
    about = {
        "what": f"images of {images.listing.folder}, made by nm_ode; can be deleted",
        "decoder": decoder(),
        "sums": sums.tolist(),
        "squares": squares.tolist(),
        "digests": digests,
    }
    text = json.dumps(about, indent=1)
    with _appearing(place / f"{images.name}.about") as file:
        file.write(json.dumps({"digest": hashlib.sha256(text.encode()).hexdigest(), "about": text}).encode())


def _read(place: Path, images: _Images) -> Decoded | None:
    """A cache that is there and whole; else None."""
    try:
        sealed = json.loads((place / f"{images.name}.about").read_bytes())
        if hashlib.sha256(sealed["about"].encode()).hexdigest() != sealed["digest"]:
            return None
        about: dict[str, Any] = json.loads(sealed["about"])
        # Copied on write: what is written to the tensor never comes to the file.
        pixels: Pixels = np.load(place / f"{images.name}.npy", mmap_mode="c", allow_pickle=False)
        if pixels.dtype != np.uint8 or pixels.shape != images.shape or not pixels.flags.c_contiguous:
            return None
        if not _are(pixels, about["digests"], images.workers):
            return None
        return Decoded(pixels, np.array(about["sums"], np.int64), np.array(about["squares"], np.int64))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None


def _are(pixels: Pixels, digests: list[str], workers: int | None) -> bool:
    rows = rows_of_a_piece(pixels.shape[2])
    starts = range(0, len(pixels), rows)
    if len(starts) != len(digests):
        return False
    with ThreadPoolExecutor(threads(workers)) as pool:
        found = pool.map(lambda start: hashlib.sha256(pixels[start : start + rows].data).hexdigest(), starts)
        return all(one == other for one, other in zip(found, digests, strict=True))


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """For one process at a time, where the file system has locks; elsewhere two decode the same and the last stays."""
    lock = FileLock(path)
    try:
        lock.acquire()
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[Any]:
    """A file to write, which appears under its name when all of it is written."""
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
