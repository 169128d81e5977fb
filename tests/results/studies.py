"""Studies of a few members, as the command makes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from nm_ode.results import Identity
from nm_ode.results.store import StoreWriter
from nm_ode.results.study import Axis, Failure, Place, StudyRecord, StudyStore
from tests.results.stores import INFO, dataset

LRS, SEEDS = (0.1, 0.05), (0, 1, 2)
CASE = {"name": "sweep_x", "optimizer": {"lr": 0.3}, "training": {"steps": 5}, "seed": 0}


def record(lrs: tuple[float, ...] = LRS, seeds: tuple[int, ...] = SEEDS, steps: int = 5) -> StudyRecord:
    sweep = {"optimizer.lr": list(lrs), "seed": list(seeds)}
    return StudyRecord(
        name="sweep_x",
        title="A sweep",
        case={**CASE, "training": {"steps": steps}, "sweep": sweep},
        case_file="sweep_x.toml",
        case_text="",
        axes=(Axis("lr", {"optimizer.lr": lrs}), Axis("seed", {"seed": seeds})),
        members=tuple(
            Place(f"lr={lr},seed={seed}", (i, j), {"optimizer.lr": lr, "seed": seed})
            for i, lr in enumerate(lrs)
            for j, seed in enumerate(seeds)
        ),
    )


def identity(place: Place, steps: int = 5) -> Identity:
    lr, seed = place.values["optimizer.lr"], place.values["seed"]
    return Identity({**CASE, "optimizer": {"lr": lr}, "training": {"steps": steps}, "seed": seed})


def work(store: StudyStore, place: Place, **groups: xr.Dataset) -> Path:
    """Compute a member: its working store is finished."""
    who = identity(place)
    writer = StoreWriter(store.working(place.name), who)
    for group, found in (groups or {"discrete": member_dataset(place)}).items():
        writer.write(group.replace("__", "/"), found)
    return writer.finish(replace(INFO, case=who.case, status="complete", failures=(), code={}))


def member_dataset(place: Place) -> xr.Dataset:
    value = place.values["optimizer.lr"] * 100 + place.values["seed"]
    return dataset(value).assign(energy=("step", np.arange(5) + value))


FAILURE = Failure(
    "memory",
    "there is not enough memory",
    "2026-01-01T00:00:00+00:00",
    "name = 'é'\n",
    "step 1\n",
    versions={"torch": "2"},
)


def text(path: Path) -> object:
    return json.loads(path.read_text())
