"""The fields themselves: against dense autodiff, and against the logarithm of the update where it is linear."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import logm
from torch import nn

from nm_ode import SGD, FlowError, GradientFlow, ModifiedFlow, Problem
from nm_ode.flows import HessianForm, IteratedMapForm
from nm_ode.flows.modified import increment_weights
from tests.oracles.dense import dense_gradient, dense_hessian, dense_loss

DECAYS = [0.0, 0.3]


@pytest.fixture
def theta(tiny: Problem) -> torch.Tensor:
    return tiny.theta0 + 0.3


def regularised(problem: Problem, weight_decay: float):
    loss = dense_loss(problem.model, problem.loss_fn, problem.x, problem.y)
    return lambda theta: loss(theta) + weight_decay / 2 * theta @ theta


@pytest.mark.parametrize("weight_decay", DECAYS)
def test_gradient_flow_descends_the_regularised_loss(tiny: Problem, theta, weight_decay: float) -> None:
    field = GradientFlow(tiny, SGD(lr=0.1, weight_decay=weight_decay)).rhs(0.0, theta)
    torch.testing.assert_close(field, -dense_gradient(regularised(tiny, weight_decay), theta))


def test_gradient_flow_without_an_optimiser_has_no_decay(tiny: Problem, theta) -> None:
    torch.testing.assert_close(GradientFlow(tiny).rhs(0.0, theta), -tiny.grad(theta))


@pytest.mark.parametrize("weight_decay", DECAYS)
def test_hessian_form_is_gradient_flow_on_the_modified_loss(
    tiny: Problem, theta, weight_decay: float
) -> None:
    lr, loss = 0.2, regularised(tiny, weight_decay)

    def modified(theta):
        leaf = theta if theta.requires_grad else theta.clone().requires_grad_()
        g = torch.autograd.grad(loss(leaf), leaf, create_graph=True)[0]
        return loss(leaf) + lr / 4 * g @ g

    field = HessianForm(tiny, SGD(lr=lr, weight_decay=weight_decay)).rhs(0.0, theta)
    torch.testing.assert_close(field, -dense_gradient(modified, theta), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("weight_decay", DECAYS)
def test_hessian_form_adds_half_lr_times_hessian_gradient(tiny: Problem, theta, weight_decay: float) -> None:
    lr, loss = 0.2, regularised(tiny, weight_decay)
    g, hessian = dense_gradient(loss, theta), dense_hessian(loss, theta)
    field = HessianForm(tiny, SGD(lr=lr, weight_decay=weight_decay)).rhs(0.0, theta)
    torch.testing.assert_close(field, -g - lr / 2 * hessian @ g, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("weight_decay", DECAYS)
def test_iterated_map_is_the_truncated_logarithm_of_the_update(order: int, weight_decay: float) -> None:
    """On a quadratic loss Δ = −ηH, and the field is Σ_j (−1)^{j+1}/j Δ^j (θ − θ*)/η."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, dtype=torch.float64, generator=generator)
    y = torch.randn(30, 1, dtype=torch.float64, generator=generator)
    problem = Problem(nn.Linear(4, 1), nn.functional.mse_loss, (x, y))
    optimizer = SGD(lr=0.05, weight_decay=weight_decay)
    hessian = dense_hessian(regularised(problem, weight_decay), problem.theta0).numpy()
    minimum = np.linalg.solve(
        hessian,
        hessian @ np.zeros(5)
        - dense_gradient(regularised(problem, weight_decay), torch.zeros(5).double()).numpy(),
    )
    delta = -optimizer.lr * hessian
    series = sum((-1) ** (j + 1) / j * np.linalg.matrix_power(delta, j) for j in range(1, order + 1))
    away = problem.theta0.numpy() - minimum
    field = IteratedMapForm(problem, optimizer, order).rhs(0.0, problem.theta0).numpy()
    np.testing.assert_allclose(field, series @ away / optimizer.lr, rtol=1e-11, atol=1e-13)
    exact = logm(np.eye(5) + delta) @ away / optimizer.lr
    radius = np.abs(np.linalg.eigvalsh(delta)).max()
    assert np.linalg.norm(field - exact) <= 2 * radius ** (order + 1) * np.linalg.norm(away) / optimizer.lr


MOMENTA = [
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.3},
    {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
]


