"""Cases with a ladder, a stability table and warm starts, from file to tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nm_ode import SGD, TrainingDiverged, compare, modified_flow, solve, train
from nm_ode.comparison import Cause, LeftOut, Outcome, diagnoses, stability, summary
from nm_ode.loss.spectrum import sharpness
from nm_ode.results import run_info
from nm_ode.studies import build_study, ladder, load_case, member, run_case

FLOWS = '["gradient", { kind = "modified", order = 2, form = "hessian" }]'
LADDER = "[stability]\npoints = 3\n[ladder]\nlr = [0.05, 0.2, 0.1]\n[solver]"


@pytest.fixture
def with_ladder(edited) -> Path:
    return edited(("[solver]", LADDER), ("rtol = 1e-5", "rtol = 1e-10"), ("steps = 10", "steps = 20"))


def test_orders_are_seen(with_ladder: Path, tmp_path: Path) -> None:
    case = load_case(with_ladder)
    assert case.ladder.lr == [0.2, 0.1, 0.05]
    outcome = run_case(case, with_ladder, tmp_path / "out")
    assert outcome.failures == ()
    found = outcome.tree["convergence"].dataset
    assert found["flow"].values.tolist() == ["gradient", "modified_2_hessian"]
    assert found["expected_order"].values.tolist() == [1, 2]
    np.testing.assert_allclose(found["observed_order"], [1, 2], atol=0.15)
    np.testing.assert_allclose(found["layer_observed_order"], [[1, 1], [2, 2]], atol=0.2)
    assert [one.outcome for one in diagnoses(found)] == [Outcome.AS_EXPECTED] * 2
    assert np.isnan(found["crossing_share"]).all()


def test_a_point_is_the_study_at_its_learning_rate(with_ladder: Path, tmp_path: Path) -> None:
    found = run_case(load_case(with_ladder), with_ladder, tmp_path / "out").tree["convergence"].dataset
    problem = build_study(load_case(with_ladder), with_ladder).problem
    for i, (lr, steps) in enumerate(((0.2, 10), (0.1, 20), (0.05, 40))):
        optimizer = SGD(lr=lr)
        run = train(problem, optimizer, steps)
        flow = modified_flow(problem, optimizer, 2, "hessian")
        comparison = compare(run, solve(flow, run, rtol=1e-10))
        last = comparison.isel(saved_step=-1)
        np.testing.assert_allclose(found["error"][i, 1], last["error"], rtol=1e-4)
        np.testing.assert_allclose(found["layer_error"][i, 1], last["layer_error"], rtol=1e-4)
        sharpest = max(
            sharpness(problem, torch.from_numpy(theta.copy())).value for theta in run["theta"].values
        )
        assert float(found["largest_normalised_sharpness"][i]) == pytest.approx(lr * sharpest, rel=0.02)


def test_stability_is_measured_along_the_run(with_ladder: Path, tmp_path: Path) -> None:
    tree = run_case(load_case(with_ladder), with_ladder, tmp_path / "out").tree
    curvature = tree["discrete/curvature"].to_dataset(inherit=False)
    assert curvature["curvature_step"].values.tolist() == [0, 10, 20]
    assert curvature["curvature_time"].values.tolist() == [0, 1, 2]
    assert set(curvature.data_vars) == {
        "sharpness",
        "normalised_sharpness",
        "hvp_evaluations",
        "series_limit",
        "stability_limit",
    }
    assert not {*curvature.variables, "curvature_step"} & {*tree["discrete"].dataset.variables}
    assert stability(tree).unstable_from is None


def test_a_finished_point_is_not_computed_again(with_ladder: Path, tmp_path: Path, monkeypatch) -> None:
    plain, done = member.ladder_point, []

    def one_then_stop(*arguments):
        if done:
            raise KeyboardInterrupt
        done.append(arguments[1])
        return plain(*arguments)

    monkeypatch.setattr(member, "ladder_point", one_then_stop)
    with pytest.raises(KeyboardInterrupt):
        run_case(load_case(with_ladder), with_ladder, tmp_path / "out")
    later = []
    monkeypatch.setattr(member, "ladder_point", lambda *a: later.append(a[1]) or plain(*a))
    monkeypatch.setattr(member, "train", None)  # the run itself was complete
    outcome = run_case(load_case(with_ladder), with_ladder, tmp_path / "out")
    assert (done, later) == ([0.2], [0.1, 0.05])
    assert outcome.tree["convergence"].sizes["lr"] == 3


def test_a_learning_rate_that_diverges_is_left_out_and_named(
    with_ladder, tmp_path: Path, monkeypatch
) -> None:
    plain = ladder.train

    def diverging(problem, optimizer, steps, **options):
        run = plain(problem, optimizer, steps, **options)
        if optimizer.lr == 0.2:
            raise TrainingDiverged("the loss is inf", 7, run.isel(step=slice(7), saved_step=slice(1)))
        return run

    monkeypatch.setattr(ladder, "train", diverging)
    outcome = run_case(load_case(with_ladder), with_ladder, tmp_path / "out")
    found = outcome.tree["convergence"].dataset
    assert found["left_out"].values.tolist() == [["not_solved"] * 2, ["", ""], ["", ""]]
    np.testing.assert_allclose(found["observed_order"], [1, 2], atol=0.15)
    assert diagnoses(found)[0].evidence.left_out == {LeftOut.NOT_SOLVED: 1}


def test_a_flow_that_the_solver_gives_up_is_left_out_and_named(edited, tmp_path: Path) -> None:
    path = edited(
        ("[solver]", "[ladder]\nlr = [0.2, 0.1]\n[solver]"), ("rtol = 1e-5", "rtol = 1e-5\nmax_rhs = 3")
    )
    found = run_case(load_case(path), path, tmp_path / "out").tree["convergence"].dataset
    assert (found["left_out"] == LeftOut.NOT_SOLVED).all()
    diagnosis = diagnoses(found)[0]
    assert (diagnosis.outcome, diagnosis.evidence.used) == (Outcome.TOO_FEW_POINTS, 0)


def test_kinks_are_named_as_the_cause_with_their_share(edited, tmp_path: Path) -> None:
    path = edited(
        (FLOWS, '["gradient", { kind = "modified", order = 3 }]'),
        ("widths = [64, 4, 10]", 'widths = [64, 16, 10]\nactivation = "relu"'),
        ("samples = 40", "samples = 120"),
        ("[solver]", "[ladder]\nlr = [0.5, 0.2, 0.1]\n[solver]"),
        ("rtol = 1e-5", 'engine = "scipy"\nmethod = "Midpoint"\nstep = 0.004'),
    )
    found = run_case(load_case(path), path, tmp_path / "out").tree["convergence"].dataset
    assert (found["crossing_share"] > 0).all()
    assert float(found["observed_order"][1]) < 2.5
    diagnosis = diagnoses(found)[1]
    assert diagnosis.outcome is Outcome.SHORT
    assert Cause.KINKS in diagnosis.causes
    assert diagnosis.evidence.kinks == ("ReLU",)
    assert diagnosis.evidence.crossing_share == float(found["crossing_share"].max())


def test_adam_from_a_warm_start(edited, tmp_path: Path) -> None:
    path = edited(
        (FLOWS, '[{ kind = "modified", order = 2 }, { kind = "modified", order = 4 }]'),
        ("lr = 0.1", 'name = "adam"\nlr = 1e-3'),
        ("save_every = 5", "warm_steps = 400"),
        ("rtol = 1e-5", 'engine = "scipy"\nrtol = 1e-10'),
        ("[solver]", "[ladder]\nlr = [1e-3, 5e-4, 2.5e-4]\n[stability]\n[solver]"),
    )
    outcome = run_case(load_case(path), path, tmp_path / "out")
    assert outcome.failures == ()
    tree = outcome.tree
    assert run_info(tree["discrete"].dataset).warm_start
    assert run_info(tree["discrete"].dataset).optimizer_text == "Adam, lr = 0.001"
    two, four = summary(tree)
    assert four.relative_error < 5e-2 * two.relative_error
    assert (two.holds_from, four.holds_from) == (0, 0)
    found = tree["convergence"].dataset
    np.testing.assert_allclose(found["observed_order"], [2, 4], atol=0.4)
    assert tree["discrete/curvature"]["stability_limit"] == 3.8


def test_a_cold_start_of_adam_says_from_where_on_a_flow_holds(edited, tmp_path: Path) -> None:
    path = edited(
        (FLOWS, '[{ kind = "modified", order = 4 }]'),
        ("lr = 0.1", 'name = "adam"\nlr = 1e-3'),
        ("steps = 10", "steps = 40"),
        ("save_every = 5", "save_every = 1"),
    )
    (row,) = summary(run_case(load_case(path), path, tmp_path / "out").tree)
    assert 0 < row.holds_from < 20


def test_flows_of_momentum(edited, tmp_path: Path) -> None:
    path = edited(
        (
            FLOWS,
            '["second_order", { kind = "slow_manifold", order = 1 }, "slow_manifold", '
            '{ kind = "modified", order = 3 }]',
        ),
        ("lr = 0.1", "lr = 0.02\nmomentum = 0.9"),
        ("save_every = 5", "warm_steps = 100"),
    )
    rows = summary(run_case(load_case(path), path, tmp_path / "out").tree)
    assert {row.name for row in rows} == {
        "second_order",
        "slow_manifold_1",
        "slow_manifold_2",
        "modified_3_iterated_map",
    }
    errors = {row.name: row.error for row in rows}
    assert errors["modified_3_iterated_map"] < errors["second_order"] < errors["slow_manifold_1"]


def test_no_order_is_claimed_for_a_full_batch_flow_beside_minibatches(edited, tmp_path: Path) -> None:
    path = edited(
        (FLOWS, '[{ kind = "modified", order = 2, batches = "full" }]'),
        ("save_every = 5", "batch_size = 20"),
        ("[solver]", "[ladder]\nlr = [0.1, 0.05, 0.025]\n[solver]"),
    )
    found = run_case(load_case(path), path, tmp_path / "out").tree["convergence"].dataset
    (diagnosis,) = diagnoses(found)
    assert diagnosis.outcome is Outcome.NOT_TO_BE_EXPECTED
    assert Cause.BATCH_NOISE in diagnosis.causes


def test_a_charge_of_adam_is_recorded_and_no_law_is_claimed(charges_case, tmp_path: Path) -> None:
    path = charges_case(
        ("lr = 0.05\nmomentum = 0.9\nweight_decay = 1e-3", 'name = "adam"\nlr = 1e-3'),
    )
    tree = run_case(load_case(path), path, tmp_path / "out").tree
    assert "charge" in tree["discrete"].dataset
    assert "laws" not in tree.children
