"""Sharpness against the dense Hessian, alone and along a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nm_ode import SGD, Adam, Drop, Problem, RMSprop, ScalarRMSprop, train
from nm_ode.loss.nonsmooth import changed_share, sides
from nm_ode.loss.spectrum import sharpness
from nm_ode.observers import Curvature, KinkCrossings, spread_steps
from nm_ode.results import run_info
from tests.oracles.dense import dense_gradient, dense_hessian, dense_loss


def hessian(problem: Problem, theta: torch.Tensor) -> np.ndarray:
    return dense_hessian(dense_loss(problem.model, problem.loss_fn, problem.x, problem.y), theta).numpy()


@pytest.mark.parametrize("shift", [0.0, 0.3, -1.0])
def test_it_is_the_largest_eigenvalue(tiny: Problem, shift: float) -> None:
    theta = tiny.theta0 + shift
    values, vectors = np.linalg.eigh(hessian(tiny, theta))
    found = sharpness(tiny, theta, tol=1e-8)
    assert found.value == pytest.approx(values[-1], rel=1e-7)
    assert abs(found.vector @ vectors[:, -1]) > 1 - 1e-6


def test_the_largest_not_the_largest_in_size() -> None:
    """L = −θ₁² + θ₂²/4: eigenvalues −2 and 1/2."""

    class Saddle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))

        def forward(self, x):
            return -(self.theta[0] ** 2) + self.theta[1] ** 2 / 4 + 0 * x.sum()

    problem = Problem(Saddle(), lambda out, y: out, (torch.zeros(1, 1), torch.zeros(1)))
    assert sharpness(problem, problem.theta0).value == pytest.approx(0.5)


def test_preconditioned(tiny: Problem) -> None:
    d = torch.linspace(0.1, 3, tiny.layout.size, dtype=torch.float64)
    root = np.diag(d.numpy() ** -0.5)
    exact = np.linalg.eigvalsh(root @ hessian(tiny, tiny.theta0) @ root)[-1]
    assert sharpness(tiny, tiny.theta0, preconditioner=d, tol=1e-8).value == pytest.approx(exact, rel=1e-7)


def test_one_parameter() -> None:
    x = torch.full((3, 1), 2.0)
    problem = Problem(nn.Linear(1, 1, bias=False), nn.functional.mse_loss, (x, x))
    assert sharpness(problem, problem.theta0).value == pytest.approx(8.0)


def test_an_eigenvector_from_near_by_saves_products(tanh_digits) -> None:
    theta = tanh_digits.theta0
    cold = sharpness(tanh_digits, theta)
    near = theta - 0.1 * tanh_digits.grad(theta)
    warm, again = sharpness(tanh_digits, near, v0=cold.vector), sharpness(tanh_digits, near)
    assert warm.value == pytest.approx(again.value, rel=1e-3)
    assert warm.hvp_evaluations < again.hvp_evaluations


def test_products_are_counted(tiny: Problem, monkeypatch) -> None:
    calls = []
    plain = Problem.hvp
    monkeypatch.setattr(Problem, "hvp", lambda self, *a: calls.append(1) or plain(self, *a))
    assert sharpness(tiny, tiny.theta0).hvp_evaluations == len(calls)


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(lr=0.1, weight_decay=0.2),
        Adam(lr=0.01, weight_decay=0.2),
        RMSprop(lr=0.01, weight_decay=0.2, momentum=0.5),
        ScalarRMSprop(lr=0.1, weight_decay=0.2),
    ],
    ids=str,
)
def test_along_a_run(tiny: Problem, optimizer) -> None:
    found = run = train(tiny, optimizer, 20, observe=[Curvature(5)], schedule=Drop((10,), 0.5))
    assert found["curvature_step"].values.tolist() == [0, 5, 10, 15, 20]
    np.testing.assert_allclose(found["curvature_time"], run["saved_time"].values[::5])
    state = optimizer.init(tiny.theta0, tiny.grad(tiny.theta0))
    for step in range(21):
        theta = torch.from_numpy(run["theta"].values[step].copy())
        gradient = tiny.grad(theta)
        if step % 5 == 0:
            dense = hessian(tiny, theta)
            scale = optimizer.preconditioner(state, gradient)
            root = np.eye(len(theta)) if scale is None else np.diag(scale.numpy() ** -0.5)
            regular = dense + optimizer.stability.decay * np.eye(len(theta))
            exact = np.linalg.eigvalsh(root @ regular @ root)[-1]
            assert float(found["sharpness"][step // 5]) == pytest.approx(exact, rel=1e-3)
            lr = 0.5 * optimizer.lr if step >= 10 else optimizer.lr
            expected = exact * lr * (0.1 if isinstance(optimizer, Adam) else 1)
            assert float(found["normalised_sharpness"][step // 5]) == pytest.approx(expected, rel=1e-3)
        if step < 20:
            at_lr = type(optimizer)(**{**vars(optimizer), "lr": optimizer.lr * (0.5 if step >= 10 else 1)})
            state = state + at_lr.increment(state, gradient)
    assert float(found["stability_limit"]) == optimizer.stability.limit
    assert (found["hvp_evaluations"] > 0).all()


@pytest.mark.parametrize("batch_size", ["full", 7])
def test_along_the_sharpest_direction(tiny: Problem, batch_size: int | str) -> None:
    """Against dense derivatives; the rates are past the stability limit, where all of it is measured."""
    loss = dense_loss(tiny.model, tiny.loss_fn, tiny.x, tiny.y)
    values = np.linalg.eigvalsh(hessian(tiny, tiny.theta0))
    optimizer = SGD(lr=2.1 / values[-1], momentum=0.1, dampening=0.1, weight_decay=0.01)
    run = train(tiny, optimizer, 8, observe=[Curvature(9)], batch_size=batch_size)
    near = np.flatnonzero(run["normalised_sharpness"].values > 0.75 * optimizer.stability.limit)
    assert len(near) > 0
    assert run["leaving_size"].isnull().values[np.setdiff1d(np.arange(9), near)].all()
    for step in {int(near[0]), int(near[-1]) if near[-1] < 8 else 0}:
        theta = torch.from_numpy(run["theta"].values[step].copy())
        u = torch.from_numpy(np.linalg.eigh(hessian(tiny, theta))[1][:, -1].copy())
        gradient = tiny.grad(theta)
        here = run.isel(curvature_step=step)
        decayed = gradient + 0.01 * theta
        assert float(here["sharpest_gradient"]) == pytest.approx(abs(float(u @ decayed)), rel=0.05)
        change = dense_gradient(lambda at, u=u: u @ dense_hessian(loss, at) @ u, theta)
        sharpening = -float(change @ decayed)
        size = np.sqrt(2 * sharpening) / float(change.norm()) if sharpening > 0 else np.nan
        np.testing.assert_allclose(float(here["leaving_size"]), size, rtol=0.05)
        if batch_size == "full":
            assert 1e-19 < float(here["sharpest_noise"]) < 1e-14
        else:
            batch = run_info(run).grid.batches[step]
            expected = optimizer.lr * 0.9 * abs(float(u @ (tiny.grad(theta, batch) - gradient)))
            assert float(here["sharpest_noise"]) == pytest.approx(expected, rel=0.05)
    assert run["sharpest_oscillation"].isnull().values.tolist() == [True] * 4 + [False] * 5
    u = np.linalg.eigh(hessian(tiny, torch.from_numpy(run["theta"].values[5].copy())))[1][:, -1]
    fourth = np.diff(run["theta"].values, n=4, axis=0)[1] @ u / 16
    assert float(run["sharpest_oscillation"][5]) == pytest.approx(abs(fourth), rel=1e-2)


@pytest.mark.parametrize(
    "optimizer", [RMSprop(lr=0.05, alpha=0.5), ScalarRMSprop(lr=0.3, alpha=0.5, weight_decay=0.1)], ids=str
)
def test_the_size_under_a_preconditioner(tiny: Problem, optimizer) -> None:
    """What an oscillation takes from λ_max, by the loss and by D, dense; what the path adds as recorded."""
    run = train(tiny, optimizer, 12, observe=[Curvature(13)])
    loss, decay = dense_loss(tiny.model, tiny.loss_fn, tiny.x, tiny.y), optimizer.weight_decay
    state = optimizer.init(tiny.theta0, tiny.grad(tiny.theta0))
    step = int(np.flatnonzero(np.isfinite(run["leaving_size"].values[:12]))[-1])
    for _ in range(step):
        state = state + optimizer.increment(state, tiny.grad(state[: len(tiny.theta0)]))
    theta = state[: len(tiny.theta0)]
    gradient = tiny.grad(theta)
    dense = torch.from_numpy(hessian(tiny, theta)) + decay * torch.eye(len(theta), dtype=torch.float64)

    def sharpest(d: torch.Tensor) -> tuple[float, torch.Tensor]:
        values, vectors = torch.linalg.eigh(dense / d.sqrt() / d.sqrt()[:, None])
        return float(values[-1]), vectors[:, -1]

    still = optimizer.preconditioner(state, gradient)
    value, v = sharpest(still)
    u = v / still.sqrt()
    delta = 1e-3 * float(gradient.norm() / (dense @ u).norm())
    swing = delta * (dense @ u - decay * u)
    moved = (
        optimizer.preconditioner(state, gradient + swing) + optimizer.preconditioner(state, gradient - swing)
    ) / 2
    by_d = (value - sharpest(moved)[0]) / delta**2
    change = dense_gradient(lambda at: u @ dense_hessian(loss, at) @ u, theta)
    by_loss = optimizer.lr * float((change**2 / still).sum()) / 2
    added = float(run["sharpness"][step] - run["sharpness"][step - 1])
    assert float(run["leaving_size"][step]) == pytest.approx(np.sqrt(added / (by_loss + by_d)), rel=0.1)


def test_watching_changes_nothing(tiny: Problem) -> None:
    for optimizer in (SGD(lr=0.1, momentum=0.9), Adam(lr=0.01)):
        watched = train(tiny, optimizer, 10, observe=[Curvature(11)], batch_size=7)
        alone = train(tiny, optimizer, 10, batch_size=7)
        np.testing.assert_array_equal(watched["theta"], alone["theta"])


def test_spread_steps_have_both_ends() -> None:
    assert spread_steps(100, 5) == [0, 25, 50, 75, 100]
    assert spread_steps(3, 10) == [0, 1, 2, 3]


def test_crossings_along_a_run() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 4, generator=generator), torch.randn(30, 2, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 2))
    problem = Problem(model, nn.functional.mse_loss, (x, y))
    run = train(problem, SGD(lr=0.5), 8, observe=[KinkCrossings(3)])
    assert run["crossing_step"].values.tolist() == [0, 4, 7]
    for step, share in zip(run["crossing_step"].values, run["crossing_share"].values, strict=True):
        before, after = (torch.from_numpy(run["theta"].values[k].copy()) for k in (step, step + 1))
        assert share == changed_share(sides(problem, before), sides(problem, after))
    assert float(run["crossing_share"].mean()) > 0
