"""The central flow of plain descent: a fixed point in closed form, dense derivatives, what it is away from the edge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from nm_ode import SGD, Checkpoint, FlowError, Problem, Sketch, solve, solve_info, train
from nm_ode.flows import CentralFlow, CentralFlowError, HessianFlow
from nm_ode.flows.central.edge import distance_to_edge
from nm_ode.models import mlp
from tests.oracles.dense import dense_hessian, regularised
from tests.oracles.valley import valley

ORBITS = [(0.5, 0.31, 0.1), (0.5, 0.305, 0.1), (0.1, 1.94, 0.1), (0.25, 0.72, 0.1)]


@pytest.mark.parametrize(("lr", "b", "c"), ORBITS)
def test_its_fixed_point_is_the_orbit_of_descent(lr: float, b: float, c: float) -> None:
    variance, there = 2 * (b - c * (2 / lr - 1)), 2 / lr - 1
    problem = valley(b, c, 0.1, 1.0)
    found = CentralFlow(problem, SGD(lr=lr), third="exact").at(
        torch.tensor([0.0, there], dtype=torch.float64)
    )
    np.testing.assert_allclose(found.oscillation, [[variance]], rtol=1e-10)
    assert float(found.field.norm()) < 1e-10
    x, y = 1.001 * variance**0.5, there
    for _ in range(40_000):  # descent itself
        x, y = x - lr * (1 + y) * x, y - lr * (x**2 / 2 - b + c * y)
    np.testing.assert_allclose([abs(x), y], [np.sqrt(variance), there], rtol=1e-10)
    orbit = float(problem.loss(torch.tensor([x, y], dtype=torch.float64)))
    assert found.predicted_loss == pytest.approx(orbit, rel=1e-9)


def to_the_edge() -> CentralFlow:
    """Of a start a little below it."""
    return CentralFlow(valley(0.31, 0.1, 0.1, 2.85), SGD(lr=0.5), third="exact")


def test_it_comes_to_the_edge_and_stays() -> None:
    solution = solve(to_the_edge(), [0.0, 4.0, 15.0], rtol=1e-6, check=False)
    np.testing.assert_allclose(solution.theta[-1], [0.0, 3.0], atol=1e-5)
    np.testing.assert_allclose(solution.oscillation_trace[-1], 0.02, rtol=1e-3)
    assert solution.critical_count.values.tolist() == [0.0, 1.0, 1.0]
    np.testing.assert_allclose(solution.critical_eigenvalue[-1, 0] / solution.critical_edge, 1.0, rtol=1e-5)
    assert np.isnan(solution.critical_eigenvalue[-1, 1:]).all()
    np.testing.assert_allclose(np.abs(solution.oscillation_vector[-1, 0]), [0.02**0.5, 0.0], atol=1e-4)
    assert float(solution.kkt_residual.max()) < 1e-10


def test_it_converges_in_the_solvers_step() -> None:
    """Across the time at which the oscillation begins."""
    fine, *coarse = (
        solve(to_the_edge(), [0.0, 2.0, 3.0], engine="torch", method="Midpoint", step=step, check=step == 0.1)
        for step in (0.05, 0.1, 0.2)
    )
    errors = [np.abs(one.theta - fine.theta).max("param") for one in coarse]
    assert (errors[0][1:] < 0.45 * errors[1][1:]).all()
    assert solve_info(coarse[0]).check_verdict == "measured"
    assert (coarse[0].solver_error[1:] > errors[0][1:]).all()


@pytest.fixture(scope="module")
def at_the_edge(tiny: Problem) -> tuple[Problem, Tensor, SGD]:
    """A place where two eigenvalues are above 2/η and one is a little below, under weight decay."""
    decay, theta = 0.05, tiny.theta0 + 0.1
    values = torch.linalg.eigvalsh(dense_hessian(regularised(tiny, decay), theta)).flip(0)
    return tiny, theta, SGD(lr=float(1.99 / values[2]), weight_decay=decay)


@pytest.mark.parametrize("third", ["exact", "differences"])
def test_its_field_is_of_dense_derivatives(at_the_edge, third) -> None:
    problem, theta, sgd = at_the_edge
    found = CentralFlow(problem, sgd, third=third).at(theta)
    assert len(found.values) >= 3
    assert found.variances[0] > 0
    loss = regularised(problem, sgd.weight_decay)
    covariance = found.vectors.T @ torch.from_numpy(found.oscillation) @ found.vectors
    leaf = theta.clone().requires_grad_()
    bent = loss(leaf) + (covariance * torch.func.hessian(loss)(leaf)).sum() / 2
    force = torch.autograd.grad(bent, leaf)[0]
    hessian = dense_hessian(loss, theta)
    field = -(force + sgd.lr / 2 * hessian @ force)
    torch.testing.assert_close(found.field, field, rtol=1e-6, atol=1e-6 * float(field.norm()))
    torch.testing.assert_close(found.modes.T @ found.modes, covariance)
    # And S = (2/η − Λ)/τ − d/dt UᵀHU is semidefinite, and orthogonal to Σ.
    step = 1e-4
    ahead, back = (dense_hessian(loss, theta - sign * step * force) for sign in (1, -1))
    rate = found.vectors @ ((ahead - back) / (2 * step)) @ found.vectors.T
    gap = distance_to_edge(found.values, 2 / sgd.lr, 0.05 / sgd.lr)
    slack = np.diag(gap) / sgd.lr - rate.numpy()
    size = float(np.abs(slack).max())
    assert np.linalg.eigvalsh(slack)[0] > -1e-6 * size
    assert np.abs(slack @ found.oscillation).max() < 1e-6 * size * found.variances[0]


def test_below_the_edge_it_is_the_modified_flow(tiny: Problem) -> None:
    sgd, theta = SGD(lr=0.2, weight_decay=0.05), tiny.theta0 + 0.1
    central, modified = CentralFlow(tiny, sgd), HessianFlow(tiny, sgd)
    assert central.at(theta).largest * sgd.lr < 1.5
    torch.testing.assert_close(central.rhs(0.0, theta), modified.rhs(0.0, theta), rtol=1e-13, atol=1e-15)
    plain = CentralFlow(tiny, sgd, second_order=False).rhs(0.0, theta)
    torch.testing.assert_close(plain, -tiny.grad(theta) - 0.05 * theta)


def test_a_direction_comes_in_and_goes_without_a_jump(at_the_edge) -> None:
    """Whether it is followed or not, at the bound from which on it is."""
    problem, theta, sgd = at_the_edge
    third = float(CentralFlow(problem, sgd).at(theta).values[2]) * sgd.lr
    inside, outside, far = (
        CentralFlow(problem, sgd, followed=third + off).at(theta) for off in (-1e-8, 1e-8, -0.3)
    )
    assert len(inside.values) == len(outside.values) + 1
    assert float((inside.field - outside.field).norm()) < 1e-3 * float((far.field - outside.field).norm())


def test_what_is_counted_was_spent(monkeypatch) -> None:
    counts = {"grad": 0, "loss_and_grad": 0, "hvp": 0, "third_derivative": 0}
    for name in counts:
        plain = getattr(Problem, name)

        def counted(self, *args, name=name, plain=plain, **options):
            counts[name] += 1
            return plain(self, *args, **options)

        monkeypatch.setattr(Problem, name, counted)
    flow = CentralFlow(valley(0.31, 0.1, 0.1, 2.95), SGD(lr=0.5), third="differences")
    solve(flow, [0.0, 1.0], record=["theta"], check=False)  # what is measured once is no right-hand side
    before, spent = dict(counts), flow.problem.spent.counts
    solution = solve(flow, [0.0, 4.0], record=["theta"], check=False)
    info = solve_info(solution)
    assert np.subtract(flow.problem.spent.counts, spent).tolist() == [
        counts["loss_and_grad"] - before["loss_and_grad"],
        counts["hvp"] - before["hvp"],
        counts["third_derivative"] - before["third_derivative"],
    ]
    assert info.gradient_evaluations > info.rhs_evaluations + 10
    assert info.hvp_evaluations > 2 * info.rhs_evaluations
    # The samples' own are in none of these.
    assert info.hvp_evaluations < counts["hvp"] - before["hvp"]
    assert info.check_gradient_evaluations is None
    before = dict(counts)
    info = solve_info(solve(flow, [0.0, 1.0], record=["theta"]))
    both = info.hvp_evaluations + info.check_hvp_evaluations
    assert info.hvp_evaluations < info.check_hvp_evaluations < counts["hvp"] - before["hvp"]
    assert both < counts["hvp"] - before["hvp"]
    assert info.check_gradient_evaluations > info.check_rhs_evaluations
    assert info.check_third_derivative_evaluations == 0


def test_a_sample_takes_less_than_a_right_hand_side_and_nothing_where_that_was(at_the_edge) -> None:
    problem, theta, sgd = at_the_edge
    flow, fresh = CentralFlow(problem, sgd, third="exact"), CentralFlow(problem, sgd, third="exact")
    seen = flow.at(theta)
    spent = problem.spent.counts
    np.testing.assert_array_equal(flow.oscillation.at(theta).oscillation, seen.oscillation)
    assert problem.spent.counts == spent
    for place in (theta + 1e-3, theta + 2e-3):  # the first search takes what it takes
        before = problem.spent.counts
        recorded = flow.oscillation.at(place)
        between = problem.spent.counts
        exact = fresh.at(place)
        ours, whole = np.subtract(between, before), np.subtract(problem.spent.counts, between)
        np.testing.assert_allclose(recorded.values, exact.values, rtol=1e-8)
        np.testing.assert_allclose(recorded.variances, exact.variances, rtol=1e-5, atol=1e-9)
        assert recorded.predicted_grad_norm == pytest.approx(exact.predicted_grad_norm, rel=1e-5)
    assert ours[1] < whole[1]
    np.testing.assert_array_equal(ours[[0, 2]], whole[[0, 2]])


def test_it_goes_on_from_a_checkpoint(tmp_path: Path, monkeypatch) -> None:
    times, sgd = [0.0, 1.0, 4.0], SGD(lr=0.5)
    options = {"rtol": 1e-5, "check": False}
    whole = solve(CentralFlow(valley(0.31, 0.1, 0.1, 2.95), sgd), times, **options)
    plain, calls = CentralFlow.rhs, 0

    def cut_off(self, t, state):
        nonlocal calls
        calls += 1
        if calls == 60:
            raise KeyboardInterrupt
        return plain(self, t, state)

    checkpoint = Checkpoint(tmp_path / "solve.ckpt", every=0.0)
    monkeypatch.setattr(CentralFlow, "rhs", cut_off)
    with pytest.raises(KeyboardInterrupt):
        solve(CentralFlow(valley(0.31, 0.1, 0.1, 2.95), sgd), times, checkpoint=checkpoint, **options)
    monkeypatch.setattr(CentralFlow, "rhs", plain)
    again = solve(CentralFlow(valley(0.31, 0.1, 0.1, 2.95), sgd), times, checkpoint=checkpoint, **options)
    assert solve_info(again).restarts == 1
    np.testing.assert_allclose(again.theta, whole.theta, atol=1e-4)
    assert solve_info(again).gradient_evaluations > solve_info(again).rhs_evaluations


def test_a_checkpoint_of_other_options_is_not_taken_up(tmp_path: Path) -> None:
    """Below the edge, where it starts, the field is the same."""
    said: list[str] = []
    for relaxation in (1.0, 8.0):
        flow = CentralFlow(valley(0.31, 0.1, 0.1, 2.85), SGD(lr=0.5), relaxation=relaxation)
        checkpoint = Checkpoint(tmp_path / "solve.ckpt", every=0.0, say=said.append)
        solution = solve(flow, [0.0, 1.0], check=False, checkpoint=checkpoint)
        assert float(solution.critical_count[0]) == 0
        assert solve_info(solution).restarts == 0
    assert "options" in said[0]


@pytest.mark.parametrize("delayed", [False, True])
def test_a_solve_does_not_depend_on_those_before_it(delayed: bool) -> None:
    flow = CentralFlow(valley(0.31, 0.1, 0.1, 2.95), SGD(lr=0.5), delayed=delayed)
    first, again = (solve(flow, [0.0, 1.0], rtol=1e-3, check=False) for _ in range(2))
    xr.testing.assert_equal(first, again)


def test_sketches_stand_in_for_modes() -> None:
    problem = valley(0.31, 0.1, 0.1, 2.95)
    sketch = Sketch(m=64)
    flow = CentralFlow(problem, SGD(lr=0.5), relaxation=2.0)
    solution = solve(flow, [0.0, 3.0], observe=[sketch], check=False)
    assert "relaxation = 2.0" in solve_info(solution).options
    mode = solution.oscillation_vector[-1, 0]
    assert mode.dims == ("sketch_index",)
    assert float(np.square(mode).sum()) == pytest.approx(float(solution.oscillation_trace[-1]), rel=1e-9)


def test_what_it_is_not_for_is_refused(at_the_edge) -> None:
    problem, theta, sgd = at_the_edge
    with pytest.raises(FlowError, match="nesterov"):
        CentralFlow(problem, SGD(lr=0.1, momentum=0.9, nesterov=True))
    with pytest.raises(FlowError, match="followed"):
        CentralFlow(problem, sgd, followed=2.5)
    with pytest.raises(FlowError, match="third"):
        CentralFlow(problem, sgd, third="none")
    single = Problem(problem.model, problem.loss_fn, (problem.x, problem.y), dtype=torch.float32)
    coarse = CentralFlow(single, sgd, third="differences")
    with pytest.raises(FlowError, match="by differences of gradients are off by"):
        coarse.at(theta.float())
    flow = CentralFlow(problem, sgd, most=1)
    with pytest.raises(CentralFlowError, match="more than most = 1: raise most"):
        solve(flow, [0.0, 1.0], theta0=theta, check=False)
    run = train(problem, sgd, 2, batch_size=2)
    with pytest.raises(FlowError, match="on batches of 2"):
        solve(CentralFlow(problem, sgd), run, check=False)


def test_its_product_is_the_jacobians_at_rest() -> None:
    """Where F is 0 and third derivatives are constant, only how the eigenvector turns is left out of it."""
    flow = CentralFlow(valley(0.31, 0.1, 0.1, 3.0), SGD(lr=0.5), third="exact")
    place = torch.tensor([0.0, 3.0], dtype=torch.float64)
    flow.rhs(0.0, place)
    products = torch.stack([flow.jvp(0.0, place, v) for v in torch.eye(2, dtype=torch.float64)])
    step = 1e-6 * torch.eye(2, dtype=torch.float64)
    found = torch.stack([(flow.rhs(0.0, place + v) - flow.rhs(0.0, place - v)) / 2e-6 for v in step])
    torch.testing.assert_close(products, found, rtol=3e-3, atol=1e-4)


def test_in_float32_it_is_as_good_as_that(at_the_edge) -> None:
    problem, theta, sgd = at_the_edge
    coarse = Problem(problem.model, problem.loss_fn, (problem.x, problem.y), dtype=torch.float32)
    found = CentralFlow(coarse, sgd).at(theta.float())
    exact = CentralFlow(problem, sgd, third="exact").at(theta)
    np.testing.assert_allclose(found.variances, exact.variances, rtol=1e-2, atol=1e-2 * exact.variances[0])
    torch.testing.assert_close(
        found.field.double(), exact.field, rtol=0.0, atol=1e-2 * float(exact.field.norm())
    )


def test_a_loss_with_kinks_is_refused_before_anything_is_solved(at_the_edge) -> None:
    """Also where it is far from the edge."""
    problem, *_ = at_the_edge
    kinked = Problem(mlp([3, 4, 2], "relu", seed=1), problem.loss_fn, (problem.x, problem.y))
    with pytest.raises(
        FlowError, match=r"kinks \(ReLU\) has not: take a smooth network .*, or the modified flow"
    ):
        CentralFlow(kinked, SGD(lr=1e-3))


def test_an_overflow_is_no_number(at_the_edge) -> None:
    problem, theta, sgd = at_the_edge
    far = CentralFlow(problem, sgd).rhs(0.0, torch.full_like(theta, 1e200))
    assert bool(far.isnan().all())


def test_options_are_in_the_name(tiny: Problem) -> None:
    sgd = SGD(lr=0.1)
    plain, other = CentralFlow(tiny, sgd), CentralFlow(tiny, sgd, relaxation=0.5, second_order=False)
    assert (plain.name, plain.title) == ("central", "central flow")
    assert other.name == "central_relaxation_0.5_second_order_false"
    assert other.title == "central flow, relaxation = 0.5, second_order = false"
    names = {CentralFlow(tiny, sgd, **options).name for options in OPTIONS}
    assert len(names) == len(OPTIONS)


OPTIONS = (
    {},
    {"delayed": True},
    {"relaxation": 2.0},
    {"relaxation": 2.0, "delayed": True},
    {"followed": 1.9},
    {"followed": 1.9000001},
    {"second_order": False},
    {"third": "exact"},
    {"most": 4},
)
