"""The flows of SGD with momentum in closed form: against the roots of its update, and another library's solution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nm_ode import SGD, Problem, SecondOrderFlow, SlowManifoldFlow, observed_order, solve
from nm_ode.flows import HessianFlow
from tests.oracles.dense import dense_gradient, dense_hessian, regularised
from tests.oracles.linear import regression

DATA = Path(__file__).parents[1] / "data"
SECOND_ORDER = [{"momentum": 0.9}, {"momentum": 0.6, "dampening": 0.4}, {"momentum": 0.9, "nesterov": True}]


@pytest.mark.parametrize("sgd", SECOND_ORDER, ids=str)
def test_slow_manifold_is_the_slow_root_of_the_update(sgd) -> None:
    """On a quadratic loss: the logarithm of the slow eigenvalue, to order a² (order 1: to order a)."""
    problem, ladder = regression(), [2e-4, 1e-4, 5e-5, 2.5e-5]  # below where the roots meet
    hessian = dense_hessian(regularised(problem, 0.1), problem.theta0).numpy()
    gaps: dict[int, list[float]] = {1: [], 2: []}
    for lr in ladder:
        optimizer = SGD(lr=lr, weight_decay=0.1, **sgd)
        step, beta = optimizer.time_per_step, optimizer.momentum
        values, modes = np.linalg.eigh(hessian)
        x = step * values
        middle = (1 + beta) * (1 - x) if optimizer.nesterov else 1 + beta - x
        last = beta * (1 - x) if optimizer.nesterov else beta * np.ones_like(x)
        slow = (middle + np.sqrt(middle**2 - 4 * last)) / 2
        g = regularised_gradient_of(problem, problem.theta0, 0.1)
        exact = modes @ (np.log(slow) / (step * values) * (modes.T @ g))
        for order in (1, 2):
            field = SlowManifoldFlow(problem, optimizer, order).rhs(0.0, problem.theta0).numpy()
            gaps[order].append(float(np.linalg.norm(field - exact)))
    for order in (1, 2):
        assert abs(observed_order(ladder, gaps[order]).order - order) < 0.15


def regularised_gradient_of(problem: Problem, theta: torch.Tensor, weight_decay: float) -> np.ndarray:
    return dense_gradient(regularised(problem, weight_decay), theta).numpy()


@pytest.mark.parametrize("sgd", SECOND_ORDER, ids=str)
def test_second_order_form_has_the_slow_root_to_second_order(sgd) -> None:
    """On a quadratic loss its slow rate is that of the update, up to a²; heavy ball has no Hessian term."""
    problem, ladder = regression(), [2e-4, 1e-4, 5e-5, 2.5e-5]  # below where the roots meet
    gaps = []
    for lr in ladder:
        optimizer = SGD(lr=lr, **sgd)
        flow, size = SecondOrderFlow(problem, optimizer), problem.layout.size
        origin = flow.rhs(0.0, torch.zeros(2 * size, dtype=torch.float64))
        columns = [flow.rhs(0.0, unit) - origin for unit in torch.eye(2 * size, dtype=torch.float64)]
        rates = np.sort(np.linalg.eigvals(torch.stack(columns, dim=1).numpy()).real)[-size:]
        update = [
            unit + optimizer.increment(unit, problem.grad(unit[:size]) - problem.grad(0 * unit[:size]))
            for unit in torch.eye(2 * size, dtype=torch.float64)
        ]
        roots = np.sort(np.linalg.eigvals(torch.stack(update, dim=1).numpy()).real)[-size:]
        gaps.append(np.linalg.norm(rates - np.log(roots) / optimizer.time_per_step))
    assert abs(observed_order(ladder, gaps).order - 2) < 0.2


@pytest.mark.parametrize("engine", ["sundials", "scipy"])
def test_second_order_form_agrees_with_differentialequations_jl(tanh_digits, engine) -> None:
    key = "second_order_lr0.02_momentum0.9_wd0.001"
    with np.load(DATA / "digits_tanh_diffeq.npz") as arrays:
        theta0, times, exact = arrays["theta0"], arrays[f"{key}__t"], arrays[key]
    flow = SecondOrderFlow(tanh_digits, SGD(lr=0.02, momentum=0.9, weight_decay=1e-3))
    solution = solve(
        flow,
        times,
        theta0=torch.from_numpy(theta0),
        engine=engine,
        rtol=1e-11,
        atol=1e-13,
        record=["theta"],
        check=False,
    )
    np.testing.assert_allclose(solution["theta"], exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_slow_manifold_without_momentum_is_the_hessian_form(tiny: Problem, weight_decay) -> None:
    theta = tiny.theta0 + 0.1
    optimizer = SGD(lr=0.2, weight_decay=weight_decay)
    torch.testing.assert_close(
        SlowManifoldFlow(tiny, optimizer).rhs(0.0, theta), HessianFlow(tiny, optimizer).rhs(0.0, theta)
    )
