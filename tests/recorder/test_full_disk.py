"""A store that cannot be written any more, or not as fast as a loop goes."""

from __future__ import annotations

import errno
import gc
import logging
import os
import threading
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import nm_ode
from nm_ode.recorder import Recorder, stored
from nm_ode.results.stream import Rows, arrays
from nm_ode.results.stream.background import WAITING, BackgroundWriter
from nm_ode.results.stream.writer import RunWriter
from tests.recorder.loops import Loop, assert_same, recorded

STEPS, BATCH = 60, 4


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHUNK_ROWS", 8)
    monkeypatch.setattr(stored, "HANDED_STEPS", BATCH)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for some files."""
    fsync, room = os.fsync, iter(range(150))

    def full(descriptor: int) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)


def thetas(loop: Loop) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(loop.model.parameters()).detach()


def test_ends_the_recording_and_says_so_once(
    tmp_path: Path, full_disk: None, caplog: pytest.LogCaptureFixture
) -> None:
    loop, alone = Loop(), Loop()
    with loop.recorder(tmp_path / "run.zarr") as recorder:
        while loop.done < STEPS:
            loop.step(recorder)
        checkpoint = recorder.state_dict()
    with alone.recorder(None) as in_memory:
        while alone.done < STEPS:
            alone.step(in_memory)
    assert torch.equal(thetas(loop), thetas(alone))
    said = [
        record for record in caplog.records if record.name == "nm_ode" and record.levelno >= logging.ERROR
    ]
    assert len(said) == 1
    assert "No space left" in said[0].getMessage()
    run = recorder.run
    info = nm_ode.run_info(run)
    assert info.status == "unfinished"
    assert 0 < info.grid.steps < STEPS
    np.testing.assert_array_equal(run["loss"], in_memory.run["loss"][: info.grid.steps])
    with (
        pytest.raises(nm_ode.ArgumentError, match="had stopped"),
        loop.recorder(tmp_path / "run.zarr", resume=checkpoint),
    ):
        pass


def test_raises_if_the_user_says_so(tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(nm_ode.StoreError, match="No space left"):
        recorded(tmp_path / "run.zarr", STEPS, on_error="raise")
    assert 0 < nm_ode.open_run(tmp_path / "run.zarr").sizes["step"] < STEPS


def test_goes_on_when_there_is_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()
    with loop.recorder(tmp_path / "run.zarr") as recorder:
        while loop.done < 20:
            loop.step(recorder)
        checkpoint = loop.checkpoint(recorder)
        theta = thetas(loop).clone()
        memory = [state["momentum_buffer"].clone() for state in loop.optimizer.state.values()]
        with monkeypatch.context() as patch:

            def full(_: int) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(os, "fsync", full)
            while loop.done < 40:
                loop.step(recorder)
            recorder.state_dict()
    again = Loop()
    torch.nn.utils.vector_to_parameters(theta, again.model.parameters())
    for parameter, buffer in zip(again.model.parameters(), memory, strict=True):
        again.optimizer.state[parameter]["momentum_buffer"] = buffer
    again.done = 20
    with again.recorder(tmp_path / "run.zarr", resume=checkpoint["recorder"]) as recorder:
        while again.done < STEPS:
            again.step(recorder)
    assert_same(recorded(None, STEPS), recorder.run)


def test_on_error_is_one_of_two(tmp_path: Path) -> None:
    with pytest.raises(nm_ode.ArgumentError, match="on_error"):
        recorded(tmp_path / "run.zarr", 1, on_error="ignore")


class SlowWriter:
    """Waits until it is let go."""

    def __init__(self) -> None:
        self.go, self.written = threading.Event(), list[int]()

    def add(self, rows: Sequence[Rows]) -> None:
        self.go.wait()
        self.written += [one.count for one in rows]

    def commit(self, facts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


def test_who_is_faster_than_the_disk_waits() -> None:
    slow, put = SlowWriter(), list[int]()
    background = BackgroundWriter(cast(RunWriter, slow), every=1e9)

    def fast() -> None:
        for i in range(20):
            background.put([Rows("loss", ("step",), lambda: np.zeros(1), i)], {}, {})
            put.append(i)

    thread = threading.Thread(target=fast)
    thread.start()
    thread.join(timeout=0.3)  # time in which it could do much
    assert thread.is_alive()
    assert len(put) <= WAITING + 1
    slow.go.set()
    thread.join()
    background.close()
    assert slow.written == list(range(20))


def held_bytes() -> int:
    """Of arrays, and of what nm_ode made."""
    ours = tracemalloc.Filter(True, "*/nm_ode/*"), tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    found = tracemalloc.take_snapshot().filter_traces(ours)
    return sum(one.size for one in found.statistics("filename"))


def test_memory_does_not_grow_with_the_run(tmp_path: Path) -> None:
    """Bytes that are held, counted at two moments of one run."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x = torch.ones(4, 3)
    held = []
    with Recorder(model, optimizer, tmp_path / "run.zarr", save_every=50) as recorder:
        tracemalloc.start()
        try:
            for step in range(1, 2001):
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                recorder.loss(loss)
                optimizer.step()
                if step in (500, 2000):
                    recorder.state_dict()
                    gc.collect()
                    held.append(held_bytes())
        finally:
            tracemalloc.stop()
    series = 8 * 1500 * len([name for name in recorder.run.data_vars if name != "theta"])
    assert (
        held[1] - held[0] < 0.5 * series
    )  # some rows wait to be written, at one moment more than at another
