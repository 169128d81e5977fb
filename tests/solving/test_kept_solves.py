"""A solve that was cut off goes on from its checkpoint, in its check too."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from bridges.julia.engine import using_backend
from nm_ode import (
    SGD,
    Charges,
    Checkpoint,
    GradientFlow,
    MinibatchFlow,
    Problem,
    SolveError,
    solve,
    solve_info,
    symmetries_of,
    train,
)
from nm_ode.flows import Flow
from nm_ode.models import mlp

TIMES = [0.0, 0.5, 1.0, 2.5, 4.0]


class CutOffError(Exception):
    """The solve is broken off here."""


@dataclass
class Counter:
    left: float = float("inf")
    taken: int = 0


@dataclass(frozen=True)
class Interrupted(GradientFlow):
    """Gradient flow whose right-hand side fails after so many calls."""

    counter: Counter = field(default_factory=Counter)

    def rhs(self, t: float, state: Tensor) -> Tensor:
        self.counter.taken += 1
        self.counter.left -= 1
        if self.counter.left == 0:
            raise CutOffError
        return super().rhs(t, state)


def cut_off_and_on(
    flow: Flow, counter: Counter, path: Path, t: Any, shares: tuple[float, ...], **options: Any
):
    """The whole solution, the one in pieces of these shares of the work, and what was said."""
    whole = solve(flow, t, **options)
    said: list[str] = []
    checkpoint = Checkpoint(path, 0, said.append)
    total = counter.taken
    for share in shares:
        counter.left = int(total * share)
        with pytest.raises(CutOffError):
            solve(flow, t, checkpoint=checkpoint, **options)
    counter.left = float("inf")
    return whole, solve(flow, t, checkpoint=checkpoint, **options), said


ONE_STEP = [
    ("scipy", "RK23", None),
    ("scipy", "DOP853", None),
    ("scipy", "Midpoint", 0.03),
    ("scipy", "RK8", 0.1),
    ("torch", "RK23", None),
    ("torch", "RKC2", None),
    ("torch", "RK8", 0.1),
]
OTHERS = [("sundials", "BDF", None), ("sundials", "Adams", None), ("diffeq", "Tsit5", None)]


@pytest.mark.parametrize(("engine", "method", "step"), [*ONE_STEP, *OTHERS])
def test_it_goes_on(tiny: Problem, engine: str, method: str, step: float | None, tmp_path: Path) -> None:
    counter, on = Counter(), [Charges(symmetries_of(tiny))]
    flow = Interrupted(tiny, counter=counter)
    options: dict[str, Any] = {"engine": engine, "method": method, "step": step, "rtol": 1e-5, "observe": on}
    with using_backend("tests.bridges.stand_in:StandIn"):
        whole, gone_on, said = cut_off_and_on(
            flow, counter, tmp_path / "c", TIMES, (0.3, 0.3, 0.3), **options
        )
    assert len(said) == 3
    found, alone = solve_info(gone_on), solve_info(whole)
    assert (found.restarts, alone.restarts) == (3, 0)
    assert found.check_status == alone.check_status
    if (engine, method, step) in ONE_STEP:
        for name in whole.data_vars:
            np.testing.assert_array_equal(gone_on[name], whole[name])
        assert found.steps == alone.steps
        assert found.rhs_evaluations == alone.rhs_evaluations
    else:
        bound = 5 * float(whole["solver_error"].max()) + 1e-12
        np.testing.assert_allclose(gone_on["theta"], whole["theta"], atol=bound)
        assert found.rhs_evaluations >= alone.rhs_evaluations
    assert [file.name for file in tmp_path.iterdir()] == ["c"]


def test_beside_a_run_on_minibatches_piece_by_piece(tiny: Problem, tmp_path: Path) -> None:
    counter = Counter()
    run = train(tiny, SGD(lr=0.05), 10, batch_size=7, save_every=5)
    flow = MinibatchFlow.beside(Interrupted(tiny, counter=counter), run)
    whole, gone_on, said = cut_off_and_on(flow, counter, tmp_path / "c", run, (0.25, 0.37))
    assert len(said) == 2
    xr.testing.assert_equal(gone_on, whole)


def test_a_solve_that_was_done_is_not_solved_again(tiny: Problem, tmp_path: Path) -> None:
    counter = Counter()
    flow = Interrupted(tiny, counter=counter)
    checkpoint = Checkpoint(tmp_path / "c", 0)
    whole = solve(flow, TIMES, checkpoint=checkpoint)
    taken, counter.taken = counter.taken, 0
    xr.testing.assert_equal(solve(flow, TIMES, checkpoint=checkpoint), whole)
    assert counter.taken < 0.1 * taken  # those of the choice of a method alone


def test_a_limit_may_be_raised(tiny: Problem, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "engine": "scipy",
        "method": "DOP853",
        "checkpoint": Checkpoint(tmp_path / "c", 0),
    }
    with pytest.raises(SolveError):
        solve(GradientFlow(tiny), TIMES, max_rhs=60, **options)
    solution = solve(GradientFlow(tiny), TIMES, **options)
    assert solve_info(solution).restarts == 1
    xr.testing.assert_equal(solution, solve(GradientFlow(tiny), TIMES, engine="scipy", method="DOP853"))


CHANGES: dict[str, dict[str, Any]] = {
    "field": {"optimizer": SGD(lr=0.1, weight_decay=1e-3)},
    "start": {"theta0": torch.full((26,), 0.1, dtype=torch.float64)},
    "times": {"t": [0.0, 1.0, 5.0]},
    "rtol": {"rtol": 1e-6},
    "method": {"method": "RK23"},
    "step": {"max_step": 0.5},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_kept_of_another_solve_is_not_used(tiny: Problem, change: str, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"t": TIMES, "engine": "scipy", "method": "DOP853", "rtol": 1e-5}
    said: list[str] = []
    checkpoint = Checkpoint(tmp_path / "c", 0, said.append)
    with pytest.raises(CutOffError):
        solve(Interrupted(tiny, counter=Counter(left=50)), checkpoint=checkpoint, **asked)
    other = dict(CHANGES[change])
    flow = Interrupted(tiny, other.pop("optimizer", None))
    solution = solve(flow, checkpoint=checkpoint, **{**asked, **other})
    assert solve_info(solution).restarts == 0
    assert len(said) == 1
    xr.testing.assert_equal(solution, solve(flow, **{**asked, **other}))


def test_an_engine_that_cannot_go_on_says_so(tiny: Problem, tmp_path: Path, monkeypatch) -> None:
    from bridges.scipy_ivp import ScipyEngine

    monkeypatch.setattr(ScipyEngine, "goes_on", False)
    said: list[str] = []
    solve(GradientFlow(tiny), TIMES, engine="scipy", checkpoint=Checkpoint(tmp_path / "c", 0, said.append))
    assert "scipy" in said[0]
    assert not list(tmp_path.iterdir())


def test_float32_too(tiny: Problem, tmp_path: Path) -> None:
    small = Problem(mlp([3, 4, 2], "tanh"), nn.functional.mse_loss, (tiny.x, tiny.y), dtype=torch.float32)
    counter = Counter()
    flow = Interrupted(small, counter=counter)
    for engine in ("scipy", "torch"):
        options: dict[str, Any] = {"engine": engine, "method": "RK23", "rtol": 1e-3}
        counter.taken = 0
        whole, gone_on, said = cut_off_and_on(
            flow, counter, tmp_path / engine, [5 + t for t in TIMES], (0.4,), **options
        )
        assert len(said) == 1
        xr.testing.assert_equal(gone_on, whole)


class Graphs(Interrupted):
    """θ̇ = −θ by autograd, of the state that is given, with its graph."""

    def rhs(self, t: float, state: Tensor) -> Tensor:
        super().rhs(t, state)
        (found,) = torch.autograd.grad(state.requires_grad_().square().sum() / -2, state, create_graph=True)
        return found


@pytest.mark.parametrize("engine", ["scipy", "torch"])
def test_a_field_that_comes_with_its_graph_is_kept_too(tiny: Problem, tmp_path: Path, engine: str) -> None:
    counter = Counter()
    options: dict[str, Any] = {"engine": engine, "method": "RK23"}
    flow = Graphs(tiny, counter=counter)
    whole, gone_on, said = cut_off_and_on(flow, counter, tmp_path / "c", TIMES, (0.4,), **options)
    assert len(said) == 1
    xr.testing.assert_equal(gone_on, whole)


@pytest.mark.parametrize("method", ["BDF", "Adams"])
def test_a_check_that_took_the_same_steps_is_no_check_after_going_on_either(
    method: str, tmp_path: Path
) -> None:
    problem = Problem(nn.Linear(4, 2), nn.functional.mse_loss, (torch.randn(24, 4), torch.randn(24, 2)))
    counter = Counter()
    asked: dict[str, Any] = {"engine": "sundials", "method": method, "rtol": 1e-6, "atol": 1e4}
    times = np.linspace(0, 20, 6)
    whole, gone_on, _ = cut_off_and_on(
        Interrupted(problem, counter=counter), counter, tmp_path / "c", times, (0.1, 0.2), **asked
    )
    right = solve(GradientFlow(problem), times, engine="scipy", method="DOP853", rtol=1e-11)
    for solution in (whole, gone_on):
        true = np.linalg.norm(solution["theta"] - right["theta"], axis=1)
        known = solution["solver_error"].values
        assert ((known > true / 3) | np.isnan(known))[1:].all()
