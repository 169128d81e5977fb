"""A finished store."""

from __future__ import annotations

from pathlib import Path

import pytest

from nm_ode.results.store import StoreWriter
from tests.results.stores import IDENTITY, INFO, dataset


@pytest.fixture
def store(tmp_path: Path) -> Path:
    writer = StoreWriter(tmp_path / "run.zarr", IDENTITY)
    writer.write("discrete", dataset())
    writer.write("flows/gradient", dataset(2.0))
    return writer.finish(INFO)
