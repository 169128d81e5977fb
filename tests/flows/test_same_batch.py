"""Beside minibatches: over each step's own samples, or over all; neither can be taken for the other."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import nn

from nm_ode import (
    SGD,
    Adam,
    CentralFlow,
    Cosine,
    Drop,
    FlowError,
    GradientFlow,
    MinibatchFlow,
    Problem,
    Warmup,
    compare,
    final_state,
    modified_flow,
    observed_order,
    solve,
    train,
)
from nm_ode.data import digits, sample_batches
from nm_ode.models import mlp


@pytest.fixture(scope="module")
def quadratic() -> Problem:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, dtype=torch.float64, generator=generator)
    y = torch.randn(12, 1, dtype=torch.float64, generator=generator)
    return Problem(nn.Linear(3, 1, bias=False), nn.functional.mse_loss, (x, y))


@pytest.fixture(scope="module")
def network() -> Problem:
    data = digits(60)
    return Problem(mlp([64, 6, 10], "tanh"), nn.functional.cross_entropy, (data.x, data.y))


@pytest.mark.parametrize("save_every", [1, 3])
def test_each_step_has_the_matrix_exponential_of_its_own_batch(quadratic: Problem, save_every: int) -> None:
    lr, steps = 0.1, 7
    run = train(quadratic, SGD(lr=lr), steps, batch_size=5, seed=4, save_every=save_every)
    solution = solve(MinibatchFlow.beside(GradientFlow(quadratic), run), run)
    theta, exact = quadratic.theta0.numpy(), [quadratic.theta0.numpy()]
    for batch, _ in zip(sample_batches(12, 5, 4), range(steps), strict=False):
        x, y = quadratic.x[batch].numpy(), quadratic.y[batch].numpy()
        hessian = 2 / len(x) * x.T @ x
        minimum = np.linalg.lstsq(x, y[:, 0], rcond=None)[
            0
        ]  # of least norm: the flow stays put along the rest
        theta = minimum + expm(-lr * hessian) @ (theta - minimum)
        exact.append(theta)
    saved = run["saved_step"].values
    np.testing.assert_allclose(solution["theta"], np.array(exact)[saved], rtol=1e-10, atol=1e-11)
    assert (solution.attrs["method"], solution.attrs["step"]) == ("RK8", lr)
    assert solution.attrs["rhs_evaluations"] == steps * 36  # twelve stages, and twenty-four for the check


@pytest.mark.parametrize(("sgd", "order"), [({}, 1), ({}, 2), ({"weight_decay": 0.1}, 3), ({}, 4)])
def test_the_error_is_the_discretisations_alone(network: Problem, sgd, order: int, monkeypatch) -> None:
    """It has the flow's order in lr, with the noise of the batches in both; at each lr the batches are the same."""
    ladder, errors = [0.08, 0.04, 0.02], []
    for lr in ladder:
        optimizer = SGD(lr=lr, **sgd)
        # Eight steps at the largest lr see eight batches; halved steps see each twice as long.
        repeat = round(0.08 / lr)
        flow = modified_flow(network, optimizer, order)
        with each_batch_for_several_steps(monkeypatch, repeat):
            run = train(network, optimizer, 8 * repeat, batch_size=20, save_every=8 * repeat)
            solution = solve(MinibatchFlow.beside(flow, run), run)
        comparison = compare(run, solution)
        assert not comparison["solver_limited"].any()
        errors.append(float(comparison["error"][-1]))
    assert abs(observed_order(ladder, errors).order - order) < 0.3


@contextmanager
def each_batch_for_several_steps(monkeypatch: pytest.MonkeyPatch, repeat: int):
    """Runs and flows whose batch changes every `repeat` steps."""

    def stretched(*arguments, **options):
        for batch in sample_batches(*arguments, **options):
            yield from [batch] * repeat

    with monkeypatch.context() as patched:
        patched.setattr("nm_ode.results.grid.sample_batches", stretched)
        yield


def test_it_is_far_closer_than_the_full_batch_flow(network: Problem) -> None:
    optimizer = SGD(lr=0.05)
    run = train(network, optimizer, 30, batch_size=20)
    flow = modified_flow(network, optimizer, 6)
    same = compare(run, solve(MinibatchFlow.beside(flow, run), run))
    full = compare(run, solve(flow, run))
    assert float(same["error"][-1]) < 1e-3 * float(full["error"][-1])


