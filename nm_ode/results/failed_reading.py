"""Files that are what was written may yet be of another version of the libraries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from nm_ode.results.identity import StoreError


@contextlib.contextmanager
def readable(folder: Path | str) -> Iterator[None]:
    """Whatever the libraries say of a store is a StoreError."""
    try:
        yield
    except (StoreError, MemoryError):
        raise
    except Exception as error:
        raise StoreError(
            f"{folder} cannot be read by the xarray and zarr that are installed ({type(error).__name__}: {error})"
        ) from None
