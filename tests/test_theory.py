"""docs/theory.md's figures: closed forms on linear regression, orders on digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from nm_ode import (
    SGD,
    Adam,
    AdamW,
    GradientFlow,
    SecondOrderFlow,
    SlowManifoldFlow,
    SolveError,
    compare,
    final_state,
    modified_flow,
    observed_order,
    solve,
    train,
)
from nm_ode.comparison import summary
from nm_ode.data import diabetes
from nm_ode.studies import build_study, find_case, load_case, run_case
from tests.oracles.linear import Quadratic

CASE = Path("cases/diabetes_linear.toml")


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("engine", ["auto", "sundials", "scipy"])
def test_flows_of_the_linear_case_against_their_matrix_exponentials(engine: str, weight_decay: float) -> None:
    problem = build_study(load_case(CASE), CASE).problem
    data = diabetes()
    oracle = Quadratic(data.x.numpy(), data.y.numpy(), weight_decay)
    theta0, lr, times = problem.theta0.numpy(), 0.05, [0.0, 0.5, 5.0, 20.0]
    optimizer = SGD(lr=lr, weight_decay=weight_decay)
    flows = {
        GradientFlow(problem, optimizer): lambda t: oracle.gradient_flow(theta0, t),
        modified_flow(problem, optimizer, order=2, form="hessian"): lambda t: oracle.modified_flow(
            theta0, t, lr
        ),
        modified_flow(problem, optimizer, order=2): lambda t: oracle.modified_flow(theta0, t, lr),
    }
    for flow, exact in flows.items():
        solution = solve(flow, times, engine=engine, rtol=1e-10, atol=1e-12, check=False)
        for state, t in zip(solution["theta"].values, times, strict=True):
            assert np.linalg.norm(state - exact(t)) < 1e-8, (flow.name, t)


def test_descent_on_the_linear_case_against_powers_of_its_matrix() -> None:
    study = build_study(load_case(CASE), CASE)
    problem, optimizer = study.problem, study.optimizer
    data = diabetes()
    run = train(problem, optimizer, steps=50)
    exact = Quadratic(data.x.numpy(), data.y.numpy()).descent(problem.theta0.numpy(), 50, optimizer.lr)
    np.testing.assert_allclose(run["theta"][-1], exact, rtol=0, atol=1e-13)


# Expected order, and the error at lr = 0.05 in docs/theory.md §4.2 (another seed: the size, not the digits).
ORDERS = {
    "gradient": (lambda p, o: GradientFlow(p, o), 1, 7.0e-3),
    "hessian 2": (lambda p, o: modified_flow(p, o, order=2, form="hessian"), 2, 3.3e-5),
    "hessian 3": (lambda p, o: modified_flow(p, o, order=3, form="hessian"), 3, None),
    "iterated map 2": (lambda p, o: modified_flow(p, o, order=2), 2, 8.2e-5),
    "iterated map 3": (lambda p, o: modified_flow(p, o, order=3), 3, 3.1e-6),
    "iterated map 4": (lambda p, o: modified_flow(p, o, order=4), 4, 2.3e-7),
    "iterated map 5": (lambda p, o: modified_flow(p, o, order=5), 5, 2.1e-8),
}


@pytest.fixture(scope="module")
def descents(tanh_digits) -> dict[float, xr.Dataset]:
    """Runs up to the same flow time, by their learning rates."""
    ladder, horizon = (0.1, 0.05), 8.0
    steps = [round(horizon / lr) for lr in ladder]
    return {lr: train(tanh_digits, SGD(lr=lr), n, save_every=n) for lr, n in zip(ladder, steps, strict=True)}


@pytest.mark.parametrize("kind", ORDERS)
def test_order_and_size_of_the_error_on_digits(tanh_digits, descents, kind: str) -> None:
    make, order, size = ORDERS[kind]
    errors = []
    for lr, run in descents.items():
        # The solver's own error is looked at where the method's is smallest.
        check = lr == min(descents)
        flow, rtol = make(tanh_digits, SGD(lr=lr)), 10.0 ** -(order + 5)
        comparison = compare(run, solve(flow, run, rtol=rtol, record=["theta"], check=check))
        assert not check or not comparison["solver_limited"].any()
        errors.append(float(comparison["error"][-1]))
    assert abs(observed_order(list(descents), errors).order - order) < 0.15
    if size is not None:
        assert errors[-1] < 1.5 * size


def test_adam_from_a_warm_state_is_followed_to_any_order(tanh_digits) -> None:
    """docs/theory.md §4.2: lr = 1e-3, 50 steps from the state after 200."""
    optimizer = Adam(lr=1e-3)
    warm = train(tanh_digits, optimizer, 200, save_every=200)
    run = train(tanh_digits, optimizer, 50, save_every=50, state0=final_state(warm))
    for order, bound in ((1, 5e-3), (2, 5e-5), (3, 8e-7), (4, 1e-7), (6, 1e-10)):
        flow = modified_flow(tanh_digits, optimizer, order)
        rtol = max(1e-11, 3e-2 * bound)  # whatever the solver adds is below the bound, too
        solution = solve(flow, run, engine="scipy", rtol=rtol, record=["theta"], check=False)
        assert float(compare(run, solution)["relative_error"][-1]) < bound, order


def test_adamw_too(tanh_digits) -> None:
    optimizer = AdamW(lr=1e-3, weight_decay=0.1)
    warm = train(tanh_digits, optimizer, 200, save_every=200)
    run = train(tanh_digits, optimizer, 50, save_every=50, state0=final_state(warm))
    solution = solve(modified_flow(tanh_digits, optimizer, 4), run, rtol=3e-9, record=["theta"], check=False)
    assert float(compare(run, solution)["relative_error"][-1]) < 1e-7


def test_adam_from_a_cold_start_is_followed_less_well(tanh_digits) -> None:
    """The first steps leave an error that the order does not mend; at order 2 the flow does not even exist."""
    optimizer = Adam(lr=1e-3)
    run = train(tanh_digits, optimizer, 50, save_every=50)
    options = {"engine": "scipy", "rtol": 1e-6, "record": ["theta"], "check": False}
    errors = [
        float(
            compare(run, solve(modified_flow(tanh_digits, optimizer, k), run, **options))["relative_error"][
                -1
            ]
        )
        for k in (4, 8)
    ]
    assert 1e-4 < errors[0] < 1e-2
    assert errors[1] > 0.3 * errors[0]
    with pytest.raises(SolveError, match=r"take its second moment below zero: start warm \(state0 of train"):
        solve(modified_flow(tanh_digits, optimizer, 2), run, **options)


@pytest.mark.parametrize("sgd", [{}, {"nesterov": True}, {"dampening": 0.5}], ids=str)
def test_what_is_written_down_by_hand_has_order_two_after_the_transient(tanh_digits, sgd) -> None:
    ladder = (0.01, 0.005)
    errors: dict[str, list[float]] = {"slow_manifold_1": [], "slow_manifold_2": [], "second_order": []}
    for lr in ladder:
        optimizer = SGD(lr=lr, momentum=0.9, weight_decay=1e-2, **sgd)
        warm = train(tanh_digits, optimizer, round(4 / lr), save_every=round(4 / lr))
        steps = round(1 / lr)
        run = train(tanh_digits, optimizer, steps, save_every=steps, state0=final_state(warm))
        for flow in (
            SlowManifoldFlow(tanh_digits, optimizer, 1),
            SlowManifoldFlow(tanh_digits, optimizer),
            SecondOrderFlow(tanh_digits, optimizer),
        ):
            solution = solve(flow, run, rtol=1e-6, record=["theta"], check=False)
            errors[flow.name].append(float(compare(run, solution)["error"][-1]))
    orders = {name: observed_order(ladder, found).order for name, found in errors.items()}
    assert orders["slow_manifold_1"] == pytest.approx(1, abs=0.15)
    assert orders["slow_manifold_2"] == pytest.approx(2, abs=0.15)
    assert orders["second_order"] == pytest.approx(2, abs=0.2)


def test_weight_decay_keeps_the_order(tanh_digits) -> None:
    ladder, errors = (0.4, 0.2, 0.1), []
    for lr in ladder:
        optimizer = SGD(lr=lr, weight_decay=0.05)
        run = train(tanh_digits, optimizer, round(4 / lr), save_every=round(4 / lr))
        flow = modified_flow(tanh_digits, optimizer, order=2, form="hessian")
        errors.append(float(compare(run, solve(flow, run, rtol=1e-8, check=False))["error"][-1]))
    assert abs(observed_order(ladder, errors).order - 2) < 0.1


def test_gradient_flow_descends(tanh_digits) -> None:
    losses = solve(GradientFlow(tanh_digits), np.linspace(0, 20, 40), check=False)["loss"].values
    assert (np.diff(losses) < 0).all()


def test_starting_where_a_run_starts(tanh_digits) -> None:
    start = tanh_digits.theta0 + 0.01
    run = train(tanh_digits, SGD(lr=0.1), 2, theta0=start)
    solution = solve(GradientFlow(tanh_digits), run, check=False)
    assert torch.equal(torch.from_numpy(solution["theta"].values[0].copy()), start)


@pytest.mark.parametrize(("name", "gain"), [("digits_mlp", 20), ("diabetes_linear", 100)])
def test_shipped_cases_show_what_they_are_for(tmp_path: Path, name: str, gain: float) -> None:
    """The modified flows are closer than gradient flow by much more than the solver's own error."""
    path = find_case(name)
    outcome = run_case(load_case(path), path, tmp_path)
    assert outcome.failures == ()
    gradient, *modified = summary(outcome.tree)
    assert gradient.expected_order == 1
    for row in modified:
        assert row.error < gradient.error / gain
    assert not any(row.solver_limited for row in (gradient, *modified))


