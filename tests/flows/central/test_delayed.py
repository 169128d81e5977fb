"""The delayed central flow: its oscillation is the run's own, until it is the central flow's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from nm_ode import SGD, CentralFlow, FlowError, Problem, RMSprop, compare, final_state, solve, train
from nm_ode.flows.central.delayed import SIZE, WATCHED, Delay
from nm_ode.flows.growth import Recursion, amplitudes
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
    for x in (0.3, 0.6, 1.3, 1.7):  # held where noise and decay are even, r²v + n = v
        at_floor = Delay(math.log(1e-32) - math.log(1 - (1 - x) ** 2), after, 1e-32)
        assert at_floor.rates(x, 0.0, lr)[0] == pytest.approx(0.0, abs=1e-6)
    small, grown = Delay(math.log(1e-3), after, 0.0), Delay(math.log(1e-1), after, 0.0)
    assert small.share(1e-2) == pytest.approx(0.1)
    assert grown.share(1e-2) == 1.0
    assert grown.rates(2.0, 1e-2, lr)[0] > 0  # and it stays so, whatever the edge will need
    assert Delay(40.0, after, 0.0).share(1e9) == 1.0


@pytest.mark.parametrize("first", [0.2, 0.9, 1.8])
def test_from_far_below_the_edge_it_is_the_recursion_of_what_each_step_adds(first: float) -> None:
    """E δ² of δ' = (1 − x_k) δ + ξ, x going up from step to step to beyond 2, at every 20th step."""
    steps, noise, start = 240, 1e-15, 1e-6
    x = np.linspace(first, 2.4, steps)
    exact = 2 * np.log(amplitudes(x, np.full(steps, noise), Recursion(), start))

    def rate(k: float, log_variance: np.ndarray) -> float:
        here = float(np.interp(k - 0.5, np.arange(steps), x))
        return Delay(float(log_variance[0]), WATCHED, noise**2).rates(here, 0.0, 1.0)[0]

    def stiffness(k: float, log_variance: np.ndarray) -> list[list[float]]:
        here = float(np.interp(k - 0.5, np.arange(steps), x))
        return [[Delay(float(log_variance[0]), WATCHED, noise**2).stiffness(here, 0.0, 1.0)]]

    every = np.arange(0, steps + 1, 20)
    found = solve_ivp(
        rate, (0, steps), [2 * math.log(start)], "BDF", jac=stiffness, t_eval=every, rtol=1e-6, atol=1e-6
    )
    near = exact[every] > 2 * math.log(noise) + 0.1  # where r is next to 0 ℓ waits, which the floor forgets
    assert near.sum() > 5
    np.testing.assert_allclose(found.y[0][near], exact[every][near], atol=0.3)


def test_it_is_with_descent_while_the_oscillation_grows_and_at_the_edge_then() -> None:
    problem, sgd = valley(0.31, 0.1, 1e-2, 2.9), SGD(lr=0.5)
    run = train(problem, sgd, steps=160, save_every=10)
    flow = CentralFlow(problem, sgd, delayed=True, third="exact")
    plain = CentralFlow(problem, sgd, delayed=True)
    assert (plain.name, plain.title) == ("central_delayed", "central flow, delayed")
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


def test_beside_a_run_that_goes_on_from_another() -> None:
    """Plain descent has no state of its own: what the flow has beside theta is no reason to refuse the run."""
    problem, sgd = valley(0.31, 0.1, 0.1, 2.0), SGD(lr=0.5)
    first = train(problem, sgd, steps=3)
    run = train(problem, sgd, steps=4, state0=final_state(first))
    solution = solve(CentralFlow(problem, sgd, delayed=True), run, check=False)
    assert float(compare(run, solution).error[0]) == 0
