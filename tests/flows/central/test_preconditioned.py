"""The central flow of RMSProp and of heavy ball: orbits in closed form, dense derivatives, order below the edge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from nm_ode import SGD, Adam, AdamW, FlowError, Optimizer, Problem, RMSprop, ScalarRMSprop, solve, train
from nm_ode.flows import CentralFlow, CentralFlowError
from nm_ode.flows.central.edge import distance_to_edge
from tests.oracles.dense import dense_hessian, regularised
from tests.oracles.valley import valley

B, C = 0.31, 0.1
DIVIDING = [RMSprop(lr=0.1, alpha=0.9, eps=0.02), ScalarRMSprop(lr=0.1, alpha=0.9, eps=0.02)]
STEPS = 7.0  # that Adam has taken: its correction, 1 − 0.9^7, is far from 1


def orbit(lr: float, eps: float) -> tuple[float, float]:
    """x and y of RMSProp's orbit (±x, y) on the valley: √v = (1+y)x, 2(√v + ε) = η(1+y), and x²/2 = b − cy.

    The other entry of the gradient is 0, so both forms have it.
    """
    x = lr / 2
    for _ in range(100):
        y = (B - x**2 / 2) / C
        x = lr / 2 - eps / (1 + y)
    return x, y


@pytest.mark.parametrize("optimizer", DIVIDING, ids=str)
def test_its_fixed_point_is_the_orbit_of_rmsprop(optimizer) -> None:
    x, y = orbit(optimizer.lr, optimizer.eps)
    square, size = ((1 + y) * x) ** 2, optimizer.state_layout(2).size
    state = torch.tensor([x, y, square, 0.0][:size], dtype=torch.float64)
    problem = valley(B, C, x, y)
    after = state
    for _ in range(2):
        after = after + optimizer.increment(after, problem.grad(after[:2]))
    torch.testing.assert_close(after, state, rtol=1e-12, atol=1e-14)
    state[0] = 0.0
    found = CentralFlow(problem, optimizer, third="exact").at(state)
    np.testing.assert_allclose(found.oscillation, [[x**2]], rtol=1e-10)
    assert float(found.field.norm()) < 1e-10
    there = torch.tensor([x, y], dtype=torch.float64)
    assert found.predicted_loss == pytest.approx(float(problem.loss(there)), rel=1e-10)
    assert found.predicted_grad_norm == pytest.approx(float(problem.grad(there).norm()), rel=1e-10)


def test_it_comes_to_the_orbit_of_rmsprop_and_stays() -> None:
    optimizer = DIVIDING[1]
    x, y = orbit(optimizer.lr, optimizer.eps)
    problem = valley(B, C, 0.01, 1.01 * y)
    state0 = torch.tensor([0.01, 1.01 * y, 0.5 * ((1 + y) * x) ** 2], dtype=torch.float64)
    run = train(problem, optimizer, 200, state0=state0, save_every=1)
    solution = solve(CentralFlow(problem, optimizer, third="exact"), run, rtol=1e-4, check=False)
    np.testing.assert_allclose(solution.theta[-1], [0.0, y], atol=2e-3)
    np.testing.assert_allclose(solution.oscillation_trace[-1], x**2, rtol=1e-2)
    np.testing.assert_allclose(np.abs(run.theta[-1]), [x, y], rtol=1e-2)


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_its_fixed_point_is_the_orbit_of_heavy_ball(beta: float) -> None:
    lr = 0.5 * (1 + beta)
    y = 2 * (1 + beta) / lr - 1
    variance = 2 * (B - C * y)
    ball, x = SGD(lr=lr, momentum=beta), variance**0.5
    problem = valley(B, C, x, y)
    # v changes its sign with x, whose step −ηv' is −2x.
    state = torch.tensor([x, y, -2 * x / lr, 0.0], dtype=torch.float64)
    after = state + ball.increment(state, problem.grad(state[:2]))
    torch.testing.assert_close(after, state * torch.tensor([-1, 1, -1, 1]), rtol=1e-12, atol=1e-14)
    found = CentralFlow(problem, ball, third="exact").at(torch.tensor([0.0, y], dtype=torch.float64))
    np.testing.assert_allclose(found.oscillation, [[variance]], rtol=1e-10)
    assert float(found.field.norm()) < 1e-10


@pytest.fixture(scope="module")
def place(tiny: Problem) -> Tensor:
    return tiny.theta0 + 0.1


def at_the_edge(problem: Problem, theta: Tensor, optimizer: Optimizer) -> tuple[Optimizer, Tensor]:
    """A learning rate with which two eigenvalues are past the edge and one is near, and the flow's state."""
    decay = optimizer.stability.decay
    hessian = dense_hessian(regularised(problem, decay), theta)
    gradient = problem.grad(theta) + decay * theta
    diagonal, state = torch.ones_like(theta), theta
    if optimizer.second_moment is not None:
        memory = gradient.square() + 0.3 * gradient.square().mean()
        memory = memory.sum().reshape(1) if optimizer.second_moment.whole else memory
        state = torch.cat([theta, 0.8 * memory])
        if optimizer.second_moment.corrected:
            state = torch.cat([state, torch.full((1,), STEPS, dtype=state.dtype)])
        diagonal = (0.8 * memory).sqrt() + optimizer.eps
    root = (diagonal * torch.ones_like(theta)).sqrt()
    values = torch.linalg.eigvalsh(hessian / root / root[:, None]).flip(0)
    share = optimizer.stability.step / optimizer.lr
    return replace(optimizer, lr=float(0.995 * optimizer.stability.limit / values[2] / share)), state


