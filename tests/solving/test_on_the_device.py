"""Engine torch: a solve whose state stays where the flow computes."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bridges import get_engine
from nm_ode import (
    SGD,
    ArgumentError,
    FlowError,
    GradientFlow,
    Observer,
    Problem,
    Sketch,
    SolveError,
    Variable,
    modified_flow,
    solve,
    solve_info,
    train,
)
from nm_ode.models import mlp

TIMES = [0.0, 0.3, 1.0, 2.5, 4.0]
SAME_SCHEMES = [("DOP853", None), ("RK23", None), ("Midpoint", 0.03), ("RK8", 0.1)]
METHODS = [*SAME_SCHEMES, ("RK45", None), ("RKC2", None)]


@pytest.mark.parametrize(("method", "step"), SAME_SCHEMES)
def test_the_same_scheme_gives_what_scipy_gives(tiny: Problem, method: str, step: float | None) -> None:
    options: dict[str, Any] = {"method": method, "step": step}
    ours, theirs = (solve(GradientFlow(tiny), TIMES, engine=name, **options) for name in ("torch", "scipy"))
    assert set(ours.variables) == set(theirs.variables)
    for name in ("theta", "loss", "grad_norm"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours["solver_error"], theirs["solver_error"], rtol=1e-3, atol=1e-13)
    one, other = solve_info(ours), solve_info(theirs)
    assert (one.steps, one.rejected_steps) == (other.steps, other.rejected_steps)
    assert one.gradient_evaluations == other.gradient_evaluations
    assert (one.check_status, one.check_verdict) == (other.check_status, other.check_verdict)


@pytest.mark.parametrize(("method", "step"), METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_error_is_what_is_said(
    tiny: Problem, method: str, step: float | None, dtype: torch.dtype
) -> None:
    """Against DOP853 at 1e-12 in float64, by tolerances or step from coarse to fine."""
    problem = Problem(tiny.model, tiny.loss_fn, (tiny.x, tiny.y), dtype=dtype)
    start = problem.theta0.double()
    right = solve(GradientFlow(tiny), TIMES, theta0=start, rtol=1e-12, engine="scipy", method="DOP853")
    for rtol in (1e-3, 1e-5):
        solution = solve(GradientFlow(problem), TIMES, engine="torch", method=method, step=step, rtol=rtol)
        true = np.linalg.norm(solution["theta"].values - right["theta"].values, axis=1)
        assert solve_info(solution).check_verdict == "measured"
        assert (solution["solver_error"].values[1:] > true[1:] / 4 - 1e-12).all()
        assert true[-1] < 30 * rtol


@dataclass(frozen=True)
class Watched(GradientFlow):
    """Gradient flow that remembers where its states lay."""

    seen: list[Tensor] = field(default_factory=list)

    def rhs(self, t: float, state: Tensor, out: Tensor | None = None) -> Tensor:
        self.seen.append(state)
        return super().rhs(t, state, out)


class Seen(Observer):
    """Remembers the thetas that it was shown."""

    variables = {"sum": Variable((), "sum of theta")}  # noqa: RUF012

    def __init__(self) -> None:
        self.thetas: list[Tensor] = []

    def observe(self, view):
        self.thetas.append(view.theta)
        return {"sum": view.theta.sum()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_states_are_the_engines_own_and_nothing_goes_through_numpy(
    tiny: Problem, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem(tiny.model, tiny.loss_fn, (tiny.x, tiny.y), dtype=dtype)
    flow, seen = Watched(problem), Seen()
    solve(flow, [0.0, 1.0], engine="torch", method="RK23", check=False)  # what is measured once for a problem
    flow.seen.clear()

    def of_numbers_alone(to_numpy):
        def called(given: Any) -> Any:
            assert np.prod(given.shape) < problem.layout.size
            return to_numpy(given)

        return called

    monkeypatch.setattr(Tensor, "numpy", of_numbers_alone(Tensor.numpy))
    monkeypatch.setattr(torch, "from_numpy", of_numbers_alone(torch.from_numpy))
    solve(flow, [0.0, 1.0], engine="torch", method="RK23", rtol=1e-3, record=(), observe=[seen], check=False)
    assert {state.dtype for state in flow.seen} == {dtype}
    assert len({state.data_ptr() for state in flow.seen}) <= 4
    assert {theta.dtype for theta in seen.thetas} == {torch.float64}


class Still(GradientFlow):
    """A field that is zero, without saying how to write it anywhere."""

    def rhs(self, t: float, state: Tensor) -> Tensor:  # type: ignore[override]
        return torch.zeros_like(state)


def test_a_right_hand_side_that_is_overridden_is_what_is_solved(tiny: Problem) -> None:
    solution = solve(Still(tiny), [0.0, 1.0], engine="torch", method="RK23", check=False)
    assert np.array_equal(solution["theta"][0], solution["theta"][1])


class Writing(GradientFlow):
    def rhs(self, t: float, state: Tensor) -> Tensor:  # type: ignore[override]
        return state.neg_()


class WritingObserver(Seen):
    def observe(self, view):
        return {"sum": view.theta.zero_().sum()}


def test_who_writes_to_the_solvers_state_is_told(tiny: Problem) -> None:
    before = tiny.theta0.clone()
    with pytest.raises(FlowError, match="rhs writes to the state"):
        solve(Writing(tiny), [0.0, 1.0], theta0=before, engine="torch", method="RK23", check=False)
    with pytest.raises(ArgumentError, match=r"wrote to view.theta"):
        solve(GradientFlow(tiny), [0.0, 1.0], theta0=before, engine="torch", observe=[WritingObserver()])


class Graphs(GradientFlow):
    """θ̇ = −θ by autograd, of the state that is given; written where it is wanted with its graph."""

    def rhs(self, t: float, state: Tensor, out: Tensor | None = None) -> Tensor:
        (found,) = torch.autograd.grad(state.requires_grad_().square().sum() / -2, state, create_graph=True)
        return found if out is None else out.copy_(found)


class GraphsToo(Observer):
    variables = {"length": Variable((), "length of theta")}  # noqa: RUF012

    def observe(self, view):
        theta = view.theta.requires_grad_()
        return {"length": torch.autograd.grad(theta.square().sum() / 2, theta)[0].norm()}


@pytest.mark.parametrize(("method", "step"), METHODS)
def test_graphs_of_a_flow_or_an_observer_end_with_them(
    tiny: Problem, method: str, step: float | None
) -> None:
    options: dict[str, Any] = {"method": method, "step": step, "observe": [GraphsToo()]}
    solution = solve(Graphs(tiny), TIMES, engine="torch", **options)
    length = float(tiny.theta0.norm())
    np.testing.assert_allclose(solution["length"], length * np.exp(-np.array(TIMES)), atol=1e-3)
    assert not tiny.theta0.requires_grad


@pytest.mark.parametrize("engine", ["scipy", "torch"])
@pytest.mark.parametrize("wrong", [torch.ones(1), torch.ones(1, 26), None, np.ones(26)])
def test_a_right_hand_side_of_another_shape_is_none(tiny: Problem, engine: str, wrong: Any) -> None:
    """One number is not one for all parameters."""

    class Wrong(GradientFlow):
        def rhs(self, t: float, state: Tensor) -> Tensor:  # type: ignore[override]
            return wrong

    with pytest.raises(FlowError, match=r"gradient flow: rhs must return a tensor .* \(26,\); it returned"):
        solve(Wrong(tiny), [0.0, 1.0], engine=engine, method="RK23", check=False)


def test_the_start_stays_what_it_was(tiny: Problem) -> None:
    start, own = torch.full((26,), 0.1, dtype=torch.float64), tiny.theta0.clone()
    for theta0 in (None, start):
        for method, step in METHODS:
            solve(GradientFlow(tiny), [0.0, 0.5], theta0=theta0, engine="torch", method=method, step=step)
    assert torch.equal(start, torch.full((26,), 0.1, dtype=torch.float64))
    assert torch.equal(tiny.theta0, own)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_modified_flows_with_all_of_the_optimisers_state(tiny: Problem, momentum: float) -> None:
    optimizer = SGD(lr=0.05, momentum=momentum)
    run = train(tiny, optimizer, 20, save_every=10)
    flow = modified_flow(tiny, optimizer, 3)
    ours, theirs = (solve(flow, run, engine=name, method="DOP853", rtol=1e-8) for name in ("torch", "scipy"))
    np.testing.assert_allclose(ours["theta"], theirs["theta"], rtol=1e-10)
    assert solve_info(ours).stateful == (momentum > 0)


def test_a_sketch_stands_in_for_theta(tiny: Problem) -> None:
    sketch = Sketch(m=64)
    whole = solve(
        GradientFlow(tiny), TIMES, engine="torch", method="RK23", observe=[Sketch(64, keep_theta=True)]
    )
    solution = solve(GradientFlow(tiny), TIMES, engine="torch", method="RK23", observe=[sketch])
    assert "theta" not in solution
    np.testing.assert_array_equal(solution["theta_sketch"], whole["theta_sketch"])
    # 26 entries in 64 rows: no two of a block share one, so the estimate is good.
    np.testing.assert_allclose(solution["solver_error"], whole["solver_error"], rtol=0.5)


def test_a_loss_that_overflows_stops_with_the_remedy(tiny: Problem) -> None:
    uphill = Problem(nn.Linear(4, 1), lambda out, y: -(out**4).mean(), (torch.ones(3, 4), torch.ones(3, 1)))
    for method, step in (("RK23", None), ("RKC2", None), ("RK8", 0.1)):
        with pytest.raises(SolveError, match=rf"torch {method} stopped: .* at t = "):
            solve(GradientFlow(uphill), [0.0, 1e4], engine="torch", method=method, step=step)


@pytest.mark.parametrize(("method", "step"), METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_more_vectors_are_held_than_is_said(method: str, step: float | None, dtype: torch.dtype) -> None:
    """While it is solved: the method's own, and a start in float64 where the problem's is not."""
    x, y = torch.randn(6, 40), torch.randn(6, 5)
    problem = Problem(mlp([40, 60, 5], "tanh"), nn.functional.mse_loss, (x, y), dtype=dtype)
    size = problem.layout.size
    most: dict[torch.dtype, int] = {}

    class Counting(GradientFlow):
        def rhs(self, t: float, state: Tensor, out: Tensor | None = None) -> Tensor:
            nonlocal calls
            calls += 1
            if calls in (2, 25):
                found: dict[int, tuple[torch.dtype, float]] = {}
                for one in gc.get_objects():  # those since the freeze
                    if type(one) not in (Tensor, nn.Parameter) or one.layout is not torch.strided:
                        continue
                    if one.untyped_storage().nbytes() >= 4 * size:
                        memory = one.untyped_storage()
                        if memory.data_ptr() != problem.theta0.data_ptr():
                            found[memory.data_ptr()] = (one.dtype, memory.nbytes() / one.itemsize / size)
                for kind in (torch.float64, torch.float32):
                    held = sum(vectors for dtype, vectors in found.values() if dtype == kind)
                    most[kind] = max(most.get(kind, 0), round(held))
            return super().rhs(t, state, out)

    flow, calls = Counting(problem), 0
    options: dict[str, Any] = {"engine": "torch", "method": method, "step": step, "rtol": 1e-3}
    solve(flow, [0.0, 0.2], record=(), check=False, **options)
    most.clear()
    gc.collect()
    gc.freeze()  # for good: what conftest.py froze would come back with it, and be looked through from now on
    calls = 0
    solve(flow, [0.0, 0.2], record=(), check=False, **options)
    state, stages = get_engine("torch").methods[method].vectors
    if dtype == torch.float64:  # the start is theta0 itself
        assert most == {torch.float64: state + stages, torch.float32: 0}
    else:
        assert most == {torch.float64: state + 1, torch.float32: stages}


def test_a_method_for_which_there_is_no_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(2, 500), torch.randn(2, 300)
    flow = GradientFlow(Problem(nn.Linear(500, 300), nn.functional.mse_loss, (x, y)))
    monkeypatch.setattr("nm_ode.memory.available", lambda: 10 * 8 * 150_300)
    with pytest.raises(
        ArgumentError, match=r"DOP853, with 14 vectors of 150,300 numbers.* take RK23 or RKC2 or"
    ):
        solve(flow, [0.0, 0.1], engine="torch", method="DOP853")
    solve(flow, [0.0, 0.1], engine="torch", method="RK23", record=["loss"], check=False)


def test_auto_for_states_that_are_large(
    tanh_digits: Problem, relu_digits: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridges.choosing.LARGE", 1000)
    options: dict[str, Any] = {"record": ["theta"], "check": False}
    kinked = solve(GradientFlow(relu_digits), [0.0, 0.5], **options)
    short = solve(GradientFlow(tanh_digits), [0.0, 1.0], **options)
    stiff = solve(GradientFlow(tanh_digits), [0.0, 100.0], rtol=1e-3, **options)
    found = [solve_info(one) for one in (kinked, short, stiff)]
    assert [(info.engine, info.method) for info in found] == [
        ("torch", "RK23"),
        ("torch", "DOP853"),
        ("torch", "RKC2"),
    ]
    assert all("numbers, and vectors on the host would cost more" in info.choice for info in found)
    bdf = solve(GradientFlow(tanh_digits), [0.0, 100.0], rtol=1e-3, engine="sundials", **options)
    true = solve(GradientFlow(tanh_digits), [0.0, 100.0], rtol=1e-6, engine="sundials", **options)
    motion = float(np.linalg.norm(true["theta"][-1] - true["theta"][0]))
    assert float(np.linalg.norm(stiff["theta"][-1] - true["theta"][-1])) < 1e-3 * motion
    assert found[2].rhs_evaluations < 1.9 * solve_info(bdf).rhs_evaluations
    # A velocity oscillates, for which a stabilised method is not made.
    heavy = modified_flow(tanh_digits, SGD(lr=0.1, momentum=0.9), 1)
    assert solve_info(solve(heavy, [0.0, 1.0], rtol=1e-3, **options)).method != "RKC2"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_on_a_gpu_auto_stays_there(tiny: Problem, dtype: torch.dtype) -> None:
    there = Problem(tiny.model, tiny.loss_fn, (tiny.x, tiny.y), dtype=dtype, device="cuda")
    seen = Seen()
    solution = solve(GradientFlow(there), TIMES, observe=[seen])
    info = solve_info(solution)
    assert info.engine == "torch"
    assert "GPU" in info.choice
    assert {theta.device.type for theta in seen.thetas} == {"cuda"}
    right = solve(GradientFlow(tiny), TIMES, theta0=there.theta0.cpu().double(), rtol=1e-11, engine="scipy")
    np.testing.assert_allclose(solution["theta"], right["theta"], atol=1e-4)
