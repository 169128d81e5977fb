"""A same-batch flow along many steps of a convolutional network, with sketches in place of thetas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from nm_ode import SGD, MinibatchFlow, Problem, Sketch, compare, modified_flow, solve, solve_info, train
from nm_ode.data.indices import Samples
from nm_ode.data.sources import TensorSource
from nm_ode.models import vgg

STEPS, BATCH = 100, 4


class Counted:
    """Samples that are not kept in memory by a problem, and how often some were read."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self._samples, self.taken = TensorSource((x, y)), list[Samples]()

    def __len__(self) -> int:
        return len(self._samples)

    def take(self, indices: Samples) -> object:
        self.taken.append(indices)
        return self._samples.take(indices)


@pytest.fixture(scope="module")
def source() -> Counted:
    drawn = torch.Generator("cpu").manual_seed(0)
    y = torch.randint(0, 4, (40,), generator=drawn)
    x = torch.randn(40, 3, 8, 8, generator=drawn) + torch.randn(4, 3, 8, 8, generator=drawn)[y]
    return Counted(x, y)


@pytest.fixture(scope="module")
def problem(source: Counted) -> Problem:
    model = vgg(plan=[8, "M", 16, "M"], classes=4, image=8, hidden=())
    return Problem(model, nn.functional.cross_entropy, source, dtype=torch.float32, chunk_size=20)


@pytest.fixture(scope="module")
def run(problem: Problem) -> xr.Dataset:
    return train(problem, SGD(lr=0.005), STEPS, batch_size=BATCH, save_every=25, observe=[Sketch(256)])


def test_a_step_of_the_solver_for_each_of_the_optimiser(
    problem: Problem, run: xr.Dataset, source: Counted
) -> None:
    optimizer = SGD(lr=0.005)
    flow = MinibatchFlow.beside(modified_flow(problem, optimizer, 2), run)
    source.taken.clear()
    solution = solve(
        flow,
        run,
        theta0=problem.theta0,
        engine="torch",
        method="Midpoint",
        step=optimizer.lr,
        record=(),
        observe=[Sketch(256)],
    )
    info = solve_info(solution)
    # One step and two halves of it, of two stages each; every batch is read once, the first also for the start.
    assert (info.steps, info.rhs_evaluations) == (STEPS, 6 * STEPS)
    assert sum(torch.is_tensor(one) and len(one) == BATCH for one in source.taken) <= STEPS + 2
    assert set(solution.data_vars) == {"theta_sketch", "sketch_seed", "sketch_parts", "solver_error"}
    compared = compare(run, solution)
    motion = np.linalg.norm(run["theta_sketch"][-1] - run["theta_sketch"][0])
    assert float(compared["error"][-1]) < 0.1 * motion
    # It is kinked and in float32, and says how well it is solved.
    assert 1e-5 * motion < float(solution["solver_error"][-1]) < 0.1 * motion


def test_auto_takes_what_the_kinks_allow(problem: Problem, run: xr.Dataset, monkeypatch) -> None:
    monkeypatch.setattr("bridges.choosing.LARGE", problem.layout.size)
    flow = MinibatchFlow.beside(modified_flow(problem, SGD(lr=0.005), 1), run.isel(saved_step=slice(0, 1)))
    info = solve_info(solve(flow, [0.0, 0.01], record=("theta",)))
    assert (info.engine, info.method) == ("torch", "Midpoint")
    assert f"{problem.layout.size:,} numbers" in info.choice
