"""One variable over all members of a study, read when it is used, and of those members alone that are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.core.array import AsyncArray
from zarr.storage import StorePath

from nm_ode.results.folders import Folder, each
from nm_ode.results.identity import StoreError
from nm_ode.results.root import REMEDY
from nm_ode.results.verified import VerifiedStore

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """One member's array.

    Attributes:
        path: of the array in the member's store.
        files: those of the array, by path in the store.
        metadata: as Zarr writes it.
        places: for each dimension, where in the member each entry of the study's is, −1 for none; None where they are
            the same, as far as the member's array goes.
    """

    folder: Folder
    path: str
    files: Mapping[str, str]
    metadata: Mapping[str, Any]
    places: tuple[Places | None, ...]

    def read(self, wanted: tuple[Places, ...], into: npt.NDArray[Any]) -> None:
        """Put what the member has of the wanted entries into an array; what it has not is left.

        Raises:
            StoreError: a file is damaged, or cannot be read.
        """
        theirs, ours = [], []
        for entries, places, size in zip(wanted, self.places, self.metadata["shape"], strict=True):
            found = entries if places is None else places[entries]
            there = (found >= 0) & (found < size)
            theirs.append(found[there])
            ours.append(np.flatnonzero(there))
        if any(not len(found) for found in theirs):
            return
        region = tuple(slice(int(found.min()), int(found.max()) + 1) for found in theirs)
        values = np.asarray(self._array()[region])
        inside = tuple(found - part.start for found, part in zip(theirs, region, strict=True))
        into[np.ix_(*ours)] = values[np.ix_(*inside)]

    def read_all(self) -> npt.NDArray[Any]:
        """The member's array as it is."""
        return np.asarray(self._array()[...])

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process goes what is read there."""
        return Part, (self.folder, self.path, self._own_files(), self.metadata, self.places)

    def _own_files(self) -> dict[str, str]:
        start = f"{self.path}/"
        return {file: digest for file, digest in self.files.items() if file.startswith(start)}

    def _array(self) -> zarr.Array[Any]:
        store = VerifiedStore(self.folder, self._own_files(), REMEDY)
        try:
            return zarr.Array(AsyncArray.from_dict(StorePath(store, self.path), dict(self.metadata)))
        except Exception as error:
            raise StoreError(
                f"{self.folder.name}: {self.path} cannot be read by the zarr that is installed "
                f"({type(error).__name__}: {error})"
            ) from None


class Stack(BackendArray):
    """The arrays of all members, one behind the other along the study's axes.

    Args:
        shape: of the axes, then of the variable.
        parts: by index along the axes, flat; None where a member has no such array.
        dtype: of the whole.
        fill: where there is nothing.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        axes: int,
        parts: tuple[Part | None, ...],
        dtype: np.dtype[Any],
        fill: Any,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._axes, self._parts, self._fill = axes, parts, fill

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._outer
        )

    def _outer(self, key: tuple[Any, ...]) -> Any:
        wanted = tuple(
            np.arange(size)[part]
            if isinstance(part, slice)
            else np.atleast_1d(np.asarray(part, dtype=np.int64)) % size
            for part, size in zip(key, self.shape, strict=True)
        )
        grid, inner = wanted[: self._axes], wanted[self._axes :]
        found = np.full(tuple(len(entries) for entries in wanted), self._fill, dtype=self.dtype)
        parts = []
        for at in np.ndindex(*(len(entries) for entries in grid)):
            member = tuple(int(entries[i]) for entries, i in zip(grid, at, strict=True))
            part = self._parts[int(np.ravel_multi_index(member, self.shape[: self._axes])) if member else 0]
            if part is not None:
                parts.append((part, found[(*at, ...)]))
        for _ in each(lambda pair: pair[0].read(inner, pair[1]), parts, [part.folder for part, _ in parts]):
            pass  # errors are raised here
        squeezed = tuple(
            i for i, part in enumerate(key) if not isinstance(part, slice) and np.ndim(part) == 0
        )
        return found.squeeze(squeezed) if squeezed else found
