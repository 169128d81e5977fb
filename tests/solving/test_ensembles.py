"""Noise, ensembles and their comparison: against closed forms of linear diffusions, and SGD itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.linalg import expm, solve_continuous_lyapunov
from torch import nn

from bridges import EngineError, UnknownMethodError
from bridges.julia.installing import installation
from nm_ode import (
    SGD,
    ArgumentError,
    FlowError,
    Problem,
    StochasticModifiedFlow,
    compare_ensembles,
    gradient_noise,
    sgd_ensemble,
    solve_ensemble,
)
from nm_ode.comparison import AlignmentError
from tests.oracles.dense import dense_hessian, dense_loss

NO_JULIA = installation().lacks
needs_julia = [pytest.mark.julia, pytest.mark.skipif(bool(NO_JULIA), reason=f"no Julia: {NO_JULIA}")]


@pytest.fixture(scope="module")
def quadratic() -> Problem:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, dtype=torch.float64, generator=generator)
    y = x @ torch.tensor([[1.0], [-1.0], [0.5]]).double() + torch.randn(
        40, 1, dtype=torch.float64, generator=generator
    )
    model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.2, 0.4, -0.3]]))
    return Problem(model, nn.functional.mse_loss, (x, y))


def hessian(problem: Problem) -> np.ndarray:
    return dense_hessian(
        dense_loss(problem.model, problem.loss_fn, problem.x, problem.y), problem.theta0
    ).numpy()


@pytest.mark.parametrize("batch_size", [1, 5])
def test_noise_is_the_covariance_of_a_batchs_gradient(quadratic: Problem, batch_size: int) -> None:
    theta = quadratic.theta0
    noise = gradient_noise(quadratic, theta, batch_size)
    generator = torch.Generator().manual_seed(1)
    of_samples = torch.stack([quadratic.grad(theta, torch.tensor([i])) for i in range(40)])
    torch.testing.assert_close(quadratic.grad(theta, torch.tensor([7, 3])), of_samples[[7, 3]].mean(0))
    batches = torch.randint(40, (20_000, batch_size), generator=generator)
    drawn = of_samples[batches].mean(1).numpy()
    exact = noise.factor.T.numpy() @ noise.factor.numpy()
    np.testing.assert_allclose(np.cov(drawn.T), exact, rtol=0, atol=0.05 * np.abs(exact).max())
    assert noise.captured == pytest.approx(1)
    assert noise.total == pytest.approx(np.trace(exact))


def test_diagonal_and_low_rank_are_parts_of_it(quadratic: Problem) -> None:
    whole = gradient_noise(quadratic, quadratic.theta0, 4)
    exact = (whole.factor.T @ whole.factor).numpy()
    diagonal = gradient_noise(quadratic, quadratic.theta0, 4, kind="diagonal")
    np.testing.assert_allclose(diagonal.factor.square(), np.diag(exact), rtol=1e-12)
    values, vectors = np.linalg.eigh(exact)
    one = gradient_noise(quadratic, quadratic.theta0, 4, rank=1)
    np.testing.assert_allclose(
        (one.factor.T @ one.factor).numpy(),
        values[-1] * np.outer(vectors[:, -1], vectors[:, -1]),
        rtol=1e-9,
        atol=1e-12,
    )
    assert one.captured == pytest.approx(values[-1] / values.sum())
    assert (diagonal.directions, one.directions) == (3, 1)
    normal = torch.ones(1, dtype=torch.float64)
    torch.testing.assert_close(one.along(normal), one.factor[0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kind": "full"}, "kind must be 'diagonal' or 'low_rank'; 'full'"),
        ({"rank": 0}, "rank must be from 1 to 40"),
    ],
)
def test_noise_that_does_not_exist_is_named(quadratic: Problem, options, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        gradient_noise(quadratic, quadratic.theta0, 4, **options)
    with pytest.raises(ValueError, match="batch_size must be from 1 to 40; 41"):
        gradient_noise(quadratic, quadratic.theta0, 41)


def ornstein_uhlenbeck(
    problem: Problem, flow: StochasticModifiedFlow, time: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance at `time`: dθ = −A(θ − θ*)dt + F dW."""
    a = hessian(problem)
    if flow.order == 2:
        a = a + flow.optimizer.lr / 2 * a @ a
    h = hessian(problem)
    minimum = problem.theta0.numpy() - np.linalg.solve(h, problem.grad(problem.theta0).numpy())
    factor = flow.factor.numpy()
    q = np.diag(factor**2) if factor.ndim == 1 else factor.T @ factor
    stationary = solve_continuous_lyapunov(a, q)
    decay = expm(-a * time)
    return minimum + decay @ (problem.theta0.numpy() - minimum), stationary - decay @ stationary @ decay.T


