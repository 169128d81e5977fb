"""Norms, inner products and cosines of a loop: against its vectors, kept whole and multiplied in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode import (
    SGD,
    Adam,
    Checkpoint,
    GradientFlow,
    Observer,
    Problem,
    Recorder,
    Statistics,
    Variable,
    solve,
    train,
)
from nm_ode.errors import ArgumentError

STEPS = 6


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 2)).to(
        dtype
    )


def batches(dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [
        (torch.randn(7, 1, 4, 4, dtype=dtype, generator=draw), torch.randint(2, (7,), generator=draw))
        for _ in range(STEPS)
    ]


def kept_whole(make: Callable[..., torch.optim.Optimizer], state: str | None) -> dict[str, Tensor]:
    """θ_k, g_k, Δθ_k and the momentum of each step of the loop without a recorder, (steps, P)."""
    model = network()
    optimizer = make(model.parameters())
    found: dict[str, list[Tensor]] = {"theta": [], "g": [], "update": [], "v": []}
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        theta = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        found["g"].append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]).clone())
        optimizer.step()
        found["theta"].append(theta)
        found["update"].append(nn.utils.parameters_to_vector(model.parameters()).detach() - theta)
        memory = [optimizer.state[p].get(state, torch.zeros_like(p)) for p in model.parameters()]
        found["v"].append(torch.cat([one.detach().reshape(-1) for one in memory]))
    return {name: torch.stack(rows) for name, rows in found.items()}


def recorded(make: Callable[..., torch.optim.Optimizer], *observe: Observer) -> Any:
    model = network()
    optimizer = make(model.parameters())
    with Recorder(model, optimizer, observe=observe) as recorder:
        for x, y in batches():
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    return recorder.run


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], str | None]] = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.1), None),
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01), "momentum_buffer"),
    # torch then adds the momentum to the gradient where it lies.
    "nesterov": (
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, foreach=True),
        "momentum_buffer",
    ),
    "adam": (lambda p: torch.optim.Adam(p, lr=0.01), "exp_avg"),
    "unknown": (lambda p: torch.optim.Adagrad(p, lr=0.05), None),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_is_what_the_whole_vectors_give(name: str) -> None:
    make, state = OPTIMIZERS[name]
    run, whole = recorded(make, Statistics()), kept_whole(make, state)
    layers = {"0": slice(0, 30), "3": slice(30, 95), "4": slice(95, 107)}
    assert list(run["layer"].values) == list(layers)
    for prefix, parts in (("", {"": slice(None)}), ("layer_", layers)):
        for i, part in enumerate(parts.values()):
            theta, g, update, v = (whole[one][:, part] for one in ("theta", "g", "update", "v"))
            expected = {
                "theta_norm": theta.norm(dim=1),
                "theta_gradient": dot(theta, g),
                "theta_update": dot(theta, update),
                "gradient_update": dot(g, update),
                "gradient_cosine": torch.cat(
                    [torch.tensor([np.nan]), F.cosine_similarity(g[1:], g[:-1], dim=1)]
                ),
                **({} if state is None else {"momentum_norm": v.norm(dim=1)}),
            }
            for variable, values in expected.items():
                found = run[prefix + variable].values
                np.testing.assert_allclose(
                    found[:, i] if prefix else found,
                    values,
                    rtol=1e-11,
                    atol=1e-14,
                    err_msg=prefix + variable,
                )
            of_run = ("grad_norm", g.norm(dim=1)), ("update_norm", update.norm(dim=1))
            for variable, values in of_run:
                found = run[prefix + variable].values
                np.testing.assert_allclose(found[:, i] if prefix else found, values, rtol=1e-11)
    assert ("momentum_norm" in run) == (state is not None)


def test_an_unknown_optimisers_memory_by_its_own_name() -> None:
    make = lambda p: torch.optim.NAdam(p, lr=0.01)  # noqa: E731
    run, whole = recorded(make, Statistics(momentum="exp_avg")), kept_whole(make, "exp_avg")
    np.testing.assert_allclose(run["momentum_norm"], whole["v"].norm(dim=1), rtol=1e-12)


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1), SGD(lr=0.1, momentum=0.9, nesterov=True), Adam(lr=0.01)])
def test_a_recorded_loop_has_what_train_has(tanh_digits: Problem, optimizer: Any) -> None:
    problem = tanh_digits
    run = train(problem, optimizer, 4, observe=[Statistics()])
    model = problem.model
    nn.utils.vector_to_parameters(problem.theta0.clone(), model.parameters())
    theirs = optimizer.torch_optimizer(list(model.parameters()))
    with Recorder(model, theirs, observe=[Statistics()]) as recorder:
        for _ in range(4):
            theirs.zero_grad()
            F.cross_entropy(model(problem.x), problem.y).backward()
            theirs.step()
    names = [name for name in run.data_vars if "theta_" in name or "gradient_" in name or "momentum" in name]
    assert len(names) == (12 if "Adam" in repr(optimizer) or optimizer.momentum else 10)
    for name in names:
        np.testing.assert_allclose(recorder.run[name], run[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_some_steps_alone() -> None:
    make, _ = OPTIMIZERS["momentum"]
    run, whole = recorded(make, Statistics(every=2)), kept_whole(make, None)
    assert run["theta_norm"].dims == ("statistics_step",)
    assert list(run["statistics_step"].values) == [0, 2, 4]
    np.testing.assert_allclose(run["gradient_update"], dot(whole["g"], whole["update"])[::2], rtol=1e-12)
    cosines = F.cosine_similarity(whole["g"][2::2], whole["g"][:-2:2], dim=1)
    np.testing.assert_allclose(run["gradient_cosine"][1:], cosines, rtol=1e-12)


def test_without_a_copy_of_the_gradient() -> None:
    run = recorded(OPTIMIZERS["sgd"][0], Statistics(keep_gradient=False))
    assert "theta_update" in run
    assert "gradient_cosine" not in run
    assert "gradient_update" not in run


def test_no_angle_to_a_gradient_of_zero() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, observe=[Statistics()]) as recorder:
        for factor in (1.0, 0.0, 1.0, 2.0, -1.0):
            optimizer.zero_grad()
            (factor * model(torch.ones(1, 2)).sum()).backward()
            optimizer.step()
    np.testing.assert_allclose(recorder.run["gradient_cosine"], [np.nan, np.nan, np.nan, 1, -1], rtol=1e-6)


def test_parameters_in_half_precision_are_measured_in_float32() -> None:
    model = network(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    with Recorder(model, optimizer, observe=[Statistics()]) as recorder:
        for x, y in batches(torch.bfloat16):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            norms.append(
                float(torch.cat([p.detach().double().reshape(-1) for p in model.parameters()]).norm())
            )
            optimizer.step()
    np.testing.assert_allclose(recorder.run["theta_norm"], norms, rtol=1e-6)


def test_an_observer_of_the_users_own_sees_the_same_update_beside_it() -> None:
    class Update(Observer):
        update_variables = {"square": Variable((), "‖Δθ‖²")}  # noqa: RUF012

        def observe_update(self, view: Any) -> dict[str, Tensor]:
            return {"square": (view.update**2).sum()}

    make, _ = OPTIMIZERS["momentum"]
    alone = recorded(make, Statistics())
    for observers in ([Update(), Statistics()], [Statistics(), Update()]):
        run = recorded(make, *observers)
        np.testing.assert_allclose(run["square"], run["update_norm"] ** 2, rtol=1e-12)
        np.testing.assert_allclose(run["theta_update"], alone["theta_update"], rtol=1e-12)


def test_along_a_flow(tiny: Problem) -> None:
    solution = solve(GradientFlow(tiny), [0.0, 0.5, 1.0], observe=[Statistics()], check=False)
    theta = torch.from_numpy(solution["theta"].values)
    gradients = torch.stack([tiny.grad(one) for one in theta])
    np.testing.assert_allclose(solution["theta_norm"], theta.norm(dim=1), rtol=1e-12)
    np.testing.assert_allclose(solution["theta_gradient"], dot(theta, gradients), rtol=1e-9)
    assert "gradient_cosine" not in solution


def test_a_run_that_was_cut_off_goes_on_with_its_gradient(tiny: Problem, tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    keep = Checkpoint(tmp_path / "run.ckpt", 0)
    optimizer = SGD(lr=0.1, momentum=0.9)
    with pytest.raises(KeyboardInterrupt):
        train(tiny, optimizer, 6, observe=[Statistics()], checkpoint=keep, on_step=stop)
    again = train(tiny, optimizer, 6, observe=[Statistics()], checkpoint=keep)
    whole = train(tiny, optimizer, 6, observe=[Statistics()])
    for name in ("gradient_cosine", "layer_gradient_cosine", "gradient_update", "momentum_norm"):
        np.testing.assert_array_equal(again[name], whole[name])


@pytest.mark.parametrize("every", [0, -3, 1.5])
def test_every_is_a_count(every: Any) -> None:
    with pytest.raises(ArgumentError, match="every"):
        Statistics(every=every)
