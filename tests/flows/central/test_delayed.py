"""The delayed central flow: its oscillation is the run's own, until it is the central flow's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nm_ode import SGD, CentralFlow, FlowError, Problem, RMSprop, compare, solve, train
from nm_ode.flows.central.delayed import SIZE, WATCHED, Delay
from tests.flows.central.test_central_flow import valley


def test_the_start_is_seen_in_steps_of_descent() -> None:
    """On L = λx²/2 + … the oscillation is (1 − ηλ)^k x_0."""
    problem, lr = valley(0.0, 0.0, 0.3, 2.9), 0.5
    flow = CentralFlow(problem, SGD(lr=lr), delayed=True)
    state = flow.state_from(problem.theta0)
    assert torch.equal(flow.theta_in(state), problem.theta0)
    assert len(state) == len(problem.theta0) + SIZE
    x, y = problem.theta0.tolist()
    path = []
    for _ in range(WATCHED + 2):
        path.append(x)
        x, y = x - lr * (1 + y) * x, y - lr * x**2 / 2
    off = (path[-3] - 2 * path[-2] + path[-1]) / 4
    assert Delay.of(state).log_variance == pytest.approx(2 * math.log(abs(off)), rel=1e-6)
    assert 0 < Delay.of(state).noise < 1e-30


def test_it_grows_as_the_recursion_does_from_no_less_than_rounding() -> None:
    after, lr = WATCHED + 1.0, 0.1
    assert Delay(-20.0, 0.0, 1e-32).rates(2.2, 1.0, lr) == [0.0, 1 / lr, 0.0]  # it was watched up to there
    assert Delay(-20.0, after, 1e-32).rates(2.2, 1.0, lr)[0] == pytest.approx(2 * math.log(1.2) / lr)
    assert Delay(-20.0, after, 1e-32).rates(1.7, 0.0, lr)[0] == pytest.approx(2 * math.log(0.7) / lr)
    at_floor = Delay(math.log(1e-32) - math.log(1 - 0.7**2), after, 1e-32)
    assert abs(at_floor.rates(1.7, 0.0, lr)[0]) < 0.3 / lr  # held where noise and decay are even
    small, grown = Delay(math.log(1e-3), after, 0.0), Delay(math.log(1e-1), after, 0.0)
    assert small.share(1e-2) == pytest.approx(0.1)
    assert grown.share(1e-2) == 1.0
    assert grown.rates(2.0, 1e-2, lr)[0] > 0  # and it stays so, whatever the edge will need
    assert Delay(40.0, after, 0.0).share(1e9) == 1.0


def test_it_is_with_descent_while_the_oscillation_grows_and_at_the_edge_then() -> None:
    problem, sgd = valley(0.31, 0.1, 1e-2, 2.9), SGD(lr=0.5)
    run = train(problem, sgd, steps=160, save_every=10)
    flow = CentralFlow(problem, sgd, delayed=True, third="exact")
    assert (flow.name, flow.title) == ("central_delayed", "central flow, delayed")
    solution = solve(flow, run, rtol=1e-4, check=False)
    growing = slice(3, 11)  # from the steps that it watched to the burst, up to ηλ = 2.05
    assert float(run.theta[growing, 1].max()) > 3.09
    np.testing.assert_allclose(solution.theta[: growing.stop, 1], run.theta[: growing.stop, 1], atol=1.5e-3)
    seen = np.abs(run.theta[growing, 0])
    np.testing.assert_allclose(np.sqrt(solution.oscillation_trace[growing]), seen, rtol=0.03)
    np.testing.assert_allclose(solution.theta[-1], [0.0, 3.0], atol=1e-3)
    np.testing.assert_allclose(solution.oscillation_trace[-1], 0.02, rtol=1e-2)
    assert "error" in compare(run, solution)


def test_of_other_optimisers_there_is_none(tiny: Problem) -> None:
    with pytest.raises(FlowError, match="central flow, delayed"):
        CentralFlow(tiny, RMSprop(lr=1e-3), delayed=True)


def test_of_a_start_from_which_descent_diverges_there_is_none() -> None:
    flow = CentralFlow(valley(0.31, 0.1, 0.1, 50.0), SGD(lr=0.5), delayed=True)
    with pytest.raises(FlowError, match=r"first 31 steps of descent, .* one is not finite"):
        solve(flow, [0.0, 1.0])
