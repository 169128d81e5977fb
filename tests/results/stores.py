"""Stores of two groups, finished and unfinished."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from nm_ode.results import Identity, StudyInfo
from nm_ode.results.store import StoreWriter

CASE = {"name": "x", "optimizer": {"lr": 0.1}}
IDENTITY = Identity(CASE, {"my_net.py": "0" * 64})
INFO = StudyInfo(
    title="x",
    case=CASE,
    case_file="x.toml",
    case_text="",
    status="failed",
    versions={},
    git_commit="",
    device="cpu",
    dtype="float64",
    seed=0,
    started="",
    ended="",
    parameters=3,
    samples=5,
    failures=("one", "two"),
    code=IDENTITY.code,
)


def dataset(value: float = 1.0) -> xr.Dataset:
    return xr.Dataset(
        {"loss": ("step", np.full(5, value)), "theta": (("step", "param"), np.zeros((5, 3))), "limit": 2.0},
        coords={"step": np.arange(5), "layer": ("layer", np.array(["a", "b"], dtype=object))},
        attrs={"status": "success"},
    )


def unfinished(tmp_path: Path) -> StoreWriter:
    writer = StoreWriter(tmp_path / "run.zarr", IDENTITY)
    writer.write("discrete", dataset())
    writer.write("flows/gradient", dataset(2.0))
    return writer


def files_of(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file())
