"""A loop of one's own, recorded, is the run that `train` gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional as F

import nm_ode
from nm_ode.data import digits
from nm_ode.models import mlp
from nm_ode.optimizers import TorchScalarRMSprop

STEPS = 12

OPTIMIZERS: dict[str, nm_ode.Optimizer] = {
    "plain": nm_ode.SGD(lr=0.1),
    "momentum, decay, dampening": nm_ode.SGD(lr=0.02, momentum=0.9, dampening=0.3, weight_decay=1e-3),
    "nesterov": nm_ode.SGD(lr=0.02, momentum=0.9, nesterov=True),
    "adam": nm_ode.Adam(lr=0.01, betas=(0.8, 0.95), weight_decay=1e-3),
    "adamw": nm_ode.AdamW(lr=0.01),
    "rmsprop": nm_ode.RMSprop(lr=0.01, alpha=0.9, momentum=0.5, centered=True, weight_decay=1e-3),
    "scalar rmsprop": nm_ode.ScalarRMSprop(lr=0.1, alpha=0.9),
}


@pytest.fixture(scope="module")
def problem() -> nm_ode.Problem:
    data = digits(64)
    return nm_ode.Problem(mlp([64, 8, 10], "relu"), F.cross_entropy, (data.x, data.y))


def torch_options(optimizer: nm_ode.Optimizer) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    if isinstance(optimizer, nm_ode.ScalarRMSprop):
        return TorchScalarRMSprop, vars(optimizer)
    return getattr(torch.optim, type(optimizer).__name__), vars(optimizer)


def recorded(
    problem: nm_ode.Problem,
    optimizer: nm_ode.Optimizer,
    *,
    schedule: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
    **options: Any,
) -> xr.Dataset:
    model = mlp([64, 8, 10], "relu").double()
    torch.nn.utils.vector_to_parameters(problem.theta0.clone(), model.parameters())
    kind, hyperparameters = torch_options(optimizer)
    torch_optimizer = kind(model.parameters(), **hyperparameters)
    scheduler = schedule(torch_optimizer) if schedule else None
    with nm_ode.Recorder(
        model, torch_optimizer, save_every=5, full_batch=True, problem=problem, **options
    ) as recorder:
        for _ in range(STEPS):
            torch_optimizer.zero_grad()
            loss = F.cross_entropy(model(problem.x), problem.y)
            loss.backward()
            recorder.loss(loss)
            torch_optimizer.step()
            if scheduler:
                scheduler.step()
    return recorder.run


def assert_same(found: xr.Dataset, wanted: xr.Dataset) -> None:
    # In `train` the optimiser's settings never change, so there they are no variable.
    assert set(found.variables) - {"sgd_settings"} == set(wanted.variables)
    for name in wanted.variables:
        assert found[name].dims == wanted[name].dims, name
        if wanted[name].dtype.kind == "f":
            scale = max(1.0, float(np.abs(wanted[name]).max()))
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9, atol=1e-12 * scale, err_msg=name)
        else:
            assert found[name].values.tolist() == wanted[name].values.tolist(), name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_variable_is_that_of_train(problem: nm_ode.Problem, name: str) -> None:
    optimizer = OPTIMIZERS[name]
    charges = nm_ode.Charges(nm_ode.symmetries_of(problem))
    run = recorded(problem, optimizer, observe=[charges])
    reference = nm_ode.train(problem, optimizer, STEPS, save_every=5, observe=[charges])
    assert_same(run, reference)
    mine, theirs = nm_ode.run_info(run), nm_ode.run_info(reference)
    for fact in (
        "optimizer",
        "hyperparameters",
        "optimizer_text",
        "time_per_step",
        "stateful",
        "layout",
        "status",
    ):
        assert getattr(mine, fact) == getattr(theirs, fact), fact
    assert not mine.beyond_laws


def test_a_schedule_is_that_of_train(problem: nm_ode.Problem) -> None:
    optimizer = nm_ode.SGD(lr=0.05, momentum=0.9)
    charges = nm_ode.Charges(nm_ode.symmetries_of(problem))

    def cosine(torch_optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.CosineAnnealingLR(torch_optimizer, STEPS)

    run = recorded(problem, optimizer, schedule=cosine, observe=[charges])
    factors = (1 + np.cos(np.pi * np.arange(STEPS) / STEPS)) / 2
    np.testing.assert_allclose(run.lr, 0.05 * factors, rtol=1e-12)

    class Given:
        def factors(self, steps: int) -> np.ndarray:
            return factors

    reference = nm_ode.train(problem, optimizer, STEPS, save_every=5, observe=[charges], schedule=Given())
    assert_same(run, reference)
    predicted = nm_ode.predict_charges(run, "exact")
    np.testing.assert_allclose(predicted.charge, run.charge, atol=1e-13)


def test_flows_take_a_recorded_run(problem: nm_ode.Problem) -> None:
    optimizer = nm_ode.SGD(lr=0.05, momentum=0.5)
    run = recorded(problem, optimizer)
    flow = nm_ode.modified_flow(problem, optimizer, 2)
    mine, theirs = (
        nm_ode.compare(one, nm_ode.solve(flow, one, check=False)).error
        for one in (run, nm_ode.train(problem, optimizer, STEPS, save_every=5))
    )
    np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["momentum, decay, dampening", "adam"])
def test_a_warm_start_is_said_and_starts_from_the_state(problem: nm_ode.Problem, name: str) -> None:
    optimizer = OPTIMIZERS[name]
    model = mlp([64, 8, 10], "relu").double()
    torch.nn.utils.vector_to_parameters(problem.theta0.clone(), model.parameters())
    kind, options = torch_options(optimizer)
    torch_optimizer = kind(model.parameters(), **options)

    def steps() -> xr.Dataset:
        with nm_ode.Recorder(model, torch_optimizer, save_every=5, full_batch=True) as recorder:
            for _ in range(STEPS):
                torch_optimizer.zero_grad()
                F.cross_entropy(model(problem.x), problem.y).backward()
                torch_optimizer.step()
        return recorder.run

    first, second = steps(), steps()
    np.testing.assert_array_equal(first.final_state, second.initial_state)
    assert not nm_ode.run_info(first).warm_start
    assert nm_ode.run_info(second).warm_start
    reference = nm_ode.train(problem, optimizer, STEPS, state0=nm_ode.final_state(first), save_every=5)
    np.testing.assert_allclose(second.theta, reference.theta, atol=1e-12)
    assert np.isnan(second.loss).all()  # none was given