@pytest.mark.parametrize("sgd", MOMENTA, ids=str)
def test_with_momentum_it_is_the_logarithm_of_the_whole_states_update(sgd) -> None:
    """On a quadratic loss Φ is an affine map of (θ, v); the series of its matrix, and in the limit the logarithm."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 3, dtype=torch.float64, generator=generator)
    y = torch.randn(30, 1, dtype=torch.float64, generator=generator)
    problem = Problem(nn.Linear(3, 1), nn.functional.mse_loss, (x, y))
    optimizer, size = SGD(lr=0.05, **sgd), 4

    def update(z: torch.Tensor) -> torch.Tensor:
        after = optimizer.update(z[:size], z[size:], problem.grad(z[:size]))
        return torch.cat([part for part in after if part is not None])

    origin = update(torch.zeros(2 * size, dtype=torch.float64))
    matrix = torch.stack(
        [update(e) - origin for e in torch.eye(2 * size, dtype=torch.float64)], dim=1
    ).numpy()
    delta = matrix - np.eye(2 * size)
    fixed = -np.linalg.solve(delta, origin.numpy())
    state = torch.randn(2 * size, dtype=torch.float64, generator=generator)
    away = state.numpy() - fixed
    for order in (1, 2, 5, 9):
        series = sum((-1) ** (j + 1) / j * np.linalg.matrix_power(delta, j) for j in range(1, order + 1))
        field = ModifiedFlow(problem, optimizer, order).rhs(0.0, state).numpy()
        np.testing.assert_allclose(field, series @ away / optimizer.time_per_step, rtol=1e-9, atol=1e-10)
    exact = np.real(logm(matrix)) @ away / optimizer.time_per_step
    high = ModifiedFlow(problem, optimizer, 40).rhs(0.0, state).numpy()
    assert np.linalg.norm(high - exact) < 1e-3 * np.linalg.norm(exact)


def test_the_state_starts_so_that_the_undampened_first_step_is_like_any_other(tiny: Problem, theta) -> None:
    optimizer = SGD(lr=0.1, momentum=0.9, dampening=0.4, weight_decay=0.2)
    state = ModifiedFlow(tiny, optimizer, 3).state_from(theta)
    size = tiny.layout.size
    first = optimizer.update(theta, None, tiny.grad(theta))
    from_state = optimizer.update(state[:size], state[size:], tiny.grad(theta))
    for one, other in zip(first, from_state, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-15)
    assert torch.equal(ModifiedFlow(tiny, optimizer, 3).theta_in(state), theta)


@given(order=st.integers(1, 12))
def test_increment_weights_sum_to_one(order: int) -> None:
    """A constant increment is a straight line: the field must be that increment over the step."""
    assert abs(sum(increment_weights(order)) - 1) < 1e-9


def test_increment_weights_of_order_two() -> None:
    assert increment_weights(2) == [1.5, -0.5]


@pytest.mark.parametrize("weight_decay", DECAYS)
def test_order_one_is_gradient_flow_in_both_forms(tiny: Problem, theta, weight_decay: float) -> None:
    optimizer = SGD(lr=0.1, weight_decay=weight_decay)
    gradient = GradientFlow(tiny, optimizer).rhs(0.0, theta)
    assert torch.equal(ModifiedFlow(tiny, optimizer, order=1).rhs(0.0, theta), gradient)
    torch.testing.assert_close(
        IteratedMapForm(tiny, optimizer, 1).rhs(0.0, theta), gradient, rtol=1e-11, atol=1e-13
    )


@pytest.mark.parametrize("order", [1, 2, 4])
def test_costs_are_what_the_flow_says(order: int, tiny: Problem, theta, monkeypatch) -> None:
    counts = {"grad": 0, "hvp": 0}
    for name in counts:
        plain = getattr(Problem, name)

        def counted(self, *arguments, name=name, plain=plain):
            counts[name] += 1
            return plain(self, *arguments)

        monkeypatch.setattr(Problem, name, counted)
    flows = [ModifiedFlow(tiny, SGD(lr=0.1), order)] + (
        [HessianForm(tiny, SGD(lr=0.1))] if order == 2 else []
    )
    for flow in flows:
        counts.update(grad=0, hvp=0)
        flow.rhs(0.0, theta)
        assert counts == {"grad": flow.gradients_per_rhs, "hvp": flow.hvps_per_rhs}
        assert flow.expected_order == order


def test_fields_write_to_nothing(tiny: Problem, theta) -> None:
    before = theta.clone()
    for flow in (
        GradientFlow(tiny, SGD(lr=0.1, weight_decay=0.1)),
        HessianForm(tiny, SGD(lr=0.1, weight_decay=0.1)),
    ):
        first = flow.rhs(0.0, theta)
        assert torch.equal(theta, before)
        assert torch.equal(flow.rhs(0.0, theta), first)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: GradientFlow(p, SGD(lr=0.1, momentum=0.9)), "gradient flow with momentum = 0.9"),
        (
            lambda p: ModifiedFlow(p, SGD(lr=0.1, momentum=0.9), form="hessian"),
            "Hessian form with momentum = 0.9.*take the modified flow in iterated-map form",
        ),
        (lambda p: ModifiedFlow(p, SGD(lr=0.1), order=3, form="hessian"), "built for order 2, not 3"),
        (lambda p: ModifiedFlow(p, SGD(lr=0.1), order=0), "order must be at least 1; 0"),
        (lambda p: ModifiedFlow(p, SGD(lr=0.1), form="map"), "'map' was given"),
    ],
)
def test_flows_that_do_not_exist_are_refused(make, sentence: str, tiny: Problem) -> None:
    with pytest.raises(FlowError, match=sentence):
        make(tiny)