@pytest.mark.parametrize(
    ("engine", "order", "kind"),
    [
        *(("torch", order, kind) for order in (1, 2) for kind in ("diagonal", "low_rank")),
        # The order is the drift's, which the engines evaluate alike: each of both once.
        *(("stand-in", order, kind) for order, kind in ((1, "diagonal"), (2, "low_rank"))),
        *(
            pytest.param("diffeq", order, kind, marks=needs_julia)
            for order in (1, 2)
            for kind in ("diagonal", "low_rank")
        ),
    ],
)
def test_paths_have_the_mean_and_covariance_of_the_linear_diffusion(
    quadratic: Problem, engine: str, order: int, kind, request
) -> None:
    if engine == "stand-in":
        request.getfixturevalue("stand_in")
        engine = "diffeq"
    noise = gradient_noise(quadratic, quadratic.theta0, 4, kind=kind)
    flow = StochasticModifiedFlow(quadratic, SGD(lr=0.1), noise.factor, order)
    paths = solve_ensemble(flow, 0.6, members=400, engine=engine, step=0.02, seed=3)["theta"].values
    mean, covariance = ornstein_uhlenbeck(quadratic, flow, 0.6)
    sigma = np.sqrt(np.diag(covariance) / len(paths))
    assert (
        np.abs(paths.mean(axis=0) - mean) < 4 * sigma + 0.03 * np.abs(mean - quadratic.theta0.numpy())
    ).all()
    assert np.linalg.norm(np.cov(paths.T) - covariance) < 0.25 * np.linalg.norm(covariance)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", ["diagonal", "low_rank"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_members_that_step_together_are_those_that_step_alone(order: int, kind, reduction: str) -> None:
    """Each draws from one stream all its noise before the next one, of a flow with weight decay."""
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.randn(12, n, dtype=torch.float64, generator=generator) for n in (3, 2))
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    problem = Problem(model, nn.MSELoss(reduction=reduction), (x, y))
    noise = gradient_noise(problem, problem.theta0, 4, kind=kind)
    flow = StochasticModifiedFlow(problem, SGD(lr=0.02, weight_decay=0.1), noise, order)
    together = solve_ensemble(flow, 0.1, members=5, step=0.02, seed=3)["theta"].values
    stream = torch.Generator().manual_seed(3)
    for theta in together:
        alone = problem.theta0
        for _ in range(5):
            normal = torch.randn(len(flow.factor), dtype=torch.float64, generator=stream)
            alone = alone + 0.02 * flow.drift(alone) + 0.02**0.5 * noise.along(normal) * 0.02**0.5
        np.testing.assert_allclose(theta, alone, rtol=1e-11, atol=1e-13)
    moved = torch.from_numpy(together)
    torch.testing.assert_close(flow.drifts(moved), torch.stack([flow.drift(theta) for theta in moved]))


def test_paths_that_become_infinite_are_an_error(quadratic: Problem, stand_in) -> None:
    noise = gradient_noise(quadratic, quadratic.theta0, 4)
    flow = StochasticModifiedFlow(quadratic, SGD(lr=0.1), noise)
    for engine in ("torch", "diffeq"):
        with pytest.raises(EngineError, match=r"path 0 .*; a smaller step may help"):
            solve_ensemble(flow, 1e6, members=2, step=1e3, engine=engine)


