"""A copy of a module's folder of images for each test, which may damage it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """Of the folder that the test's own module makes once."""
    shutil.copytree(original, tmp_path / "images")
    return tmp_path / "images"