@pytest.mark.parametrize(
    "optimizer",
    [
        RMSprop(lr=1.0, alpha=0.9, eps=1e-3, weight_decay=0.05),
        ScalarRMSprop(lr=1.0, alpha=0.9, eps=1e-3, weight_decay=0.05),
        Adam(lr=1.0, betas=(0.0, 0.9), eps=1e-3, weight_decay=0.05),
        SGD(lr=1.0, momentum=0.8, dampening=0.3, weight_decay=0.05),
    ],
    ids=str,
)
def test_the_distance_from_the_edge_goes_as_it_is_said(tiny: Problem, place: Tensor, optimizer) -> None:
    """S = (E − Λ)/τ + d/dt Uᵀ(E D − H)U, by differences along the field, is semidefinite and orthogonal to X."""
    optimizer, state = at_the_edge(tiny, place, optimizer)
    flow = CentralFlow(tiny, optimizer, second_order=False, third="exact")
    found, n = flow.at(state), len(place)
    edge = optimizer.stability.limit / optimizer.stability.step
    assert len(found.values) >= 3
    assert found.variances[0] > 0

    def bound(at: Tensor) -> Tensor:
        """E D − H."""
        memory = at[n:-1] if isinstance(optimizer, Adam) else at[n:]
        diagonal = memory.sqrt() + optimizer.eps if len(memory) else torch.ones(1, dtype=at.dtype)
        hessian = dense_hessian(regularised(tiny, 0.05), at[:n])
        return torch.diag(edge * diagonal * torch.ones_like(at[:n])) - hessian

    step = 2e-6 / float(found.field.norm())
    rate = (bound(state + step * found.field) - bound(state - step * found.field)) / (2 * step)
    # All u with Hu = λDu and u_iᵀDu_j = δ_ij in the span of the vectors.
    span, tight = found.vectors, bound(state)
    hessian = dense_hessian(regularised(tiny, 0.05), place)
    low = torch.linalg.cholesky(span @ ((tight + hessian) / edge) @ span.T)
    inner = torch.linalg.solve(low, span @ tight @ span.T) @ torch.linalg.inv(low).T
    gaps, turn = torch.linalg.eigh(inner)
    directions = turn.T @ torch.linalg.solve(low, span)
    np.testing.assert_allclose(edge - gaps.numpy(), found.values, rtol=1e-6)
    gap = distance_to_edge(found.values, edge, 0.025 * edge)
    tau = optimizer.stability.step
    slack = np.diag(gap) / tau + (directions @ rate @ directions.T).numpy()
    size = float(np.abs(np.diag(gap) / tau).max())
    to_directions = torch.linalg.inv(directions @ span.T).numpy()
    x = to_directions.T @ found.oscillation @ to_directions
    assert np.linalg.eigvalsh(slack)[0] > -1e-5 * size
    assert np.abs(slack @ x).max() < 1e-5 * size * np.abs(x).max()


def dividing(kind: type[Optimizer], alpha: float, **rest: float) -> Optimizer:
    return kind(**rest, **({"betas": (0.0, alpha)} if issubclass(kind, Adam) else {"alpha": alpha}))


@pytest.mark.parametrize("kind", [RMSprop, ScalarRMSprop, Adam])
def test_below_the_edge_it_follows_to_order_two(tiny: Problem, kind) -> None:
    """With a memory of the same time: 1 − α goes with the learning rate. Not so without its terms of order η."""
    gradient = tiny.grad(tiny.theta0)
    memory = 4 * gradient.square() + 0.1
    memory = memory.sum().reshape(1) if kind is ScalarRMSprop else memory
    if kind is Adam:  # with the mean, which is not used, and its steps so far
        memory = torch.cat([torch.zeros_like(memory), memory, torch.tensor([2.0], dtype=memory.dtype)])
    errors = []
    for steps, second_order in ((12, True), (24, True), (24, False)):
        optimizer = dividing(kind, 1 - 2 / steps, lr=0.5 / steps, eps=1e-3, weight_decay=0.05)
        if kind is Adam:  # as far on its way, in flow time
            memory[-1] = steps / 4
        run = train(tiny, optimizer, steps, state0=torch.cat([tiny.theta0, memory]))
        flow = CentralFlow(tiny, optimizer, second_order=second_order)
        solution = solve(flow, run, rtol=1e-6, record=["theta"], check=False)
        assert float(solution.critical_count.max()) == 0
        errors.append(float(np.linalg.norm(solution.theta[-1] - run.theta[-1])))
    assert 3.2 < errors[0] / errors[1] < 5.5
    assert errors[1] < 0.1 * errors[2]


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (RMSprop(lr=0.1, momentum=0.5), "RMSprop: it is that of SGD .* without momentum"),
        (RMSprop(lr=0.1, centered=True), "not centred"),
        (RMSprop(lr=0.1, alpha=0.0), "alpha .* set it above 0"),
        (Adam(lr=0.1), r"Adam with betas\[0\] = 0"),
        (AdamW(lr=0.1, betas=(0.0, 0.9)), "AdamW without weight_decay"),
        (SGD(lr=0.1, momentum=0.9, nesterov=True), "nesterov = False"),
    ],
)
def test_optimisers_without_one_are_named(tiny: Problem, optimizer, words: str) -> None:
    with pytest.raises(FlowError, match=words):
        CentralFlow(tiny, optimizer)


def test_a_start_without_a_memory_is_refused_where_it_is_far_past_the_edge(tiny: Problem) -> None:
    optimizer = RMSprop(lr=0.1, alpha=0.999)
    cold = CentralFlow(tiny, optimizer)
    with pytest.raises(
        CentralFlowError, match=r"times that of the edge .* RMSprop has no memory .* start warm"
    ):
        cold.at(cold.state_from(tiny.theta0))