@pytest.fixture(scope="module")
def ensembles(quadratic: Problem):
    """SGD at lr = 0.05, and the stochastic modified flow with the noise at a point of the path."""
    optimizer, steps = SGD(lr=0.05), 12
    sgd = sgd_ensemble(quadratic, optimizer, steps, batch_size=4, members=300, seed=1)
    middle = torch.from_numpy(sgd["theta"].values.mean(axis=0)).add(quadratic.theta0).div(2)
    noise = gradient_noise(quadratic, middle, 4)

    def paths(scale: float = 1.0, seed: int = 2) -> xr.Dataset:
        flow = StochasticModifiedFlow(quadratic, optimizer, scale * noise.factor)
        return solve_ensemble(flow, optimizer.lr * steps, members=300, seed=seed)

    return sgd, paths


def test_sgd_is_followed_in_distribution(ensembles) -> None:
    sgd, paths = ensembles
    difference = compare_ensembles(sgd, paths())
    assert difference.mean < 3 * difference.mean_noise
    assert difference.covariance < 4 * difference.covariance_noise
    assert difference.energy < 0.02


def test_a_wrong_noise_is_seen(ensembles) -> None:
    sgd, paths = ensembles
    difference = compare_ensembles(sgd, paths(2.0))
    assert difference.covariance > 4 * difference.covariance_noise
    assert difference.p_value < 0.01
    assert compare_ensembles(paths(), paths(seed=9)).p_value > 0.01


def test_a_shift_of_the_mean_is_seen(ensembles) -> None:
    _, paths = ensembles
    moved = paths()
    difference = compare_ensembles(moved, moved.assign(theta=moved["theta"] + 0.05))
    assert difference.mean > 3 * difference.mean_noise
    assert difference.p_value < 0.01
    assert difference.covariance < 1e-12


def test_sgd_members_are_runs_with_replacement(quadratic: Problem) -> None:
    optimizer = SGD(lr=0.05, momentum=0.9)
    found = sgd_ensemble(quadratic, optimizer, 3, batch_size=4, members=2, seed=5)["theta"].values
    generator = torch.Generator().manual_seed(5)
    for member in range(2):
        theta = quadratic.theta0.clone().requires_grad_()
        torch_optimizer = optimizer.torch_optimizer([theta])
        for _ in range(3):
            theta.grad = quadratic.grad(theta.detach(), torch.randint(40, (4,), generator=generator))
            torch_optimizer.step()
        np.testing.assert_allclose(found[member], theta.detach(), rtol=1e-12)


def test_what_cannot_be_compared_or_solved_is_named(quadratic: Problem, tiny: Problem, stand_in) -> None:
    optimizer = SGD(lr=0.1)
    few = sgd_ensemble(quadratic, optimizer, 1, batch_size=4, members=3)
    with pytest.raises(AlignmentError, match="at least four members"):
        compare_ensembles(few, few)
    with pytest.raises(AlignmentError, match="different models"):
        compare_ensembles(few, sgd_ensemble(tiny, optimizer, 1, batch_size=4, members=3))
    noise = gradient_noise(quadratic, quadratic.theta0, 4).factor
    flow = StochasticModifiedFlow(quadratic, optimizer, noise)
    with pytest.raises(EngineError, match="engine 'torch' has the method 'EM' alone; 'SOSRA' was given"):
        solve_ensemble(flow, 1.0, members=2, method="SOSRA")
    for seed in (-1, 2**64, 0.5):
        with pytest.raises(ArgumentError, match="seed must be"):
            solve_ensemble(flow, 1.0, members=2, seed=seed)
    with pytest.raises(EngineError, match="solved by 'torch' or 'diffeq'; 'scipy' was given"):
        solve_ensemble(flow, 1.0, members=2, engine="scipy")
    with pytest.raises(FlowError, match=r"stochastic modified flow with momentum = 0.9"):
        StochasticModifiedFlow(quadratic, SGD(lr=0.1, momentum=0.9), noise)
    with pytest.raises(FlowError, match="built for orders 1 and 2, not 3"):
        StochasticModifiedFlow(quadratic, optimizer, noise, 3)
    with pytest.raises(
        UnknownMethodError, match="no method 'SOSRA2' for paths with noise; did you mean 'SOSRA'"
    ):
        solve_ensemble(flow, 1.0, members=2, engine="diffeq", method="SOSRA2")
    with pytest.raises(EngineError, match=r"'SOSRI' is for diagonal noise.*take 'EM' or 'SRA1' or 'SOSRA'"):
        solve_ensemble(flow, 1.0, members=2, engine="diffeq", method="SOSRI")
