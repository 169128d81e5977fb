"""Segments of a checkpoint: JSON and arrays, written and read as a whole or not at all, without a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

import numpy as np

Arrays: TypeAlias = Mapping[str, np.ndarray]

_DIGEST = 32
_PARTS = ("state", "rows")


@dataclass(frozen=True)
class Segment:
    """What one save wrote.

    Attributes:
        facts: whatever JSON holds.
        state: at the moment of the save; that of the last segment counts.
        rows: name → what the series has more than in the segment before.
    """

    facts: Mapping[str, Any]
    state: Arrays
    rows: Arrays


def read_segment(file: IO[bytes], size: int, chain: bytes) -> tuple[dict[str, Any], Segment, bytes] | None:
    """The next segment if it is whole: header, contents, digest.

    Args:
        size: of the file.
        chain: digest of the segment before; empty for the first.
    """
    found = hashlib.blake2b(chain, digest_size=_DIGEST)
    length = file.read(8)
    wanted = int.from_bytes(length, "little")
    if wanted > size - file.tell():
        return None
    text = file.read(wanted)
    found.update(length + text)
    if file.read(_DIGEST) != found.digest():
        return None
    header = json.loads(text)
    if sum(_wanted(*one) for part in _PARTS for one in header[part].values()) > size - file.tell():
        return None
    parts: dict[str, dict[str, np.ndarray]] = {}
    for part in _PARTS:
        parts[part] = {}
        for name, (kind, shape) in header[part].items():
            parts[part][name] = array = np.empty(shape, dtype=kind)
            file.readinto(_bytes(array))  # type: ignore[attr-defined]
            found.update(_bytes(array))
    if file.read(_DIGEST) != found.digest():
        return None
    segment = Segment(header["facts"], parts["state"], parts["rows"])
    return header, segment, found.digest()


def write_segment(
    file: IO[bytes], header: Mapping[str, Any], state: Arrays, rows: Arrays, chain: bytes
) -> bytes:
    """Write one, and give its digest.

    Args:
        header: what is read again with "facts", and whatever else.
        chain: as of `read_segment`.
    """
    parts = dict(zip(_PARTS, (state, rows), strict=True))
    described = {
        part: {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
        for part, arrays in parts.items()
    }
    text = json.dumps({**header, **described}).encode()
    found = hashlib.blake2b(chain, digest_size=_DIGEST)
    blocks = (_bytes(array) for arrays in parts.values() for array in arrays.values())
    text = len(text).to_bytes(8, "little") + text
    found.update(text)
    file.write(text + found.digest())  # so that nothing is read from a header that is damaged
    for block in blocks:
        file.write(block)
        found.update(block)
    file.write(found.digest())
    return found.digest()


def size_of(arrays: Arrays) -> int:
    """In bytes."""
    return sum(array.nbytes for array in arrays.values())


def digest(*arrays: Any) -> str:
    """Of the bits of arrays, with their types and shapes."""
    found = hashlib.blake2b(digest_size=16)
    for array in map(np.asarray, arrays):
        found.update(f"{array.dtype.str}{array.shape}".encode())
        if array.dtype == object:
            found.update(json.dumps(array.tolist(), default=str).encode())
        else:
            found.update(_bytes(array))
    return found.hexdigest()


def _bytes(array: np.ndarray) -> memoryview:
    """The array's memory, without a copy where it lies in one piece."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _wanted(kind: str, shape: list[int]) -> int:
    return np.dtype(kind).itemsize * int(np.prod(shape, dtype=object))
