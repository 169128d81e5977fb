"""Sketches in place of theta: a run and a flow are compared by them, and nothing of theta's size is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import nm_ode
from nm_ode import ArgumentError, Checkpoint, GradientFlow, Problem, Sketch, compare, solve, train
from nm_ode.comparison.alignment import AlignmentError
from nm_ode.models import mlp
from nm_ode.recorder import Recorder
from nm_ode.sketches import SparseSigns, standard_error

SGD = nm_ode.SGD(lr=0.05, momentum=0.5)


@pytest.fixture(scope="module")
def problem() -> Problem:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    y = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    return Problem(mlp([12, 40, 30, 4], "tanh", seed=1), nn.functional.mse_loss, (x, y))


def run_with(problem: Problem, *sketches: Sketch, **options: Any) -> xr.Dataset:
    return train(problem, SGD, 40, **{"save_every": 10, "observe": sketches, **options})


def flow_with(problem: Problem, run: xr.Dataset, *sketches: Sketch, **options: Any) -> xr.Dataset:
    flow = GradientFlow(problem)
    return solve(flow, run, **{"theta0": problem.theta0, "observe": sketches, **options})


@pytest.fixture(scope="module")
def full(problem: Problem) -> xr.Dataset:
    run = run_with(problem)
    return compare(run, flow_with(problem, run))


def test_they_are_sketches_of_theta(problem: Problem) -> None:
    run, alone = run_with(problem, Sketch(128, 7, keep_theta=True)), run_with(problem, Sketch(128, 7))
    signs = SparseSigns(problem.layout, 128, 7)
    expected = np.stack([signs.of(torch.from_numpy(theta)).numpy() for theta in run["theta"].values])
    np.testing.assert_array_equal(run["theta_sketch"], expected)
    np.testing.assert_array_equal(alone["theta_sketch"], expected)
    assert "theta" not in alone
    assert not any("param" in one.dims for one in alone.variables.values())
    solution = flow_with(problem, alone, Sketch(128, 7))
    assert solution["theta_sketch"].dims == ("time", "sketch_index")
    assert "theta" not in solution


@pytest.mark.parametrize("m", [256, 4096])
def test_distances_are_those_of_theta_within_the_stated_error(problem, full, m) -> None:
    run = run_with(problem, Sketch(m))
    found = compare(run, flow_with(problem, run, Sketch(m)))
    share = standard_error(m)
    for name, uncertain in {"error": share, "motion": share, "relative_error": 2**0.5 * share}.items():
        later = found[name].values[1:]
        np.testing.assert_allclose(found[f"{name}_standard_error"].values[1:], later * uncertain, rtol=1e-12)
        away = np.abs(later - full[name].values[1:]) / found[f"{name}_standard_error"].values[1:]
        assert away.max() < 4, name
    assert float(found["error"][0]) < 1e-12
    assert float(found["motion"][0]) == 0
    np.testing.assert_allclose(found["loss_gap"], full["loss_gap"], atol=1e-12)
    assert "layer_error" not in found  # one sketch of all layers does not tell them apart


def test_each_layer_has_its_distance_from_a_sketch_by_layer(problem, full) -> None:
    sketch = Sketch(256, by_layer=True)
    run = run_with(problem, sketch)
    found = compare(run, flow_with(problem, run, sketch))
    assert run.sizes["sketch_index"] == 256 * run.sizes["layer"]
    assert found["layer"].values.tolist() == full["layer"].values.tolist()
    for name in ("error", "motion", "relative_error", "layer_error", "layer_relative_error"):
        uncertain = found[f"{name}_standard_error"].values[1:]
        assert (uncertain > 0).all()
        assert np.abs((found[name].values[1:] - full[name].values[1:]) / uncertain).max() < 4.5, name
    assert "motion_standard_error" in found
    # A run with theta is sketched by the same projection.
    other = compare(run_with(problem), flow_with(problem, run, sketch))
    np.testing.assert_allclose(other["layer_error"], found["layer_error"], atol=1e-12)
    with pytest.raises(AlignmentError, match="by layer"):
        compare(run, flow_with(problem, run, Sketch(256)))


def test_estimates_have_no_bias_over_seeds(problem, full) -> None:
    # 30 seeds at m = 64 (standard error 8.8 %): the mean is within 5 of its own standard errors, 1.6 %.
    run, solution = run_with(problem), flow_with(problem, run_with(problem))
    found = []
    for seed in range(30):
        signs = SparseSigns(problem.layout, 64, seed)
        sketch = signs.of(torch.from_numpy(solution["theta"].values[-1] - run["theta"].values[-1]))
        found.append(float(sketch.norm()) / float(full["error"][-1]))
    assert abs(np.mean(found) - 1) < 5 * standard_error(64) / 30**0.5
    assert 0.5 * standard_error(64) < np.std(found) < 1.6 * standard_error(64)


def test_the_solvers_own_error_is_estimated_and_says_so(problem) -> None:
    run = run_with(problem)
    solved = flow_with(problem, run, rtol=1e-4)
    sketched = flow_with(problem, run_with(problem, Sketch(1024)), Sketch(1024), rtol=1e-4)
    info = nm_ode.solve_info(sketched)
    assert info.check_verdict == "measured"
    assert info.check is not None
    assert "sketches" in info.check
    assert "2.2%" in info.check
    np.testing.assert_allclose(sketched["solver_error"][1:], solved["solver_error"][1:], rtol=0.15)
    assert "solver_error_ratio" in compare(run_with(problem, Sketch(1024)), sketched)


def test_theta_on_one_side_is_enough(problem, full) -> None:
    run = run_with(problem)
    found = compare(run, flow_with(problem, run, Sketch(512, 3)))
    same = compare(run_with(problem, Sketch(512, 3)), flow_with(problem, run, Sketch(512, 3)))
    np.testing.assert_allclose(found["error"], same["error"], atol=1e-12)
    both = compare(run_with(problem, Sketch(64, keep_theta=True)), flow_with(problem, run, Sketch(512, 3)))
    np.testing.assert_array_equal(both["error"], found["error"])
    # Where both have theta, theta is compared.
    exact = compare(
        run_with(problem, Sketch(64, keep_theta=True)),
        flow_with(problem, run, Sketch(512, 3, keep_theta=True)),
    )
    np.testing.assert_allclose(exact["error"], full["error"], atol=1e-12)
    assert "error_standard_error" not in exact


@pytest.mark.parametrize("other", [Sketch(512, 1), Sketch(256, 0)])
def test_other_projections_are_not_compared(problem, other) -> None:
    run = run_with(problem, Sketch(512, 0))
    with pytest.raises(AlignmentError, match="the same Sketch"):
        compare(run, flow_with(problem, run, other))


def test_another_start_is_seen_in_the_sketches(problem) -> None:
    run = run_with(problem, Sketch(512))
    elsewhere = flow_with(problem, run, Sketch(512), theta0=1.01 * problem.theta0)
    with pytest.raises(AlignmentError, match="starts elsewhere"):
        compare(run, elsewhere)


def test_a_flow_beside_a_sketched_run_needs_its_start(problem) -> None:
    run = run_with(problem, Sketch(512))
    elsewhere = {"theta0": problem.theta0 + 1e-9, "observe": [Sketch(512, by_layer=True)]}
    plain = train(problem, nm_ode.SGD(lr=0.05), 5, **elsewhere)
    with pytest.raises(ArgumentError, match=r"did not start from the problem's theta0: give theta0"):
        solve(GradientFlow(problem), plain, observe=[Sketch(512)])
    # Of an optimiser with a memory its first state is there, theta in it.
    asked, given = (
        solve(GradientFlow(problem), run, check=False, **more) for more in ({}, {"theta0": problem.theta0})
    )
    np.testing.assert_array_equal(asked["theta"], given["theta"])
    with pytest.raises(ArgumentError, match="Sketch"):
        solve(GradientFlow(problem), run, theta0=problem.theta0, record=["loss"])


@pytest.mark.parametrize("by_layer", [False, True])
def test_a_run_from_the_problems_own_start_is_known_by_its_sketch(problem, by_layer: bool) -> None:
    sketch = Sketch(512, 3, by_layer=by_layer)
    run = train(problem, nm_ode.SGD(lr=0.05), 5, observe=[sketch])
    asked, given = (
        solve(GradientFlow(problem), run, check=False, observe=[sketch], **more)
        for more in ({}, {"theta0": problem.theta0})
    )
    np.testing.assert_array_equal(asked["theta_sketch"], given["theta_sketch"])
    with pytest.raises(ArgumentError, match="cut off"):
        solve(GradientFlow(problem), run.isel(saved_step=slice(1, None)), observe=[sketch])


def test_the_recorder_takes_the_same_at_chosen_steps(problem) -> None:
    expected = run_with(problem, Sketch(512))
    for save_every in (10, [10, 20, 30]):
        model = problem.model
        torch.nn.utils.vector_to_parameters(problem.theta0.clone(), model.parameters())
        optimizer = torch.optim.SGD(model.parameters(), lr=SGD.lr, momentum=SGD.momentum)
        recorder = Recorder(model, optimizer, observe=[Sketch(512)], save_every=save_every, full_batch=True)
        with recorder:
            for _ in range(40):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(problem.x), problem.y)
                loss.backward()
                recorder.loss(loss)
                optimizer.step()
        run = recorder.run
        assert run["saved_step"].values.tolist() == [0, 10, 20, 30, 40]
        assert "theta" not in run
        np.testing.assert_allclose(run["theta_sketch"], expected["theta_sketch"], atol=1e-12)
        found = compare(run, flow_with(problem, run, Sketch(512)))
        assert float(found["error"][-1]) > 0


@pytest.mark.parametrize(
    "chosen", [[3, 17], (17, 3, 3), np.array([3, 17]), torch.tensor([0, 3, 17, 40])], ids=str
)
def test_train_keeps_theta_at_chosen_steps(problem, chosen, tmp_path: Path) -> None:
    run, each = run_with(problem, save_every=chosen), run_with(problem, save_every=1)
    assert run["saved_step"].values.tolist() == [0, 3, 17, 40]
    np.testing.assert_array_equal(run["theta"], each["theta"][[0, 3, 17, 40]])
    found = compare(run, solve(GradientFlow(problem), run))
    assert found["saved_step"].values.tolist() == [0, 3, 17, 40]
    for _ in range(2):  # the second finds it done
        again = run_with(problem, save_every=chosen, checkpoint=Checkpoint(tmp_path / "run", 0, print))
        np.testing.assert_array_equal(again["theta"], run["theta"])


def test_steps_that_there_are_not_are_refused(problem) -> None:
    for wrong in (41, [3, 41], [-1], [1.5], "all", {}, None, 0, torch.tensor(0), [True]):
        if wrong == 41:  # every 41st of 40: the first and the last
            assert run_with(problem, save_every=wrong)["saved_step"].values.tolist() == [0, 40]
            continue
        with pytest.raises(ArgumentError, match="save_every"):
            run_with(problem, save_every=wrong)


def test_a_recorder_without_saved_steps_refuses_a_sketch(problem) -> None:
    optimizer = torch.optim.SGD(problem.model.parameters(), lr=0.1)
    with pytest.raises(ArgumentError, match="save_every"):
        Recorder(problem.model, optimizer, observe=[Sketch()])
    for wrong in (0, -1, [3, -1], "all", [1.5]):
        with pytest.raises(ArgumentError, match="save_every"):
            Recorder(problem.model, optimizer, save_every=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"m": 63}, {"m": 0}, {"m": 100.5}, {"seed": -1}, {"seed": 2**63}, {"keep_theta": 2}]
)
def test_what_is_no_sketch_is_refused(wrong) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        Sketch(**wrong)


def test_a_checkpoint_is_of_one_sketch(problem, tmp_path: Path) -> None:
    said: list[str] = []

    def stop(step: int) -> None:
        if step == 25:
            raise KeyboardInterrupt

    keep = Checkpoint(tmp_path / "run.ckpt", 0, said.append)
    with pytest.raises(KeyboardInterrupt):
        run_with(problem, Sketch(128, 1), checkpoint=keep, on_step=stop)
    run = run_with(problem, Sketch(128, 1), checkpoint=keep)
    assert "goes on" in said[-1]
    np.testing.assert_array_equal(run["theta_sketch"], run_with(problem, Sketch(128, 1))["theta_sketch"])
    with pytest.raises(KeyboardInterrupt):
        run_with(problem, Sketch(128, 1), checkpoint=Checkpoint(tmp_path / "b", 0, said.append), on_step=stop)
    said.clear()
    other = run_with(problem, Sketch(128, 2), checkpoint=Checkpoint(tmp_path / "b", 0, said.append))
    assert not any("goes on" in one for one in said)
    np.testing.assert_array_equal(other["theta_sketch"], run_with(problem, Sketch(128, 2))["theta_sketch"])
