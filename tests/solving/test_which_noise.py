"""Noise and stochastic flows: of which batches, measured where, and what they cannot represent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode
from nm_ode import (
    SGD,
    Adam,
    FlowError,
    GradientFlow,
    Problem,
    ProblemError,
    StochasticModifiedFlow,
    compare_ensembles,
    ensemble_info,
    gradient_noise,
    sgd_ensemble,
    solve_ensemble,
)
from nm_ode.comparison import AlignmentError
from nm_ode.errors import ArgumentError

N, B = 24, 6


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def problem_of(loss: Any, n: int = N, seed: int = 1, **options: Any) -> Problem:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
    return Problem(model, loss, (drawn(seed, n, 3), drawn(2, n, 2)), **options)


def root(z: Tensor, y: Tensor) -> Tensor:
    """Neither the mean nor the sum of its samples'."""
    return F.mse_loss(z, y).sqrt()


MEAN, SUM, ROOT = problem_of(F.mse_loss), problem_of(nn.MSELoss(reduction="sum")), problem_of(root)
LR, STEPS = 0.05, 12


def gradients_of_batches(problem: Problem, draws: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    batches = torch.randint(problem.n_samples, (draws, B), generator=generator)
    return torch.stack([problem.grad(problem.theta0, batch) for batch in batches])


@pytest.mark.parametrize("problem", [MEAN, SUM, ROOT], ids=["mean", "sum", "neither"])
def test_noise_is_the_covariance_of_drawn_batches(problem: Problem) -> None:
    expected = torch.cov(gradients_of_batches(problem, 4000).T)
    estimated = gradient_noise(problem, problem.theta0, B, draws=2000)
    found = [estimated] if problem is ROOT else [estimated, gradient_noise(problem, problem.theta0, B)]
    for noise in found:
        difference = noise.factor.T @ noise.factor - expected
        assert difference.norm() < 0.1 * expected.norm()
    assert (estimated.estimator, estimated.draws) == ("batches", 2000)
    exact = float(expected.trace()) if problem is ROOT else found[1].total
    spread = np.hypot(estimated.standard_error, exact * 0.02 if problem is ROOT else 0)
    assert 0 < estimated.standard_error < 0.05 * exact
    assert abs(estimated.total - exact) < 4 * spread


def test_the_standard_error_is_that_of_the_estimates() -> None:
    found = [gradient_noise(MEAN, MEAN.theta0, B, draws=50, seed=seed) for seed in range(60)]
    seen = np.std([noise.total for noise in found], ddof=1)
    assert np.mean([noise.standard_error for noise in found]) == pytest.approx(seen, rel=0.3)


def test_the_same_seed_draws_the_same_batches() -> None:
    one, same, other = (gradient_noise(ROOT, ROOT.theta0, B, draws=5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.factor, same.factor)
    assert not torch.equal(one.factor, other.factor)


def test_noise_says_where_and_how_it_was_measured() -> None:
    theta = MEAN.theta0 + 0.1
    noise = gradient_noise(MEAN, theta, B)
    assert torch.equal(noise.theta, theta)
    assert noise.loss == float(MEAN.loss(theta))
    assert (noise.estimator, noise.draws, noise.standard_error, noise.batch_size) == ("samples", None, 0.0, B)


def test_the_result_says_of_which_noise_it_is() -> None:
    theta = MEAN.theta0 + 0.1
    noise = gradient_noise(MEAN, theta, B, rank=2)
    paths = solve_ensemble(StochasticModifiedFlow(MEAN, SGD(lr=LR), noise), 0.2, members=2)
    info = ensemble_info(paths)
    assert (info.lr, info.noise_batch_size, info.noise_kind) == (LR, B, "low_rank")
    assert (info.noise_estimator, info.noise_captured) == ("samples", pytest.approx(noise.captured))
    np.testing.assert_array_equal(paths.noise_theta, theta)
    np.testing.assert_array_equal(paths.start, MEAN.theta0)
    own = solve_ensemble(StochasticModifiedFlow(MEAN, SGD(lr=LR), noise.factor), 0.2, members=2)
    assert ensemble_info(own).noise_batch_size is None
    assert "noise_theta" not in own
    np.testing.assert_array_equal(own.theta, paths.theta)


@pytest.mark.parametrize("order", [1, 2])
def test_a_sum_is_followed_in_distribution_as_a_mean_is(order: int) -> None:
    """The same process: over a batch of 6 with 2 outputs the sum is 12 times the mean, and lr so much smaller."""
    ends = []
    for problem, lr in ((MEAN, LR), (SUM, LR / (2 * B))):
        noise = gradient_noise(problem, problem.theta0, B)
        flow = StochasticModifiedFlow(problem, SGD(lr=lr), noise, order)
        ends.append(solve_ensemble(flow, STEPS * lr, members=3, seed=4)["theta"].values)
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-9)


def test_sgd_on_batches_of_a_sum_is_followed_in_distribution() -> None:
    optimizer = SGD(lr=LR / (2 * B))
    runs = sgd_ensemble(SUM, optimizer, STEPS, batch_size=B, members=80, seed=1)
    middle = torch.from_numpy(runs["theta"].values.mean(axis=0)).add(SUM.theta0).div(2)
    flow = StochasticModifiedFlow(SUM, optimizer, gradient_noise(SUM, middle, B))
    paths = solve_ensemble(flow, ensemble_info(runs).time, members=80, seed=2)
    difference = compare_ensembles(runs, paths)
    assert difference.mean < 4 * difference.mean_noise
    assert difference.energy < 0.06


NOISE = gradient_noise(MEAN, MEAN.theta0, B)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: StochasticModifiedFlow(MEAN, Adam(lr=LR), NOISE), "Adam"),
        (lambda: StochasticModifiedFlow(MEAN, SGD(lr=LR, momentum=0.9), NOISE), "momentum = 0.9"),
        (lambda: StochasticModifiedFlow(MEAN, SGD(lr=LR), lambda theta: NOISE.factor), "constant in theta"),
        (lambda: StochasticModifiedFlow(MEAN, SGD(lr=LR), NOISE.factor[:, 1:]), r"has shape \(24, 7\)"),
        (lambda: StochasticModifiedFlow(MEAN, SGD(lr=LR), NOISE.factor[0, 0]), r"has shape \(\)"),
        (
            lambda: StochasticModifiedFlow(MEAN, SGD(lr=LR), NOISE.factor * torch.nan),
            "no finite real numbers",
        ),
        (lambda: StochasticModifiedFlow(MEAN, SGD(lr=LR), NOISE.factor * 0), "there is no noise"),
        (lambda: StochasticModifiedFlow(SUM, SGD(lr=LR), NOISE), "measured on a problem whose loss was"),
        (
            lambda: StochasticModifiedFlow(problem_of(F.mse_loss, seed=8), SGD(lr=LR), NOISE),
            "flow's own problem",
        ),
        (lambda: StochasticModifiedFlow(SUM, SGD(lr=LR), NOISE.factor), "a bare factor does not say"),
        (
            lambda: StochasticModifiedFlow(ROOT, SGD(lr=LR), gradient_noise(ROOT, ROOT.theta0, B, draws=9)),
            "neither the mean nor the sum",
        ),
        (lambda: StochasticModifiedFlow(ROOT, SGD(lr=LR), NOISE.factor), "neither the mean nor the sum"),
    ],
)
def test_a_flow_that_cannot_represent_it_is_refused(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(FlowError, match=sentence):
        make()


def test_one_sample_has_no_noise() -> None:
    one = problem_of(F.mse_loss, 1)
    noise = gradient_noise(one, one.theta0, 1)
    assert noise.total == 0
    with pytest.raises(FlowError, match="there is no noise"):
        StochasticModifiedFlow(one, SGD(lr=LR), noise)


def test_the_drift_has_the_weight_decay_and_the_noise_does_not() -> None:
    flow = StochasticModifiedFlow(MEAN, SGD(lr=LR, weight_decay=0.1), NOISE, 1)
    theta = MEAN.theta0 + 0.2
    torch.testing.assert_close(flow.drift(theta), -MEAN.grad(theta) - 0.1 * theta)
    torch.testing.assert_close(flow.factor, LR**0.5 * NOISE.factor)


def test_in_float32_the_factor_is_the_problems() -> None:
    problem = problem_of(F.mse_loss, dtype=torch.float32)
    flow = StochasticModifiedFlow(problem, SGD(lr=LR), NOISE.factor)
    assert flow.factor.dtype == torch.float32
    torch.testing.assert_close(flow.factor.double(), LR**0.5 * NOISE.factor, rtol=1e-6, atol=1e-8)
    assert solve_ensemble(flow, 0.2, members=2)["theta"].dtype == np.float32


FLOW = StochasticModifiedFlow(MEAN, SGD(lr=LR), NOISE)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: gradient_noise(ROOT, ROOT.theta0, B), ProblemError, "give draws"),
        (lambda: gradient_noise(MEAN, MEAN.theta0, B, draws=1), ArgumentError, "draws must be at least 2"),
        (
            lambda: gradient_noise(MEAN, MEAN.theta0, B, draws=4, rank=5),
            ArgumentError,
            "rank must be from 1 to 4",
        ),
        (lambda: gradient_noise(MEAN, MEAN.theta0 * torch.nan, B), ProblemError, "both are finite"),
        (lambda: solve_ensemble(GradientFlow(MEAN), 1.0, members=2), ArgumentError, "StochasticModifiedFlow"),
        (
            lambda: solve_ensemble(FLOW, float("nan"), members=2),
            ArgumentError,
            "time must be a positive number",
        ),
        (
            lambda: solve_ensemble(FLOW, 1.0, members=2, step=0.0),
            ArgumentError,
            "step must be a positive number",
        ),
        (lambda: solve_ensemble(FLOW, 1.0, members=0), ArgumentError, "members must be at least 1"),
        (
            lambda: solve_ensemble(FLOW, 1.0, members=2, theta0=torch.zeros(3)),
            ArgumentError,
            "theta0 has shape",
        ),
        (lambda: sgd_ensemble(MEAN, SGD(lr=LR), 2, batch_size=25, members=2), ArgumentError, "from 1 to 24"),
        (lambda: sgd_ensemble(MEAN, SGD(lr=LR), 2, batch_size=0, members=2), ArgumentError, "at least 1"),
        (
            lambda: sgd_ensemble(MEAN, SGD(lr=LR), -1, batch_size=4, members=2),
            ArgumentError,
            "steps must be at least 0",
        ),
        (
            lambda: sgd_ensemble(MEAN, SGD(lr=LR), 1, batch_size=4, members=0),
            ArgumentError,
            "members must be",
        ),
        (lambda: nm_ode.MinibatchFlow(FLOW, None), ArgumentError, "flow must be a flow"),
    ],
)
def test_what_does_not_exist_is_named(make: Callable[[], Any], error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        make()


def runs(lr: float = LR, steps: int = 4, **options: Any) -> xr.Dataset:
    return sgd_ensemble(MEAN, SGD(lr=lr), steps, members=4, **({"batch_size": B} | options))


def paths(lr: float = LR, time: float = 4 * LR, batch_size: int = B, **options: Any) -> xr.Dataset:
    noise = gradient_noise(MEAN, MEAN.theta0, batch_size)
    return solve_ensemble(StochasticModifiedFlow(MEAN, SGD(lr=lr), noise), time, members=4, **options)


@pytest.mark.parametrize(
    ("one", "other", "sentence"),
    [
        (runs, lambda: paths(time=5 * LR), "end at different times"),
        (runs, lambda: paths(theta0=MEAN.theta0 + 0.01), "start at different theta"),
        (runs, lambda: paths(lr=LR / 2), "paths are of lr = 0.025 and the runs of lr = 0.05"),
        (lambda: paths(batch_size=8), runs, "noise is that of batches of 8, and the runs have batches of 6"),
        (runs, lambda: nm_ode.train(MEAN, SGD(lr=LR), 4), "dimensions member and param"),
        (
            lambda: runs(steps=0),
            lambda: runs(steps=0),
            "end at different times|members of neither ensemble differ",
        ),
        (
            lambda: runs(lr=1e3, steps=400),
            lambda: runs(lr=1e3, steps=400),
            "members of the first ensemble diverged",
        ),
    ],
)
def test_ensembles_that_are_not_of_one_process_are_refused(one: Any, other: Any, sentence: str) -> None:
    with pytest.raises(AlignmentError, match=sentence):
        compare_ensembles(one(), other())


def test_runs_of_two_learning_rates_may_be_compared_at_one_time() -> None:
    assert compare_ensembles(runs(), runs(lr=LR / 2, steps=8)).mean >= 0
    assert compare_ensembles(runs(), paths()).mean >= 0
