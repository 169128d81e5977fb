"""Sample times: one sentence whatever the engine, and a clock that begins at the start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bridges import EngineError, get_engine
from bridges.problem import OdeProblem
from bridges.solving import solve_with
from nm_ode import GradientFlow, NmOdeError, Problem, solve
from nm_ode.solving import SolveError
from tests.loss.test_precision import X, Y

ENGINES = ["auto", "scipy", "sundials"]
METHODS = [("scipy", "DOP853"), ("scipy", "RK23"), ("sundials", "BDF"), ("sundials", "Adams")]


@pytest.fixture(scope="module")
def flow() -> GradientFlow:
    torch.manual_seed(0)
    return GradientFlow(Problem(nn.Linear(4, 2), nn.functional.mse_loss, (X, Y)))


@pytest.mark.parametrize(
    "times",
    [
        [5.0, 1.0, 0.0],
        [0.0, 0.0],
        [0.0, np.nan],
        [0.0, np.inf],
        [1e9, 1e9 + 1e-9],
        [0.0, 1e-300],
        [0.0, 1e300],
    ],
    ids=str,
)
def test_times_that_no_engine_takes_get_the_same_sentence(flow, times) -> None:
    said = set()
    for engine in (*ENGINES, "diffeq"):
        with pytest.raises(EngineError, match="sample times") as caught:
            solve(flow, times, engine=engine)
        said.add(str(caught.value))
    assert len(said) == 1


@pytest.mark.parametrize(
    "times", [[], 3.0, [[0.0, 1.0]], "abc", None, ["a"], [0, 1j], {"a": 1}, [True, False]], ids=str
)
def test_what_is_no_times_gets_the_same_sentence(flow, times) -> None:
    said = set()
    for engine in ENGINES:
        with pytest.raises(NmOdeError, match="t must be a run, or times in one dimension") as caught:
            solve(flow, times, engine=engine)
        said.add(str(caught.value))
    assert len(said) == 1


@pytest.mark.parametrize(
    "times", [range(3), (0, 1, 2), torch.arange(3), np.arange(3), np.arange(3.0)], ids=type
)
def test_times_of_any_kind(flow, times) -> None:
    np.testing.assert_array_equal(solve(flow, times)["time"], [0.0, 1.0, 2.0])


@pytest.mark.parametrize(("engine", "method"), METHODS)
@pytest.mark.parametrize("start", [-5.0, 1e6, 1e9, 1e15])
def test_an_autonomous_field_is_solved_alike_from_any_time(
    flow, engine: str, method: str, start: float
) -> None:
    """The intervals are such that float64 holds them beside any of these starts."""
    after = np.array([0.0, 0.5, 1.0, 2.0])
    there = solve(flow, start + after, engine=engine, method=method, check=False)
    here = solve(flow, after, engine=engine, method=method, check=False)
    np.testing.assert_array_equal(there["time"], start + after)
    np.testing.assert_array_equal(there["theta"], here["theta"])


def test_a_field_that_depends_on_time_has_the_callers_time() -> None:
    def cosine(t, y, dy):
        dy[:] = np.cos(t)

    for engine, method in METHODS:
        samples = []
        problem = OdeProblem(cosine, np.zeros(1), np.array([100.0, 101.0, 103.0]), rtol=1e-8, atol=1e-10)
        solved = solve_with(
            get_engine(engine), problem, method, lambda i, t, y, to=samples: to.append((t, y[0]))
        )
        assert solved.time == pytest.approx(103)
        exact = [(t, np.sin(t) - np.sin(100)) for t in (100.0, 101.0, 103.0)]
        np.testing.assert_allclose(samples, exact, atol=1e-6)


def test_a_failure_says_the_callers_time(flow) -> None:
    with pytest.raises(SolveError, match=r"was reached at t = 10[0-4]\.?\d*; raise max_rhs") as caught:
        solve(flow, [100.0, 104.0], engine="scipy", method="RK23", rtol=1e-8, max_rhs=50)
    assert caught.value.solution["time"].values.tolist() == [100.0]
    with pytest.raises(SolveError, match=r"at t = 1e\+09 \+ \d"):
        solve(flow, [1e9, 1e9 + 4], engine="scipy", method="RK23", rtol=1e-8, max_rhs=50)


def test_times_under_a_mask_are_no_times_and_a_tensor_without_values_has_none(flow) -> None:
    masked = np.ma.array([0.0, 1.0, 2.0], mask=[False, True, False])
    with pytest.raises(NmOdeError, match="masked"):
        solve(flow, masked)
    with pytest.raises(NmOdeError, match="masked"):
        solve(flow, [0.0, 1.0], theta0=np.ma.array(flow.problem.theta0.numpy(), mask=[True] + [False] * 9))
    with pytest.raises(NmOdeError, match="values"):
        solve(flow, torch.empty(3, device="meta"))
    with pytest.raises(NmOdeError, match="rtol"):
        solve(flow, [0.0, 1.0], rtol=np.ma.masked)


def test_times_in_any_dtype_of_torch_are_those_numbers(flow) -> None:
    expected = solve(flow, [0.0, 1.0, 2.0]).theta.values
    for times in (torch.arange(3), torch.arange(3.0).bfloat16(), np.ma.array([0, 1, 2])):
        np.testing.assert_array_equal(solve(flow, times).theta.values, expected)
