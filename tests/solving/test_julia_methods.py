"""solve with methods of DifferentialEquations.jl: what they are given, and which is taken."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from bridges import EngineError, get_engine
from bridges.julia.installing import installation
from nm_ode import (
    SGD,
    Adam,
    GradientFlow,
    Problem,
    SecondOrderFlow,
    SolveError,
    final_state,
    modified_flow,
    solve,
    solve_info,
    train,
)
from nm_ode.solving.field import Field
from nm_ode.solving.stiffness import SharpnessBound
from tests.oracles.dense import dense_hessian, dense_loss

NO_JULIA = installation().lacks
needs_julia = [pytest.mark.julia, pytest.mark.skipif(bool(NO_JULIA), reason=f"no Julia: {NO_JULIA}")]


JULIA = [("stand-in", "FBDF"), ("stand-in", "ROCK4"), ("stand-in", "Vern7")]
JULIA += [
    ("diffeq", method)
    for method in ("FBDF", "QNDF", "KenCarp4", "TRBDF2", "Rodas5P", "ROCK2", "ROCK4", "RKC", "DP5")
]


@pytest.mark.parametrize(
    ("engine", "method"),
    [pytest.param(*pair, marks=needs_julia if pair[0] == "diffeq" else ()) for pair in JULIA],
)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_methods_of_julia_with_the_flows_own_jacobian_and_sharpness(
    tiny: Problem, engine: str, method: str, weight_decay: float, request
) -> None:
    if engine == "stand-in":  # it holds the Jacobian's product against a difference quotient
        request.getfixturevalue("stand_in")
    flow = GradientFlow(tiny, SGD(lr=0.1, weight_decay=weight_decay))
    exact = solve(flow, [0.0, 1.0, 3.0], engine="scipy", rtol=1e-11, check=False)
    found = solve(flow, [0.0, 1.0, 3.0], engine="diffeq", method=method, rtol=1e-7, check=False)
    np.testing.assert_allclose(found["theta"], exact["theta"], rtol=0, atol=1e-4)
    assert found.attrs["method"] == method
    info, implicit = solve_info(found), get_engine("diffeq").methods[method].kind == "implicit"
    assert (info.probe_rhs_evaluations > 0) == (method.startswith("R") and method != "Rodas5P")
    assert (info.jvp_evaluations > 0) == implicit
    assert info.hvp_evaluations == info.jvp_evaluations
    assert info.gradient_evaluations == info.rhs_evaluations
    others = info.jvp_evaluations + info.probe_rhs_evaluations
    # A product takes some time, and what that is in gradients was measured.
    assert (info.gradient_equivalents > info.rhs_evaluations) == (others > 0)


@dataclass(frozen=True)
class SlowFlow(GradientFlow):
    """A gradient takes 1 ms, a product 2 ms more."""

    def rhs(self, t: float, state: torch.Tensor) -> torch.Tensor:
        time.sleep(1e-3)
        return super().rhs(t, state)

    def _jvp(self, t: float, state: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        time.sleep(2e-3)
        return super()._jvp(t, state, v)


def test_a_product_counts_as_its_time_in_gradients(tiny: Problem, stand_in) -> None:
    options = {"engine": "diffeq", "method": "FBDF", "rtol": 1e-4, "record": ["theta"]}
    info = solve_info(solve(SlowFlow(tiny), [0.0, 0.5], **options))
    per_product = (info.gradient_equivalents - info.rhs_evaluations) / info.jvp_evaluations
    assert 1.2 < per_product < 3
    assert info.check_jvp_evaluations > 0
    # A limit holds for gradients and products together.
    most = info.rhs_evaluations + info.jvp_evaluations // 2
    with pytest.raises(SolveError, match=r"Jacobian products was reached .*; raise max_rhs") as caught:
        solve(SlowFlow(tiny), [0.0, 0.5], max_rhs=most, check=False, **options)
    stopped = solve_info(caught.value.solution)
    assert stopped.rhs_evaluations + stopped.jvp_evaluations == most


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_flow_without_a_product_is_solved_by_differences(tiny: Problem, stand_in, momentum: float) -> None:
    optimizer = SGD(lr=0.1, momentum=momentum)
    made = SecondOrderFlow(tiny, optimizer) if momentum else modified_flow(tiny, optimizer, 2)
    exact = solve(made, [0.0, 0.3, 1.0], engine="scipy", rtol=1e-9, check=False)
    found = solve(made, [0.0, 0.3, 1.0], engine="diffeq", method="FBDF", rtol=1e-7, check=False)
    np.testing.assert_allclose(found["theta"], exact["theta"], rtol=0, atol=1e-5)
    info = solve_info(found)
    assert (info.jvp_evaluations, info.probe_rhs_evaluations) == (0, 0)


def test_differences_take_steps_for_the_size_of_each_entry(tiny: Problem, stand_in) -> None:
    """Small second moments, moved as far as a parameter, are below zero: near a minimum Adam had no product."""
    adam = Adam(lr=1e-2, weight_decay=0.1)
    run = train(tiny, adam, 5, state0=final_state(train(tiny, adam, 2000)))
    flow = modified_flow(tiny, adam, 1)
    exact = solve(flow, run, engine="scipy", rtol=1e-8, check=False)
    found = solve(flow, run, engine="diffeq", method="FBDF", rtol=1e-4, check=False)
    np.testing.assert_allclose(found["theta"], exact["theta"], rtol=0, atol=1e-5)


def test_in_single_precision_differences_take_steps_for_it(stand_in) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(20, 3), torch.randn(20, 2)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    flow = modified_flow(Problem(model, torch.nn.functional.mse_loss, (x, y)), SGD(lr=0.1), 2)
    exact = solve(flow, [0.0, 3.0], engine="scipy", rtol=1e-6, check=False)
    found = solve(flow, [0.0, 3.0], engine="diffeq", method="FBDF", rtol=1e-4, check=False)
    np.testing.assert_allclose(found["theta"], exact["theta"], rtol=0, atol=1e-3)
    assert found.attrs["rhs_evaluations"] < 20 * exact.attrs["rhs_evaluations"]


def test_the_sharpness_that_stabilised_methods_are_given_is_a_bound(tiny: Problem) -> None:
    loss = dense_loss(tiny.model, tiny.loss_fn, tiny.x, tiny.y)
    field, theta = Field(GradientFlow(tiny)), tiny.theta0
    bound = SharpnessBound(field.noise, None)
    for _ in range(5):
        exact = np.abs(np.linalg.eigvalsh(dense_hessian(loss, theta).numpy())).max()
        assert exact < bound(0.0, theta.numpy(), field.rhs) < 1.5 * exact
        theta = theta - 0.2 * tiny.grad(theta)


@pytest.mark.parametrize(
    ("options", "method", "reason"),
    [
        ({"rtol": 1e-3}, "Tsit5", "not stiff"),
        ({"rtol": 1e-8}, "Vern7", "tight"),
        ({"rtol": 1e-10}, "Vern9", "a reference"),
    ],
)
def test_julias_method_is_chosen_by_tolerance(
    tiny: Problem, stand_in, options, method: str, reason: str
) -> None:
    for asked in (None, "auto"):
        attrs = solve(
            GradientFlow(tiny), [0.0, 1.0], engine="diffeq", method=asked, check=False, **options
        ).attrs
        assert attrs["method"] == method
        assert reason in attrs["choice"]


def test_julias_method_is_chosen_by_stiffness_and_kinks(
    tiny: Problem, relu_digits: Problem, stand_in
) -> None:
    options = {"engine": "diffeq", "check": False, "record": ["theta"]}
    assert solve(GradientFlow(tiny), [0.0, 60.0], rtol=1e-4, **options).attrs["method"] == "ROCK4"
    assert solve(GradientFlow(tiny), [0.0, 60.0], rtol=1e-2, **options).attrs["method"] == "RKC"
    assert solve(GradientFlow(relu_digits), [0.0, 0.2], **options).attrs["method"] == "BS3"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "Vern11"}, r"has no method 'Vern11'; did you mean 'Vern"),
        ({"method": "FBDF", "step": 0.1}, "step goes with an explicit method of engine 'diffeq'"),
        ({"step": 0.1}, "step goes with an explicit method of engine 'diffeq'"),
        ({"method": "RK4"}, "method 'RK4' has a fixed step: give `step`"),
    ],
)
def test_options_of_julia_that_do_not_go_together_are_named(tiny: Problem, options, sentence: str) -> None:
    with pytest.raises(EngineError, match=sentence):
        solve(GradientFlow(tiny), [0.0, 1.0], engine="diffeq", **options)
