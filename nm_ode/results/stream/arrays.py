"""An array that grows along its first dimension: its chunks and its metadata, as the bytes of Zarr's files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError

CHUNK_ROWS = 512
"""The most rows in a chunk: as many may be missing after a kill."""
CHUNK_BYTES = 2**22
PIECE_BYTES = 2**25  # of a single row, from which on it is cut in pieces


@dataclass(frozen=True, eq=False)
class Rows:
    """Observations of one variable, one after the other.

    Attributes:
        dims: of the variable, that along which it grows first.
        values: gives the array, shape (rows, …); it may wait for a device.
        count: how many rows.
    """

    name: str
    dims: tuple[str, ...]
    values: Callable[[], np.ndarray]
    count: int
    long_name: str = ""
    units: str = "1"


@dataclass(frozen=True)
class GrowingArray:
    """What of an array does not change while it grows.

    Attributes:
        inner: sizes of the dimensions but the first.
        chunk: rows in a chunk.
        piece: entries along the second dimension in a chunk; all of them but where one row is large.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    inner: tuple[int, ...]
    chunk: int
    piece: int
    long_name: str
    units: str

    @classmethod
    def of(cls, rows: Rows, values: np.ndarray) -> GrowingArray:
        """An array for these rows and what follows them.

        Raises:
            ArgumentError: a name that is none of a file, or numbers of a kind that Zarr does not hold.
        """
        if "/" in rows.name or rows.name.startswith((".", "__")):
            raise ArgumentError(f"a variable of a store cannot be called {said(rows.name)}: rename it")
        if values.dtype.kind not in "biuf":
            raise ArgumentError(f"{rows.name!r} holds {values.dtype}, which no store takes: give numbers")
        inner = values.shape[1:]
        size = max(1, math.prod(inner) * values.dtype.itemsize)
        length = inner[0] if inner else 1
        return cls(
            rows.name,
            rows.dims,
            values.dtype.str,
            tuple(inner),
            min(max(1, CHUNK_BYTES // size), CHUNK_ROWS),
            max(1, math.ceil(length / math.ceil(size / PIECE_BYTES))),
            rows.long_name,
            rows.units,
        )

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> GrowingArray:
        """What `dataclasses.asdict` and JSON made of one."""
        return cls(**{**found, "dims": tuple(found["dims"]), "inner": tuple(found["inner"])})

    @property
    def dim(self) -> str:
        """The dimension along which it grows."""
        return self.dims[0]

    def empty(self, rows: int) -> np.ndarray:
        """Room for so many rows."""
        return np.empty((rows, *self.inner), dtype=self.dtype)

    def metadata(self, rows: int) -> bytes:
        """Its `zarr.json` when it has so many rows."""
        return json.dumps({**self._metadata, "shape": [rows, *self.inner]}).encode()

    def files(self, index: int, values: np.ndarray) -> Iterator[tuple[str, bytes]]:
        """The files of its `index`-th chunk, of `chunk` rows or fewer: path in the store, content."""
        if len(values) < self.chunk:
            whole = np.full((self.chunk, *self.inner), self._fill, dtype=self.dtype)
            whole[: len(values)] = values
            values = whole
        rest = ["0"] * max(0, len(self.inner) - 1)
        for number, part in enumerate(self._pieces(values)):
            place = "/".join([str(index), *([str(number)] if self.inner else []), *rest])
            yield f"{self.name}/c/{place}", bytes(self._codec.encode(np.ascontiguousarray(part)))

    def _pieces(self, values: np.ndarray) -> Iterator[np.ndarray]:
        if not self.inner:
            yield values
            return
        for start in range(0, self.inner[0], self.piece):
            part = values[:, start : start + self.piece]
            if part.shape[1] < self.piece:
                whole = np.full((len(part), self.piece, *self.inner[1:]), self._fill, dtype=self.dtype)
                whole[:, : part.shape[1]] = part
                part = whole
            yield part

    @property
    def _fill(self) -> Any:
        return math.nan if np.dtype(self.dtype).kind == "f" else 0

    @cached_property
    def _codec(self) -> Zstd:
        return Zstd(level=1, checksum=True)

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        pieces = (self.piece, *self.inner[1:]) if self.inner else ()
        files: dict[str, Buffer] = {}
        zarr.create_array(
            MemoryStore(files),
            shape=(0, *self.inner),
            chunks=tuple(max(1, size) for size in (self.chunk, *pieces)),
            dtype=self.dtype,
            fill_value=self._fill,
            compressors=[ZstdCodec(level=1, checksum=True)],
            dimension_names=self.dims,
            attributes={"long_name": self.long_name, "units": self.units},
        )
        found: dict[str, Any] = json.loads(files["zarr.json"].to_bytes())
        return found
