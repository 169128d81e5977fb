"""A training that was cut off goes on from its checkpoint, to the bits of one that never was."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from nm_ode import (
    SGD,
    Adam,
    AdamW,
    Charges,
    Checkpoint,
    Cosine,
    Curvature,
    KinkCrossings,
    Observer,
    Optimizer,
    Problem,
    RMSprop,
    ScalarRMSprop,
    TrainingDiverged,
    Variable,
    View,
    symmetries_of,
    train,
)
from nm_ode.models import mlp
from nm_ode.optimizers import StateLayout

STEPS = 24


class CutOffError(Exception):
    """The training is broken off here."""


def cut_off_at(step: int) -> Callable[[int], None]:
    def on_step(done: int) -> None:
        if done == step:
            raise CutOffError

    return on_step


def cut_off(problem: Problem, optimizer: Optimizer, path: Path, at: int, **options: Any) -> list[str]:
    said: list[str] = []
    with pytest.raises(CutOffError):
        train(
            problem, optimizer, checkpoint=Checkpoint(path, 0, said.append), on_step=cut_off_at(at), **options
        )
    return said


def gone_on(
    problem: Problem, optimizer: Optimizer, path: Path, **options: Any
) -> tuple[xr.Dataset, list[str]]:
    said: list[str] = []
    return train(problem, optimizer, checkpoint=Checkpoint(path, 0, said.append), **options), said


@pytest.fixture(scope="module")
def relu() -> Problem:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    return Problem(mlp([3, 4, 2], "relu", seed=1), nn.functional.mse_loss, (x, y))


@dataclass(frozen=True)
class Averaged(Optimizer):
    """Descent along a running mean of the gradient: without a twin in torch."""

    lr: float

    def state_layout(self, n_theta: int) -> StateLayout:
        return StateLayout((("theta", n_theta), ("mean", n_theta)))

    def init(self, theta: Tensor, grad: Tensor) -> Tensor:
        return torch.cat([theta, grad])

    def increment(self, state: Tensor, grad: Tensor) -> Tensor:
        _, mean = self.state_layout(len(grad)).split(state)
        gained = 0.1 * (grad - mean)
        return torch.cat([-self.lr * (mean + gained), gained])


OPTIMIZERS = [
    SGD(lr=0.1),
    SGD(lr=0.05, momentum=0.9, dampening=0.2, weight_decay=1e-2),
    SGD(lr=0.02, momentum=0.9, nesterov=True),
    Adam(lr=0.01),
    AdamW(lr=0.01),
    RMSprop(lr=0.01, momentum=0.5, centered=True),
    ScalarRMSprop(lr=0.1),
    Averaged(lr=0.05),
]


@pytest.mark.parametrize("batch_size", ["full", 7])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: f"{type(one).__name__}")
def test_it_goes_on_to_the_same_bits(relu: Problem, optimizer: Optimizer, batch_size, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "steps": STEPS,
        "batch_size": batch_size,
        "seed": 2,
        "save_every": 5,
        "schedule": Cosine(warmup=3),
        "observe": [Charges(symmetries_of(relu)), Curvature(6), KinkCrossings(5)],
    }
    for at in (1, 7, 8, STEPS):
        said = cut_off(relu, optimizer, tmp_path / "c", at, **options)
    assert said == [f"training: goes on from step 8 of {STEPS}"]
    run, said = gone_on(relu, optimizer, tmp_path / "c", **options)
    assert said == [f"training: goes on from step {STEPS} of {STEPS}"]
    xr.testing.assert_identical(run, train(relu, optimizer, **options))


def test_float32_and_a_warm_start_too(relu: Problem, tmp_path: Path) -> None:
    small = Problem(relu.model, nn.functional.mse_loss, (relu.x, relu.y), dtype=torch.float32)
    first = train(small, Adam(lr=0.01), steps=5)
    options = {"steps": 9, "state0": torch.from_numpy(first["final_state"].values)}
    cut_off(small, Adam(lr=0.01), tmp_path / "c", 4, **options)
    run, said = gone_on(small, Adam(lr=0.01), tmp_path / "c", **options)
    assert said
    xr.testing.assert_identical(run, train(small, Adam(lr=0.01), **options))


KILLED = """
import os, signal, sys, torch
from torch import nn
from nm_ode import Adam, Checkpoint, Problem, train
from nm_ode.models import mlp
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(3)
x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
y = torch.randn(20, 2, generator=generator, dtype=torch.float64)
problem = Problem(mlp([3, 4, 2], "relu", seed=1), nn.functional.mse_loss, (x, y))
def kill(done):
    if done == 13:
        os.kill(os.getpid(), signal.SIGKILL)
