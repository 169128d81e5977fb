"""One dataset as a Zarr group on the disk."""

from __future__ import annotations

from pathlib import Path

import xarray as xr
from zarr.codecs import ZstdCodec

from nm_ode.results.files import sync_tree
from nm_ode.results.verified import digests_of


def write_group(dataset: xr.Dataset, folder: Path) -> dict[str, str]:
    """Write a dataset into a folder of its own, to outlast a power cut.

    Returns:
        The digest of each file, by its path in the folder.

    Raises:
        OSError: no room, or no access.
    """
    dataset.to_zarr(
        folder,
        mode="w",
        zarr_format=3,
        consolidated=False,
        write_empty_chunks=True,
        encoding={name: {"compressors": [ZstdCodec(checksum=True)]} for name in dataset.variables},
    )
    sync_tree(folder)
    return digests_of(folder)