def test_a_stateful_optimiser_is_followed_closer_at_each_order(network: Problem) -> None:
    """Each change of batch starts a transient of the moments, so that no order in lr comes, but K still pays."""
    optimizer = Adam(lr=1e-3)
    warm = train(network, optimizer, 100, save_every=100)
    run = train(network, optimizer, 20, batch_size=20, state0=final_state(warm))
    errors = [
        float(
            compare(run, solve(MinibatchFlow.beside(modified_flow(network, optimizer, k), run), run))[
                "error"
            ][-1]
        )
        for k in (1, 2, 4)
    ]
    assert errors[2] < 0.2 * errors[1] < 0.05 * errors[0]


def test_names_say_which_samples(network: Problem) -> None:
    optimizer = SGD(lr=0.1)
    batches, full = (train(network, optimizer, 3, batch_size=size) for size in (20, "full"))
    flow = modified_flow(network, optimizer, 2)
    options = {"record": ["theta"], "check": False}
    same = MinibatchFlow.beside(flow, batches)
    found = [solve(*pair, **options).attrs for pair in ((same, batches), (flow, batches), (flow, full))]
    name, title = "modified_2_iterated_map", "modified flow, order 2, iterated-map form"
    assert [attrs["flow"] for attrs in found] == [f"same_batch_{name}", f"full_batch_{name}", name]
    assert [attrs["title"] for attrs in found] == [f"same-batch {title}", f"full-batch {title}", title]


def test_kinks_take_low_order_steps() -> None:
    data = digits(40)
    problem = Problem(mlp([64, 6, 10], "relu"), nn.functional.cross_entropy, (data.x, data.y))
    run = train(problem, SGD(lr=0.1), 4, batch_size=20)
    solution = solve(MinibatchFlow.beside(GradientFlow(problem), run), run)
    assert solution.attrs["method"] == "Midpoint"
    assert solution.attrs["step"] == pytest.approx(0.1 / 6)
    assert "jumps from step to step and has kinks (ReLU)" in solution.attrs["choice"]


def test_between_its_jumps_the_field_can_be_asked_for(network: Problem) -> None:
    run = train(network, SGD(lr=0.1), 4, batch_size=20)
    flow = MinibatchFlow.beside(GradientFlow(network), run)
    theta = network.theta0
    for step in range(4):
        assert torch.equal(flow.rhs(0.1 * (step + 0.5), theta), flow.during(step).rhs(0.0, theta))
    assert not torch.equal(flow.rhs(0.05, theta), flow.rhs(0.15, theta))
    np.testing.assert_allclose(flow.jumps, [0.0, 0.1, 0.2, 0.3])


SCHEDULES = [Drop((3,), 0.25), Warmup(4), Cosine(0.1)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_under_a_schedule_each_batch_is_in_force_for_its_own_steps_time(quadratic: Problem, schedule) -> None:
    lr, steps = 0.1, 7
    run = train(quadratic, SGD(lr=lr), steps, batch_size=5, seed=4, schedule=schedule)
    solution = solve(MinibatchFlow.beside(GradientFlow(quadratic), run), run)
    theta, exact = quadratic.theta0.numpy(), [quadratic.theta0.numpy()]
    for batch, factor in zip(sample_batches(12, 5, 4), schedule.factors(steps), strict=False):
        x, y = quadratic.x[batch].numpy(), quadratic.y[batch].numpy()
        minimum = np.linalg.lstsq(x, y[:, 0], rcond=None)[0]
        theta = minimum + expm(-lr * factor * 2 / len(x) * x.T @ x) @ (theta - minimum)
        exact.append(theta)
    np.testing.assert_allclose(solution["theta"], np.array(exact), rtol=1e-10, atol=1e-11)


def test_a_run_on_other_data_is_refused(quadratic: Problem, network: Problem) -> None:
    run = train(quadratic, SGD(lr=0.1), 3, batch_size=5)
    with pytest.raises(FlowError, match="12 samples and the flow's problem on 60"):
        MinibatchFlow.beside(GradientFlow(network), run)


def test_a_same_batch_flow_of_one_is_refused(quadratic: Problem) -> None:
    run = train(quadratic, SGD(lr=0.1), 3, batch_size=5)
    with pytest.raises(FlowError, match="central flow is that of steps on all samples"):
        MinibatchFlow.beside(CentralFlow(quadratic, SGD(lr=0.1)), run)
    with pytest.raises(FlowError, match="own samples already"):
        MinibatchFlow.beside(MinibatchFlow.beside(GradientFlow(quadratic), run), run)
