"""Kill −9 while a loop is recorded: what was written opens, and the run can be gone on with."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import nm_ode
from nm_ode.recorder import stored
from nm_ode.results.stream import arrays, background
from tests.kills import harness
from tests.recorder.loops import Loop, assert_same, recorded

STEPS, CHUNK, BATCH = 60, 8, 4
KILLS = 20
IN_FLIGHT = BATCH * (background.WAITING + 2)  # waiting, being collected, being written


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHUNK_ROWS", CHUNK)
    monkeypatch.setattr(stored, "HANDED_STEPS", BATCH)


def loop_with_checkpoints(folder: Path, store: Path) -> Callable[[], None]:
    """A loop that goes on from its last checkpoint, if there is one, and notes its steps."""

    def action() -> None:
        torch.set_num_threads(1)
        loop, file = Loop(), folder / "checkpoint.pt"
        resume = False
        if file.exists():
            found = torch.load(file)
            loop.load(found)
            resume = found["recorder"]
        with loop.recorder(store, resume=resume) as recorder:
            while loop.done < STEPS:
                loop.step(recorder)
                with (folder / "done").open("ab") as done:
                    done.write(b".")
                if loop.done % 17 == 0:
                    torch.save(loop.checkpoint(recorder), folder / "checkpoint.new")
                    os.replace(folder / "checkpoint.new", file)

    return action


def assert_beginning(unbroken: xr.Dataset, run: xr.Dataset) -> None:
    """What is there is what an unbroken run has, as far as it goes."""
    for name, values in run.variables.items():
        whole = unbroken[name].values
        np.testing.assert_array_equal(values.values, whole[: len(values)] if values.ndim else whole)


@pytest.fixture(scope="module")
def unbroken() -> xr.Dataset:
    return recorded(None, STEPS)


@pytest.mark.slow
def test_whenever_it_is_killed(tmp_path: Path, unbroken: xr.Dataset) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    operations = harness.operations(loop_with_checkpoints(fresh, fresh / "run.zarr"), fresh / "run.zarr")
    assert len(operations) > 5 * KILLS
    drawn = random.Random(0)
    moments = [0, 1, 2, 3, *sorted(drawn.sample(range(4, len(operations)), KILLS - 4))]
    for n, moment in enumerate(moments):
        folder = tmp_path / str(n)
        folder.mkdir()
        store, action = folder / "run.zarr", loop_with_checkpoints(folder, folder / "run.zarr")
        # A temporary file is written in part; the journal is appended to (test_damage.py cuts it).
        torn = bool(n % 2) and operations[moment].startswith("open") and "/." in operations[moment]
        harness.kill_at(action, store, moment, torn=torn)
        done = (folder / "done").stat().st_size if (folder / "done").exists() else 0
        try:
            run = nm_ode.open_run(store)
        except nm_ode.StoreError:
            assert done <= IN_FLIGHT, moment  # nothing was written yet
        else:
            info = nm_ode.run_info(run)
            if info.status == "unfinished":
                assert str(info.grid.steps) in info.message
            else:  # all rows were there, and Zarr's own metadata was being written
                assert info.grid.steps == STEPS
            assert info.grid.steps >= done - CHUNK - IN_FLIGHT, moment
            assert_beginning(unbroken, run)
            if info.grid.steps:
                predicted = nm_ode.predict_charges(run, "exact")
                assert float(np.abs(predicted["charge"] - run["charge"]).max()) < 1e-12
        if not (folder / "checkpoint.pt").exists():
            shutil.rmtree(store, ignore_errors=True)
        assert harness.wait(harness.start(action)) == 0
        assert_same(unbroken, nm_ode.open_run(store))
        assert not list(store.rglob(".*-*"))


def test_killed_again_while_it_goes_on(tmp_path: Path, unbroken: xr.Dataset) -> None:
    """Each time at another of the first operations of going on, which cut the store."""
    store, action = tmp_path / "run.zarr", loop_with_checkpoints(tmp_path, tmp_path / "run.zarr")
    assert harness.wait(harness.start(action)) == 0  # closed, with more steps than the last checkpoint
    for moment in (0, 1, 2, 5, 9, 20, 40):
        harness.kill_at(action, store, moment)
        assert_beginning(unbroken, nm_ode.open_run(store))
    assert harness.wait(harness.start(action)) == 0
    assert_same(unbroken, nm_ode.open_run(store))