train(problem, Adam(lr=0.01), 24, batch_size=6, checkpoint=Checkpoint(sys.argv[1], 0), on_step=kill)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_kill_9_costs_nothing_but_the_step_under_way(relu: Problem, tmp_path: Path) -> None:
    path = tmp_path / "c"
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], cwd=Path(__file__).parents[1], check=False
    )
    assert ended.returncode == -signal.SIGKILL
    run, said = gone_on(relu, Adam(lr=0.01), path, steps=24, batch_size=6)
    assert said == ["training: goes on from step 13 of 24"]
    xr.testing.assert_identical(run, train(relu, Adam(lr=0.01), 24, batch_size=6))
    assert [file.name for file in tmp_path.iterdir()] == ["c"]


def test_ctrl_c_keeps_what_came_before_it(tiny: Problem, tmp_path: Path) -> None:
    def on_step(done: int) -> None:
        if done == 3:
            time.sleep(1.1)
        if done == 4:
            raise KeyboardInterrupt

    said: list[str] = []
    rarely = Checkpoint(tmp_path / "c", 1e6, said.append)
    with pytest.raises(KeyboardInterrupt):
        train(tiny, SGD(lr=0.1), 9, checkpoint=rarely, on_step=on_step)
    run = train(tiny, SGD(lr=0.1), 9, checkpoint=rarely)
    assert said == ["training: goes on from step 4 of 9"]
    xr.testing.assert_identical(run, train(tiny, SGD(lr=0.1), 9))


def test_a_path_is_enough_and_short_trainings_write_nothing(tiny: Problem, tmp_path: Path) -> None:
    run = train(tiny, SGD(lr=0.1), 9, checkpoint=tmp_path / "c")
    xr.testing.assert_identical(run, train(tiny, SGD(lr=0.1), 9, checkpoint=str(tmp_path / "c")))
    assert not list(tmp_path.iterdir())


def test_a_training_that_diverges_does_so_again(tiny: Problem, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged) as whole:
        train(tiny, SGD(lr=50.0), 400)
    cut_off(tiny, SGD(lr=50.0), tmp_path / "c", 5, steps=400)
    with pytest.raises(TrainingDiverged) as again:
        gone_on(tiny, SGD(lr=50.0), tmp_path / "c", steps=400)
    xr.testing.assert_identical(again.value.run, whole.value.run)


def other_data(problem: Problem) -> Problem:
    y = problem.y.clone()
    y[11] += 1e-3
    return Problem(mlp([3, 4, 2], "tanh", seed=1), nn.functional.mse_loss, (problem.x, y))


def other_loss(problem: Problem) -> Problem:
    def loss(output: Tensor, y: Tensor) -> Tensor:
        return 1.001 * nn.functional.mse_loss(output, y)

    return Problem(mlp([3, 4, 2], "tanh", seed=1), loss, (problem.x, problem.y))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 11}, "steps"),
        ({"seed": 1}, "batches"),
        ({"batch_size": 6}, "batches"),
        ({"save_every": 2}, "saved steps"),
        ({"optimizer": SGD(lr=0.1, weight_decay=0.1)}, "hyperparameters"),
        ({"optimizer": AdamW(lr=0.1)}, "optimizer"),
        ({"schedule": Cosine()}, "learning rates"),
        ({"observe": [Curvature(3)]}, "observers"),
        ({"theta0": torch.full((26,), 0.1)}, "start"),
        ({"problem": other_data}, "samples"),
        ({"problem": other_loss}, "another loss"),
    ],
)
def test_what_was_kept_of_another_training_is_not_used(
    tiny: Problem, change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"optimizer": SGD(lr=0.1), "steps": 9, "batch_size": 5, "observe": [Curvature(2)]}
    cut_off(tiny, asked.pop("optimizer"), tmp_path / "c", 4, **asked)
    other = {"optimizer": SGD(lr=0.1), **asked, **change}
    problem, optimizer = other.pop("problem", lambda same: same)(tiny), other.pop("optimizer")
    run, said = gone_on(problem, optimizer, tmp_path / "c", **other)
    assert len(said) == 1
    assert named in said[0]
    xr.testing.assert_identical(run, train(problem, optimizer, **other))


