"""The fields themselves: against dense autodiff, and against the logarithm of the update where it is linear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import logm
from torch import nn

from nm_ode import (
    SGD,
    Adam,
    AdamW,
    FlowError,
    GradientFlow,
    MinibatchFlow,
    Problem,
    SecondOrderFlow,
    SlowManifoldFlow,
    modified_flow,
    observed_order,
    solve,
)
from nm_ode.flows import HessianFlow, IteratedMapFlow
from nm_ode.flows.iterated_map import increment_weights, rounding
from nm_ode.results import TimeGrid
from tests.oracles.dense import dense_gradient, dense_hessian, regularised
from tests.oracles.linear import regression

DATA = Path(__file__).parents[1] / "data"
DECAYS = [0.0, 0.3]


@pytest.fixture
def theta(tiny: Problem) -> torch.Tensor:
    return tiny.theta0 + 0.3


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

    field = HessianFlow(tiny, SGD(lr=lr, weight_decay=weight_decay)).rhs(0.0, theta)
    torch.testing.assert_close(field, -dense_gradient(modified, theta), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("weight_decay", DECAYS)
def test_hessian_form_adds_half_lr_times_hessian_gradient(tiny: Problem, theta, weight_decay: float) -> None:
    lr, loss = 0.2, regularised(tiny, weight_decay)
    g, hessian = dense_gradient(loss, theta), dense_hessian(loss, theta)
    field = HessianFlow(tiny, SGD(lr=lr, weight_decay=weight_decay)).rhs(0.0, theta)
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
    field = IteratedMapFlow(problem, optimizer, order).rhs(0.0, problem.theta0).numpy()
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
        return z + optimizer.increment(z, problem.grad(z[:size]))

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
        field = modified_flow(problem, optimizer, order).rhs(0.0, state).numpy()
        np.testing.assert_allclose(field, series @ away / optimizer.time_per_step, rtol=1e-9, atol=1e-10)
    exact = np.real(logm(matrix)) @ away / optimizer.time_per_step
    high = modified_flow(problem, optimizer, 40).rhs(0.0, state).numpy()
    assert np.linalg.norm(high - exact) < 1e-3 * np.linalg.norm(exact)


def test_the_state_starts_so_that_the_undampened_first_step_is_like_any_other(tiny: Problem, theta) -> None:
    optimizer = SGD(lr=0.1, momentum=0.9, dampening=0.4, weight_decay=0.2)
    flow = modified_flow(tiny, optimizer, 3)
    state = flow.state_from(theta)
    parameter = theta.clone().requires_grad_()
    parameter.grad = tiny.grad(theta)
    torch_optimizer = optimizer.torch_optimizer([parameter])
    torch_optimizer.step()
    after = state + optimizer.increment(state, tiny.grad(theta))
    torch.testing.assert_close(
        after, optimizer.from_torch(torch_optimizer, parameter), rtol=1e-13, atol=1e-15
    )
    assert torch.equal(flow.theta_in(state), theta)


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
    assert torch.equal(modified_flow(tiny, optimizer, order=1).rhs(0.0, theta), gradient)
    torch.testing.assert_close(
        IteratedMapFlow(tiny, optimizer, 1).rhs(0.0, theta), gradient, rtol=1e-11, atol=1e-13
    )


HEAVY = SGD(lr=0.1, momentum=0.9, weight_decay=0.1)
AHEAD = SGD(lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
ALL_FLOWS = {
    "gradient": lambda p: GradientFlow(p, SGD(lr=0.1, weight_decay=0.1)),
    "hessian 2": lambda p: HessianFlow(p, SGD(lr=0.1, weight_decay=0.1)),
    "hessian 3": lambda p: HessianFlow(p, SGD(lr=0.1, weight_decay=0.1), 3),
    "second order": lambda p: SecondOrderFlow(p, HEAVY),
    "second order, Nesterov": lambda p: SecondOrderFlow(p, AHEAD),
    "slow manifold 1": lambda p: SlowManifoldFlow(p, HEAVY, 1),
    "slow manifold 2": lambda p: SlowManifoldFlow(p, AHEAD, 2),
    "same batch": lambda p: MinibatchFlow(
        HessianFlow(p, SGD(lr=0.1)),
        TimeGrid.planned(0.1, 0.1, np.ones(4), batch_size=7, seed=0, n_samples=p.n_samples),
    ),
    **{
        f"map {order} {type(optimizer).__name__}": lambda p, o=optimizer, k=order: modified_flow(p, o, k)
        for order in (1, 2, 4, 7)
        for optimizer in (SGD(lr=0.1), HEAVY, AHEAD, Adam(lr=0.1), AdamW(lr=0.1))
    },
}


@pytest.fixture
def counts(monkeypatch) -> dict[str, int]:
    """Calls of each derivative of a problem."""
    found = {"grad": 0, "hvp": 0, "third_derivative": 0}
    for name in found:
        plain = getattr(Problem, name)

        def counted(self, *arguments, name=name, plain=plain):
            found[name] += 1
            return plain(self, *arguments)

        monkeypatch.setattr(Problem, name, counted)
    return found


@pytest.mark.parametrize("kind", ALL_FLOWS)
def test_costs_are_what_the_flow_says_and_not_one_more(kind: str, tiny: Problem, theta, counts) -> None:
    flow = ALL_FLOWS[kind](tiny)
    state = flow.state_from(theta)
    counts.update(grad=0, hvp=0, third_derivative=0)
    flow.rhs(0.05, state)
    said = (flow.cost.gradients, flow.cost.hvps, flow.cost.third_derivatives)
    assert tuple(counts.values()) == said
    if kind.startswith("map"):
        assert said == (flow.expected_order, 0, 0)


def test_a_whole_solve_costs_what_it_says(tiny: Problem, counts) -> None:
    for flow in (modified_flow(tiny, HEAVY, 5), HessianFlow(tiny, SGD(lr=0.1), 3)):
        # What is measured of a problem once (its kinks, say) is no right-hand side of the first solve.
        solve(flow, [0.0, 1.0], engine="scipy", record=["theta"], check=False)
        counts.update(grad=0, hvp=0, third_derivative=0)
        solution = solve(flow, [0.0, 1.0], engine="scipy", record=["theta"], check=False)
        at_rest = 1 if flow.expected_order == 5 else 0  # the velocity's start
        attrs = solution.attrs
        assert counts["grad"] == attrs["gradient_evaluations"] + at_rest
        assert counts["hvp"] == attrs["hvp_evaluations"]
        assert counts["third_derivative"] == attrs["third_derivative_evaluations"]


@pytest.mark.parametrize("kind", ALL_FLOWS)
def test_a_field_is_a_pure_function(kind: str, tiny: Problem, theta) -> None:
    flow = ALL_FLOWS[kind](tiny)
    state = flow.state_from(theta)
    before = state.clone()
    first = flow.rhs(0.05, state)
    assert first.shape == state.shape
    assert torch.equal(state, before)
    assert torch.equal(flow.rhs(0.05, state), first)
    assert torch.equal(flow.theta_in(state), theta)


@pytest.mark.parametrize("weight_decay", DECAYS)
def test_third_order_hessian_form_against_dense_derivatives(tiny: Problem, theta, weight_decay) -> None:
    lr, loss = 0.2, regularised(tiny, weight_decay)
    g, hessian = dense_gradient(loss, theta), dense_hessian(loss, theta)

    def curvature_along_g(theta):
        leaf = theta if theta.requires_grad else theta.clone().requires_grad_()
        slope = torch.autograd.grad(loss(leaf), leaf, create_graph=True)[0]
        return torch.autograd.grad(slope @ g, leaf, create_graph=True)[0] @ g

    third = dense_gradient(curvature_along_g, theta)
    field = HessianFlow(tiny, SGD(lr=lr, weight_decay=weight_decay), 3).rhs(0.0, theta)
    expected = -g - lr / 2 * hessian @ g - lr**2 * (hessian @ hessian @ g / 3 + third / 12)
    torch.testing.assert_close(field, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("weight_decay", DECAYS)
def test_both_forms_of_an_order_differ_by_that_order_of_lr(order: int, weight_decay, tiny, theta) -> None:
    ladder = [0.1, 0.05, 0.025, 0.0125]
    gaps = []
    for lr in ladder:
        optimizer = SGD(lr=lr, weight_decay=weight_decay)
        forms = [modified_flow(tiny, optimizer, order, form) for form in ("hessian", "iterated_map")]
        one, other = (form.rhs(0.0, theta) for form in forms)
        gaps.append(float((one - other).norm()))
    assert abs(observed_order(ladder, gaps).order - order) < 0.1


LINEAR = [SGD(lr=0.01), SGD(lr=0.01, weight_decay=0.3), *(SGD(lr=0.01, **sgd) for sgd in MOMENTA)]


@pytest.mark.parametrize("optimizer", LINEAR, ids=str)
def test_on_a_quadratic_loss_the_limit_is_the_logarithm_to_rounding(optimizer: SGD) -> None:
    """K large enough for the truncation to vanish, not too large for rounding."""
    problem = regression()
    size = optimizer.state_layout(problem.layout.size).size
    units = torch.eye(size, dtype=torch.float64)
    p = problem.layout.size

    def increment(z: torch.Tensor) -> torch.Tensor:
        return optimizer.increment(z, problem.grad(z[:p]))

    origin = increment(torch.zeros(size, dtype=torch.float64))
    delta = torch.stack([increment(unit) - origin for unit in units], dim=1).numpy()
    state = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    away = state.numpy() - np.linalg.solve(delta, -origin.numpy())
    exact = np.real(logm(np.eye(size) + delta)) @ away / optimizer.time_per_step
    radius = np.abs(np.linalg.eigvals(delta)).max()
    errors = {}
    for order in range(2, 33):
        field = IteratedMapFlow(problem, optimizer, order).rhs(0.0, state).numpy()
        errors[order] = np.linalg.norm(field - exact) / np.linalg.norm(exact)
    best = min(errors, key=errors.__getitem__)
    assert radius < 0.3
    assert errors[best] < 1e-12
    # What is left beyond is rounding, of the size that is documented.
    assert errors[32] < 1e3 * rounding(32)


@pytest.mark.parametrize(
    ("dtype", "x", "order"),
    [(torch.float64, 0.1, 13), (torch.float64, 0.01, 8), (torch.float32, 0.1, 6), (torch.float32, 0.01, 4)],
)
def test_where_a_higher_order_stops_paying_is_as_documented(dtype, x: float, order: int) -> None:
    assert next(k for k in range(1, 40) if x**k < rounding(k, dtype)) == order


@given(order=st.integers(1, 16))
def test_rounding_grows_with_the_weights(order: int) -> None:
    assert rounding(order) <= rounding(order + 1) < 2.3 * rounding(order)
    assert rounding(order, torch.float32) > 1e8 * rounding(order)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: GradientFlow(p, SGD(lr=0.1, momentum=0.9)), "gradient flow with momentum = 0.9"),
        (
            lambda p: modified_flow(p, SGD(lr=0.1, momentum=0.9), form="hessian"),
            "Hessian form with momentum = 0.9.*take the modified flow in iterated-map form",
        ),
        (lambda p: modified_flow(p, SGD(lr=0.1), order=4, form="hessian"), "built for orders 2 and 3, not 4"),
        (lambda p: modified_flow(p, Adam(lr=0.1), form="hessian"), "with Adam: it is that of SGD alone"),
        (lambda p: GradientFlow(p, AdamW(lr=0.1)), "gradient flow with AdamW: it is that of SGD alone"),
        (lambda p: SecondOrderFlow(p, Adam(lr=0.1)), "second-order flow with Adam"),
        (lambda p: SlowManifoldFlow(p, Adam(lr=0.1)), "slow-manifold flow with Adam"),
        (lambda p: SlowManifoldFlow(p, SGD(lr=0.1), order=3), "built for orders 1 and 2, not 3"),
        (lambda p: modified_flow(p, SGD(lr=0.1), order=0), "order must be at least 1; 0"),
        (lambda p: modified_flow(p, SGD(lr=0.1), form="map"), "'map' was given"),
    ],
)
def test_flows_that_do_not_exist_are_refused(make, sentence: str, tiny: Problem) -> None:
    with pytest.raises(FlowError, match=sentence):
        make(tiny)
