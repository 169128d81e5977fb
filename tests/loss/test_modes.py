"""The caller's modes of torch, and what was made in them, change no number."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Problem
from nm_ode.loss.noise import gradient_noise
from nm_ode.loss.nonsmooth import kinks

GENERATOR = torch.Generator().manual_seed(7)
X = torch.randn(24, 4, dtype=torch.float64, generator=GENERATOR)
Y = torch.randn(24, 2, dtype=torch.float64, generator=GENERATOR)
OPTIMIZER = nm_ode.SGD(lr=0.1, momentum=0.5)


def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def everything(problem: Problem, theta: Tensor | None = None) -> dict[str, Any]:
    theta = problem.theta0 if theta is None else theta
    v = torch.ones(len(theta), dtype=theta.dtype, device="cpu")
    thetas, rows = torch.stack([theta, 2 * theta]), torch.tensor([[1, 2], [3, 4]], device="cpu")
    run = nm_ode.train(problem, OPTIMIZER, steps=5, theta0=theta, batch_size=7)
    found = {
        "loss": problem.loss(theta),
        "grad": problem.grad(theta),
        "hvp": problem.hvp(theta, v),
        "third": problem.third_derivative(theta, v),
        "samples": problem.sample_grads(theta),
        "ensemble": problem.ensemble_loss_and_grad(thetas, rows)[1],
        "train": run["theta"].values,
        "noise": gradient_noise(problem, theta, 4).total,
        "kinks": len(kinks(problem)),
        "reduction": len(problem.reduction or ""),
    }
    if problem.dtype == torch.float64:
        flow = nm_ode.modified_flow(problem, OPTIMIZER, 2)
        found["solve"] = nm_ode.solve(flow, [0.0, 0.5], theta0=theta)["theta"].values
    return {name: torch.as_tensor(value, dtype=torch.float64, device="cpu") for name, value in found.items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default float64": lambda: default_dtype(torch.float64),
    "default float16": lambda: default_dtype(torch.float16),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_callers_modes_change_no_number(mode: str, dtype: torch.dtype) -> None:
    given = model()
    outside = Problem(given, F.mse_loss, (X, Y), dtype=dtype)
    expected = everything(outside)
    with MODES[mode]():
        inside = Problem(given, F.mse_loss, (X, Y), dtype=dtype)
        assert_same(expected, everything(inside))
        assert_same(expected, everything(outside))
        assert torch.is_grad_enabled() == (mode not in ("no_grad", "inference_mode"))
    assert_same(expected, everything(inside))


def test_what_was_made_in_inference_mode_is_taken() -> None:
    given = model()
    expected = everything(Problem(given, F.mse_loss, (X, Y)))
    with torch.inference_mode():
        x, y, made = X.clone(), Y.clone(), model()
    problem = Problem(made, F.mse_loss, (x, y))
    with torch.inference_mode():
        theta = problem.theta0.clone()
    assert_same(expected, everything(problem, theta))


def test_weights_made_in_inference_mode_are_taken_by_a_loss() -> None:
    classes = torch.arange(24) % 2
    with torch.inference_mode():
        weight = torch.tensor([1.0, 3.0])
        inferred = nn.CrossEntropyLoss(weight=weight)
    ordinary = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))
    one, other = (Problem(nn.Linear(4, 2), loss, (X, classes)) for loss in (inferred, ordinary))
    assert torch.equal(one.hvp(other.theta0, other.theta0), other.hvp(other.theta0, other.theta0))


def test_another_default_device_changes_no_number() -> None:
    given = model()
    problem = Problem(given, F.mse_loss, (X, Y))
    theta, v = problem.theta0, torch.ones(problem.layout.size, dtype=torch.float64)

    def found() -> list[Tensor]:
        made = Problem(given, F.mse_loss, (X, Y), chunk_size=9)
        run = nm_ode.train(made, OPTIMIZER, steps=5, batch_size=7)
        flow = nm_ode.solve(nm_ode.GradientFlow(made), [0.0, 0.5])
        some = nm_ode.Members(seed=[0, 1], lr=[0.01, 0.02])
        observers = [nm_ode.Statistics(), nm_ode.Curvature(2)]
        of_members = nm_ode.train(made, OPTIMIZER, steps=5, batch_size=7, members=some, observe=observers)
        arrays = [torch.from_numpy(dataset["theta"].values) for dataset in (run, flow, of_members)]
        return [
            made.loss(theta),
            made.hvp(theta, v),
            made.sample_grads(theta, slice(None, None, -1)),
            *arrays,
        ]

    expected = found()
    with torch.device("meta"):  # has no values: whatever were made there would fail
        again = found()
    assert all(map(torch.equal, expected, again))
