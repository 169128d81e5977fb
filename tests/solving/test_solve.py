"""solve: references, choices, recording, checks and failures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bridges import EngineError
from bridges.julia.installing import installation
from nm_ode import (
    SGD,
    Adam,
    Drop,
    FlowError,
    GradientFlow,
    MinibatchFlow,
    NmOdeError,
    Problem,
    SolveError,
    modified_flow,
    solve,
    train,
)
from nm_ode.results import solve_info
from nm_ode.solving.field import Field
from nm_ode.solving.stiffness import spectral_radius
from tests.oracles.dense import dense_hessian, dense_loss

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def reference():
    """Solutions by DifferentialEquations.jl (Vern9, 1e-12); see tests/data/README.md."""
    with np.load(DATA / "digits_tanh_diffeq.npz") as arrays:
        return dict(arrays)


NO_JULIA = installation().lacks
needs_julia = [pytest.mark.julia, pytest.mark.skipif(bool(NO_JULIA), reason=f"no Julia: {NO_JULIA}")]


@pytest.mark.parametrize(
    ("engine", "method"),
    [
        ("sundials", "BDF"),
        ("sundials", "Adams"),
        ("scipy", "DOP853"),
        pytest.param("diffeq", "Vern9", marks=needs_julia),
        pytest.param("diffeq", "auto", marks=needs_julia),
    ],
)
def test_gradient_flow_agrees_with_differentialequations_jl(tanh_digits, reference, engine, method) -> None:
    solution = solve(
        GradientFlow(tanh_digits),
        reference["gradient_flow__t"],
        theta0=torch.from_numpy(reference["theta0"]),
        engine=engine,
        method=method,
        rtol=1e-11,
        atol=1e-13,
        check=False,
    )
    np.testing.assert_allclose(solution["theta"], reference["gradient_flow"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(solution["loss"], reference["gradient_flow__loss"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("engine", ["sundials", "scipy", pytest.param("diffeq", marks=needs_julia)])
def test_modified_flow_agrees_with_differentialequations_jl(tanh_digits, reference, engine) -> None:
    key = "modified_flow_order2_hessian_lr0.1"
    solution = solve(
        modified_flow(tanh_digits, SGD(lr=0.1), order=2, form="hessian"),
        reference[f"{key}__t"],
        theta0=torch.from_numpy(reference["theta0"]),
        engine=engine,
        rtol=1e-11,
        atol=1e-13,
        record=["theta"],
        check=False,
    )
    np.testing.assert_allclose(solution["theta"], reference[key], rtol=0, atol=1e-8)


def test_auto_takes_dop853_for_a_short_smooth_flow(tanh_digits) -> None:
    solution = solve(GradientFlow(tanh_digits), [0.0, 2.0])
    assert (solution.attrs["engine"], solution.attrs["method"]) == ("scipy", "DOP853")
    assert solution.attrs["rtol"] == 1e-6
    assert "limited by accuracy" in solution.attrs["choice"]


def test_auto_takes_bdf_for_a_long_smooth_flow(tanh_digits) -> None:
    solution = solve(GradientFlow(tanh_digits), [0.0, 150.0], rtol=1e-3, record=["theta"], check=False)
    assert (solution.attrs["engine"], solution.attrs["method"]) == ("sundials", "BDF")
    assert "smooth and stiff" in solution.attrs["choice"]


def test_auto_takes_rk23_for_a_kinked_flow(relu_digits) -> None:
    solution = solve(GradientFlow(relu_digits), [0.0, 5.0], rtol=1e-6)
    assert (solution.attrs["engine"], solution.attrs["method"]) == ("scipy", "RK23")
    assert solution.attrs["rtol"] == 1e-4
    assert solution.attrs["rtol_requested"] == 1e-6
    assert "kinked field (ReLU)" in solution.attrs["choice"]
    assert solve_info(solution).kinks == ("ReLU",)


def test_a_named_engine_is_what_is_used(relu_digits) -> None:
    solution = solve(GradientFlow(relu_digits), [0.0, 1.0], engine="sundials", method="Adams", check=False)
    assert (solution.attrs["engine"], solution.attrs["method"]) == ("sundials", "Adams")
    assert solution.attrs["rtol"] == 1e-3  # kinks set the default tolerance, whoever named the engine


def test_midpoint_checks_itself_by_step_halving(relu_digits) -> None:
    solution = solve(GradientFlow(relu_digits), [0.0, 1.0, 2.0], engine="scipy", method="Midpoint", step=0.05)
    finer = solve(GradientFlow(relu_digits), [0.0, 1.0, 2.0], engine="scipy", step=0.005)
    distance = np.linalg.norm(solution["theta"] - finer["theta"], axis=1)
    assert (solution["solver_error"].values >= 0.5 * distance).all()
    assert "check_rhs_evaluations" not in solution.attrs


def test_the_stiffness_probe_finds_the_sharpness(tiny: Problem) -> None:
    loss = dense_loss(tiny.model, tiny.loss_fn, tiny.x, tiny.y)
    exact = np.abs(np.linalg.eigvalsh(dense_hessian(loss, tiny.theta0).numpy())).max()
    field = Field(GradientFlow(tiny))
    measured = spectral_radius(field, 0.0, tiny.theta0.numpy())
    assert abs(measured - exact) < 0.15 * exact
    assert field.take_count() == 7


def test_the_probe_is_counted_apart(tiny: Problem) -> None:
    auto = solve(GradientFlow(tiny), [0.0, 1.0], check=False)
    named = solve(GradientFlow(tiny), [0.0, 1.0], engine="scipy", method="DOP853", check=False)
    assert auto.attrs["probe_rhs_evaluations"] == 7
    assert auto.attrs["rhs_evaluations"] == named.attrs["rhs_evaluations"]
    assert named.attrs["probe_rhs_evaluations"] == 0


def test_a_run_gives_times_and_start(tiny: Problem) -> None:
    run = train(tiny, SGD(lr=0.1), steps=6, save_every=2, theta0=tiny.theta0 + 1)
    solution = solve(GradientFlow(tiny), run)
    np.testing.assert_array_equal(solution["time"], run["saved_time"])
    np.testing.assert_array_equal(solution["theta"][0], run["theta"][0])


def test_a_run_without_its_first_steps_gives_no_start_to_a_flow_of_the_whole_state(tiny: Problem) -> None:
    """The state of its first saved step is not kept: that of step 0 would be a wrong start."""
    momentum = SGD(lr=0.05, momentum=0.5)
    late = train(tiny, momentum, 8).isel(saved_step=slice(3, None))
    with pytest.raises(FlowError, match="begins at step 3"):
        solve(modified_flow(tiny, momentum, 2), t=late)
    solution = solve(GradientFlow(tiny), t=late, check=False)  # its state is theta alone
    np.testing.assert_array_equal(solution["theta"][0], late["theta"][0])


@pytest.mark.parametrize("times", [[1.0, 0.0], [0.0, 0.0, 1.0]])
def test_times_that_do_not_increase_are_named(tiny: Problem, times: list[float]) -> None:
    with pytest.raises(NmOdeError, match="must increase"):
        solve(GradientFlow(tiny), times)


def test_observables_are_those_of_the_states(tiny: Problem) -> None:
    solution = solve(GradientFlow(tiny), [0.0, 0.5, 1.0])
    for i in range(3):
        loss, gradient = tiny.loss_and_grad(torch.from_numpy(solution["theta"].values[i].copy()))
        np.testing.assert_allclose(solution["loss"][i], loss, rtol=1e-14)
        np.testing.assert_allclose(solution["grad_norm"][i], gradient.norm(), rtol=1e-14)


@pytest.mark.parametrize("record", [["loss"], ["grad_norm"], [], ["theta"], ["loss", "theta"]])
def test_only_what_is_asked_for_is_kept(tiny: Problem, record) -> None:
    solution = solve(GradientFlow(tiny), [0.0, 0.5], record=record, check=False)
    assert set(solution.data_vars) == set(record)


def test_the_check_measures_the_solvers_error(tiny: Problem) -> None:
    times = np.linspace(0, 5, 6)
    loose = solve(GradientFlow(tiny), times, engine="sundials", rtol=1e-4)
    exact = solve(GradientFlow(tiny), times, engine="scipy", rtol=1e-12, atol=1e-14, check=False)
    true = np.linalg.norm(loose["theta"] - exact["theta"], axis=1)[1:]
    measured = loose["solver_error"].values[1:]
    assert (measured > true / 5).all()
    assert (measured < true * 5).all()
    assert loose.attrs["check_rhs_evaluations"] > loose.attrs["rhs_evaluations"]


def test_attributes_say_how_it_was_solved(tiny: Problem) -> None:
    solution = solve(modified_flow(tiny, SGD(lr=0.1), order=3), [0.0, 1.0])
    attrs = solution.attrs
    assert attrs["status"] == "success"
    assert attrs["gradient_evaluations"] == 3 * attrs["rhs_evaluations"]
    assert attrs["atol"] == 1e-3 * attrs["rtol"]
    for name in ("engine_version", "message", "steps", "rejected_steps", "wall_seconds", "check"):
        assert name in attrs
    json.dumps(attrs)  # what a store can hold
    assert all({"long_name", "units"} <= set(variable.attrs) for variable in solution.variables.values())


def test_a_limit_keeps_what_was_solved(tiny: Problem) -> None:
    with pytest.raises(
        SolveError, match=r"30 right-hand sides was reached at t = .*; raise max_rhs"
    ) as caught:
        solve(GradientFlow(tiny), np.linspace(0, 50, 500), engine="scipy", rtol=1e-8, max_rhs=30)
    solution = caught.value.solution
    assert solution.attrs["status"] == "max_rhs"
    assert 1 < solution.sizes["time"] < 500
    assert solution["theta"].shape == (solution.sizes["time"], tiny.layout.size)


class Fails(nn.Linear):
    now = False

    def forward(self, x):
        if self.now:
            raise LookupError("the data server is gone")
        return super().forward(x)


def test_an_exception_in_the_loss_comes_out_as_itself_with_what_was_solved() -> None:
    problem = Problem(Fails(2, 1), nn.functional.mse_loss, (torch.randn(5, 2), torch.randn(5, 1)))

    def fail_after(sample: int) -> None:
        problem.model.now = sample >= 3

    with pytest.raises(LookupError, match="the data server is gone") as caught:
        solve(
            GradientFlow(problem),
            np.linspace(0, 100, 1000),
            engine="scipy",
            record=["theta"],
            on_sample=fail_after,
        )
    solution = caught.value.solution
    assert solution.sizes["time"] > 1
    assert "LookupError was raised" in solution.attrs["message"]


def test_an_interrupted_check_does_not_lose_what_was_solved() -> None:
    interrupts = []

    class Interrupted(nn.Linear):
        def forward(self, x):
            if interrupts:
                raise KeyboardInterrupt
            return super().forward(x)

    x, y = torch.ones(4, 3, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64)
    problem = Problem(Interrupted(3, 1), nn.functional.mse_loss, (x, y))

    def after_the_last_sample(done: int) -> None:
        if done == 3:
            interrupts.append(True)

    with pytest.raises(KeyboardInterrupt) as caught:
        solve(GradientFlow(problem), [0.0, 0.5, 1.0], on_sample=after_the_last_sample)
    assert solve_info(caught.value.solution).status == "success"
    assert caught.value.solution.sizes["time"] == 3


def test_a_loss_that_overflows_is_named() -> None:
    def breaks_below_zero(out, y):
        return torch.where(out.mean() > 0, out.mean(), torch.nan * out.mean())

    problem = Problem(nn.Linear(1, 1), breaks_below_zero, (torch.ones(2, 1), torch.ones(2, 1)))
    with pytest.raises(SolveError, match=r"not finite at t = .*the loss overflows"):
        solve(GradientFlow(problem), [0.0, 100.0], theta0=torch.ones(2, dtype=torch.float64))


def test_a_float32_problem_is_solved_in_float64_states(tiny: Problem) -> None:
    single = Problem(tiny.model, tiny.loss_fn, (tiny.x, tiny.y), dtype=torch.float32)
    solution = solve(GradientFlow(single), [0.0, 1.0], rtol=1e-4)
    double = solve(GradientFlow(tiny), [0.0, 1.0], theta0=single.theta0.double(), rtol=1e-4)
    assert solution["theta"].dtype == np.float64
    np.testing.assert_allclose(solution["theta"], double["theta"], atol=1e-4)


def test_progress_is_told_sample_by_sample(tiny: Problem) -> None:
    told = []
    solve(GradientFlow(tiny), [0.0, 0.5, 1.0], on_sample=told.append)
    assert told == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"engine": "sundail"}, EngineError, "did you mean 'sundials'"),
        ({"engine": "scipy", "method": "BDF"}, EngineError, "engine 'scipy' has no method 'BDF'"),
        ({"method": "BDF"}, EngineError, "method goes with a named engine"),
        ({"step": 0.1}, EngineError, "step goes with a named engine"),
        ({"engine": "sundials", "step": 0.1}, EngineError, "step goes with engine 'scipy'"),
        ({"engine": "scipy", "method": "Midpoint"}, EngineError, "fixed step: give `step`"),
        ({"rtol": -1.0}, EngineError, "rtol must be a positive number"),
        ({"record": ["loss"]}, ValueError, "record 'theta' too, or set check=False"),
        ({"record": ["los"], "check": False}, ValueError, "record: unknown los"),
    ],
)
def test_options_that_do_not_go_together_are_named(tiny: Problem, options, error, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        solve(GradientFlow(tiny), [0.0, 1.0], **options)


def test_a_dataset_that_is_no_run_is_named(tiny: Problem) -> None:
    run = train(tiny, SGD(lr=0.1), steps=2)
    with pytest.raises(ValueError, match="a dataset without 'saved_time' is not a run"):
        solve(GradientFlow(tiny), run[["loss"]].drop_attrs())


def test_a_modified_flow_of_a_run_whose_lr_changes_is_refused(tiny: Problem) -> None:
    run = train(tiny, SGD(lr=0.1), steps=4, schedule=Drop((2,), 0.5))
    with pytest.raises(FlowError, match=r"this run's lr goes from 0.1 to 0.05: solve gradient flow"):
        solve(modified_flow(tiny, SGD(lr=0.1)), run)
    with pytest.raises(FlowError, match="order 1, iterated-map form is that of a constant lr"):
        solve(modified_flow(tiny, SGD(lr=0.1, momentum=0.9), order=1), run)
    solution = solve(GradientFlow(tiny), run, rtol=1e-9)
    np.testing.assert_allclose(solution["time"], [0.0, 0.1, 0.2, 0.25, 0.3])


@pytest.mark.parametrize("wrap", [lambda flow, run: flow, MinibatchFlow.beside], ids=["full", "same batch"])
def test_a_flow_of_another_learning_rate_than_the_runs_is_refused(tiny: Problem, wrap) -> None:
    run = train(tiny, SGD(lr=0.1), 4, batch_size=7)
    other = modified_flow(tiny, SGD(lr=0.2), 2)
    with pytest.raises(FlowError, match=r"lr = 0.2, and this run has lr = 0.1"):
        solve(wrap(other, run), run)
    solve(wrap(modified_flow(tiny, SGD(lr=0.1), 2), run), run, check=False)
    solve(other, run["saved_time"].values, check=False)
    solve(GradientFlow(tiny, SGD(lr=0.2)), run, check=False)  # gradient flow is of no learning rate


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        (SGD(lr=0.1, momentum=0.8, weight_decay=1e-2), "momentum = 0.8, and this run has 0.9"),
        (SGD(lr=0.1, momentum=0.9), "weight_decay = 0.0, and this run has 0.01"),
        (Adam(lr=0.1, weight_decay=1e-2), "Adam, and this run is of SGD"),
    ],
)
def test_a_flow_of_another_optimizer_than_the_runs_is_refused(tiny: Problem, optimizer, said: str) -> None:
    own = SGD(lr=0.1, momentum=0.9, weight_decay=1e-2)
    run = train(tiny, own, 4)
    with pytest.raises(FlowError, match=said):
        solve(modified_flow(tiny, optimizer, 2), run)
    solve(modified_flow(tiny, own, 2), run, check=False)
    # Of gradient flow only the weight decay is the optimiser's.
    solve(GradientFlow(tiny, SGD(lr=0.3, weight_decay=1e-2)), run, check=False)
    with pytest.raises(FlowError, match="weight_decay"):
        solve(GradientFlow(tiny, SGD(lr=0.1)), run)


@pytest.mark.parametrize("times", [[], 1.0, [[0.0, 1.0]]])
def test_what_is_no_list_of_times_is_refused(tiny: Problem, times) -> None:
    with pytest.raises(ValueError, match="t must be a run, or times in one dimension"):
        solve(GradientFlow(tiny), times)