class Walk(Observer):
    """Remembers: a list, a tensor, a number, and draws from torch's own generator."""

    variables: Mapping[str, Variable] = {"walk": Variable((), "a walk")}

    def __init__(self, seen: list[float]) -> None:
        self.seen, self.last, self.count = seen, torch.zeros(()), 0
        self.kinds = {"a": (1, 2.5), "b": None}

    def observe(self, view: View) -> Mapping[str, Any]:
        self.last = self.last + view.loss + torch.rand(()).double()
        self.count += 1
        self.seen.append(float(view.loss))
        return {"walk": self.last + self.count + sum(self.seen)}


def test_an_observer_of_ones_own_remembers(tiny: Problem, tmp_path: Path) -> None:
    torch.manual_seed(5)
    seen: list[float] = []
    whole = train(tiny, SGD(lr=0.1), 9, observe=[Walk(seen)])
    torch.manual_seed(5)
    cut_off(tiny, SGD(lr=0.1), tmp_path / "c", 4, steps=9, observe=[Walk([])])
    torch.manual_seed(5)
    again: list[float] = []
    run, said = gone_on(tiny, SGD(lr=0.1), tmp_path / "c", steps=9, observe=[Walk(again)])
    assert said == ["training: goes on from step 4 of 9"]
    xr.testing.assert_identical(run, whole)
    assert again == seen


class Unkept(Observer):
    """Remembers what no file can hold; `kept`: says itself what must be remembered."""

    variables: Mapping[str, Variable] = {"calls": Variable((), "calls")}

    def __init__(self) -> None:
        self.calls = iter(range(100))

    def observe(self, view: View) -> Mapping[str, Any]:
        return {"calls": next(self.calls)}


class Kept(Unkept):
    def memory(self) -> Mapping[str, Any]:
        self.calls = iter(rest := list(self.calls))
        return {"next": rest[0]}

    def restore(self, memory: Mapping[str, Any]) -> None:
        self.calls = iter(range(memory["next"], 100))


class LateSecret(Observer):
    """Comes to hold an object of nm_ode that the next run would not be given."""

    variables: Mapping[str, Variable] = {"one": Variable((), "one")}

    def observe(self, view: View) -> Mapping[str, Any]:
        self.secret = SGD(lr=float(view.loss))
        return {"one": self.secret.lr}


@pytest.mark.parametrize(("kind", "name"), [(Unkept, "calls"), (LateSecret, "secret")])
def test_no_checkpoint_where_an_observer_cannot_be_kept(
    tiny: Problem, kind, name: str, tmp_path: Path
) -> None:
    said = cut_off(tiny, SGD(lr=0.1), tmp_path / "c", 4, steps=9, observe=[kind()])
    assert len(said) == 1
    assert "no checkpoint is kept" in said[0]
    assert f"{name!r}" in said[0]
    assert not list(tmp_path.iterdir())
    run, _ = gone_on(tiny, SGD(lr=0.1), tmp_path / "c", steps=9, observe=[kind()])
    xr.testing.assert_identical(run, train(tiny, SGD(lr=0.1), 9, observe=[kind()]))


def test_an_observer_may_say_itself_what_it_remembers(tiny: Problem, tmp_path: Path) -> None:
    cut_off(tiny, SGD(lr=0.1), tmp_path / "c", 4, steps=9, observe=[Kept()])
    run, said = gone_on(tiny, SGD(lr=0.1), tmp_path / "c", steps=9, observe=[Kept()])
    assert said == ["training: goes on from step 4 of 9"]
    np.testing.assert_array_equal(run["calls"], range(9))