def test_heavy_ball_is_followed_to_any_order(tanh_digits) -> None:
    # docs/theory.md §4.2: β = 0.9, η = 0.02, T = 1 from v = 0.
    optimizer = SGD(lr=0.02, momentum=0.9)
    run = train(tanh_digits, optimizer, steps=50, save_every=50)
    for order, size in ((2, 1.0e-3), (4, 1.1e-5), (6, 3.2e-7), (8, 1.9e-8)):
        flow = modified_flow(tanh_digits, optimizer, order=order)
        solution = solve(flow, run, rtol=1e-9, atol=1e-11, record=["theta"], check=False)
        error = float(compare(run, solution)["error"][-1])
        assert 0.1 * size < error < 1.1 * size, order


@pytest.mark.parametrize(
    "sgd", [{"dampening": 0.5, "weight_decay": 1e-2}, {"nesterov": True, "weight_decay": 1e-2}], ids=str
)
def test_dampening_nesterov_and_weight_decay_too(tanh_digits, sgd) -> None:
    optimizer = SGD(lr=0.02, momentum=0.9, **sgd)
    run = train(tanh_digits, optimizer, steps=50, save_every=50)
    errors = []
    for order in (2, 4, 6):
        flow = modified_flow(tanh_digits, optimizer, order=order)
        solution = solve(flow, run, rtol=1e-9, atol=1e-11, record=["theta"], check=False)
        errors.append(float(compare(run, solution)["relative_error"][-1]))
    assert errors[1] < 0.02 * errors[0]
    assert errors[2] < 0.1 * errors[1] < 1e-6
