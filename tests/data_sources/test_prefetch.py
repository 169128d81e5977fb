"""Batches on disk are read ahead by a thread, of which nothing but time depends."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Problem
from nm_ode.data import ArraySource, Augmentation, Preparation, PreparedSource, Samples, TensorSource

N, SIDE = 40, 4


class Watched(ArraySource):
    """Says which samples were read by whom, and does something before it reads."""

    def __init__(self, tree: Any) -> None:
        super().__init__(tree)
        self.read: list[tuple[str, list[int]]] = []
        self.before: Callable[[int], None] = lambda count: None

    def take(self, indices: Samples) -> Any:
        if isinstance(indices, torch.Tensor):
            self.read.append((threading.current_thread().name, indices.tolist()))
            self.before(len(self.read))
        return super().take(indices)

    def forget(self) -> None:
        self.read.clear()


@pytest.fixture
def source(tmp_path: Path) -> Watched:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (N, 1, SIDE, SIDE), dtype=np.uint8))
    np.save(tmp_path / "y.npy", np.arange(N) % 2)
    return Watched(tuple(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy"))


def problem_of(source: Any, augment_seed: int = 0, **options: Any) -> Problem:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 2)).double()
    augment = Augmentation(pad=1, seed=augment_seed)
    prepared = PreparedSource(source, Preparation((0.5,), (0.25,), augment))
    return Problem(model, F.cross_entropy, prepared, **options)


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if "nm_ode reads" in one.name]


@pytest.mark.parametrize("chunk_size", [6, 16, N])
def test_a_run_is_the_same_as_in_memory_and_its_batches_are_read_once_in_order_by_one_thread(
    source: Watched, chunk_size: int
) -> None:
    problem = problem_of(source, chunk_size=chunk_size)
    in_memory = problem_of(TensorSource(source.take(None)))
    optimizer = nm_ode.SGD(lr=0.05, momentum=0.9)
    source.forget()
    run = nm_ode.train(problem, optimizer, 7, batch_size=12, seed=1, save_every=100)
    assert threads() == []
    wanted = nm_ode.train(in_memory, optimizer, 7, batch_size=12, seed=1, save_every=100)
    np.testing.assert_allclose(run.theta, wanted.theta, rtol=1e-12)
    by_thread = [read for who, read in source.read if "nm_ode reads" in who]
    grid = nm_ode.run_info(run).grid
    cut = [part for batch in grid.batches for part in (batch % N).split(min(chunk_size, 12))]
    assert by_thread == [part.tolist() for part in cut]
    np.testing.assert_allclose(run.full_loss, wanted.full_loss, rtol=1e-12)


def test_what_goes_wrong_in_the_thread_is_raised_where_the_batch_is_asked_for(source: Watched) -> None:
    problem = problem_of(source, chunk_size=12)
    source.forget()

    def fail(count: int) -> None:
        if count == 5:
            raise OSError("the disk is gone")

    source.before = fail
    done: list[int] = []
    with pytest.raises(OSError, match="the disk is gone"):
        nm_ode.train(problem, nm_ode.SGD(lr=0.05), 20, batch_size=12, on_step=done.append)
    assert done[-1] == 4
    assert threads() == []


def test_an_interrupted_run_leaves_no_thread_and_goes_on_to_the_same_numbers(
    source: Watched, tmp_path: Path
) -> None:
    problem, optimizer = problem_of(source, chunk_size=12), nm_ode.SGD(lr=0.05)
    said: list[str] = []
    kept = nm_ode.Checkpoint(tmp_path / "kept", every=0, say=said.append)
    whole = nm_ode.train(problem, optimizer, 8, batch_size=12)

    def interrupt(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    def go_on(problem: Problem) -> tuple[Any, list[int]]:
        seen: list[int] = []
        run = nm_ode.train(problem, optimizer, 8, batch_size=12, on_step=seen.append, checkpoint=kept)
        return run, seen

    with pytest.raises(KeyboardInterrupt):
        nm_ode.train(problem, optimizer, 8, batch_size=12, on_step=interrupt, checkpoint=kept)
    assert threads() == []
    (tmp_path / "kept").rename(tmp_path / "before")
    for other, begins in ((problem_of(source, chunk_size=12, augment_seed=7), 1), (problem, 5)):
        shutil.copy(tmp_path / "before", tmp_path / "kept")
        run, seen = go_on(other)
        assert seen[0] == begins, said
    np.testing.assert_array_equal(run.theta, whole.theta)
