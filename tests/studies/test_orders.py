"""The order of each flow, over the members of a sweep of learning rates."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import nm_ode
from nm_ode import SGD, compare, modified_flow, solve, train
from nm_ode.comparison import Cause, LeftOut, Outcome, diagnoses, summary
from nm_ode.loss.spectrum import sharpness
from nm_ode.reporting.tables import unexpected
from nm_ode.results import run_info
from nm_ode.results.study import StudyStore
from nm_ode.studies import REDUCTIONS, CaseError, build_study, load_case, load_sweep
from tests.studies.conftest import TINY, reduced

FLOWS = '["gradient", { kind = "modified", order = 2, form = "hessian" }]'
SWEEP = """[stability]
points = 3

[sweep]
"optimizer.lr" = [0.2, 0.1, 0.05]
constraint = "lr * steps = 2"
reduce = "order"

[solver]"""


@pytest.fixture(scope="module")
def orders(tmp_path_factory) -> tuple[Path, dict[str, xr.DataTree], xr.Dataset]:
    """The file, its members' trees, and their orders."""
    path = tmp_path_factory.mktemp("orders") / "orders.toml"
    text = (
        TINY.replace("[solver]", SWEEP).replace("rtol = 1e-5", "rtol = 1e-10").replace("save_every = 5", "")
    )
    path.write_text(text)
    trees, made = reduced(path, path.parent / "out")
    assert set(made) == {"convergence"}
    return path, trees, made["convergence"]


def test_orders_are_seen(orders) -> None:
    _, _, found = orders
    assert found["lr"].values.tolist() == [0.2, 0.1, 0.05]
    assert found["flow"].values.tolist() == ["gradient", "modified_2_hessian"]
    assert found["expected_order"].values.tolist() == [1, 2]
    np.testing.assert_allclose(found["observed_order"], [1, 2], atol=0.15)
    np.testing.assert_allclose(found["layer_observed_order"], [[1, 1], [2, 2]], atol=0.2)
    assert [one.outcome for one in diagnoses(found)] == [Outcome.AS_EXPECTED] * 2
    assert np.isnan(found["crossing_share"]).all()


def test_a_point_is_the_study_at_its_learning_rate(orders) -> None:
    path, trees, found = orders
    problem = build_study(load_case(path), path).problem
    for i, (lr, steps) in enumerate(((0.2, 10), (0.1, 20), (0.05, 40))):
        optimizer = SGD(lr=lr)
        run = train(problem, optimizer, steps)
        flow = modified_flow(problem, optimizer, 2, "hessian")
        last = compare(run, solve(flow, run, rtol=1e-10)).isel(saved_step=-1)
        np.testing.assert_allclose(found["error"][i, 1], last["error"], rtol=1e-4)
        np.testing.assert_allclose(found["layer_error"][i, 1], last["layer_error"], rtol=1e-4)
        sharpest = max(
            sharpness(problem, torch.from_numpy(theta.copy())).value for theta in run["theta"].values
        )
        assert float(found["largest_normalised_sharpness"][i]) == pytest.approx(lr * sharpest, rel=0.02)
        assert run_info(trees[f"lr={lr}"]["discrete"].dataset).grid.steps == steps


def test_a_member_keeps_no_more_than_the_orders_need(orders) -> None:
    _, trees, _ = orders
    for tree in trees.values():
        assert tree["discrete"].sizes["saved_step"] == 2
        assert tree["flows/gradient"].sizes["time"] == 2
        assert tree["discrete/curvature"].sizes["curvature_step"] == 3


def test_a_member_that_is_not_there_is_left_out(orders) -> None:
    path, trees, found = orders
    sweep = load_sweep(path)
    without = {name: tree for name, tree in trees.items() if name != "lr=0.1"}
    order = REDUCTIONS["order"]
    left = order.reduce(sweep.record, without.get, path)["convergence"]
    assert left["lr"].values.tolist() == [0.2, 0.1, 0.05]
    assert left["left_out"].values.tolist() == [["", ""], ["not_solved"] * 2, ["", ""]]
    xr.testing.assert_equal(left["error"].sel(lr=[0.2, 0.05]), found["error"].sel(lr=[0.2, 0.05]))
    assert order.reduce(sweep.record, {}.get, path) == {}


def test_what_the_case_says_is_kept(edited) -> None:
    """A reduction fills in what is unsaid, and nothing else."""
    said = (
        'observe = [{ name = "kink_crossings", points = 4 }]\n\n[model]',
        "save_every = 2",
        "samples = 3\nrtol = 1e-5",
    )
    sweep = load_sweep(
        edited(
            ("[solver]", SWEEP), ("[model]", said[0]), ("save_every = 5", said[1]), ("rtol = 1e-5", said[2])
        )
    )
    case = sweep.members[0].case
    assert (case.training.save_every, case.solver.samples) == (2, 3)
    assert case.stability.points == 3
    assert [(one.name, one.options["points"]) for one in case.observe] == [("kink_crossings", 4)]


def test_each_place_of_another_axis_has_its_orders(edited, tmp_path: Path) -> None:
    path = edited(
        (
            "[solver]",
            SWEEP.replace("reduce", "seed = [3, 4]\nreduce").replace("[0.2, 0.1, 0.05]", "[0.2, 0.1]"),
        ),
        ("save_every = 5", ""),
        ("rtol = 1e-5", "rtol = 1e-8"),
    )
    trees, made = reduced(path, tmp_path / "out", left_out="lr=0.1,seed=4")
    assert set(trees) == {"lr=0.2,seed=3", "lr=0.2,seed=4", "lr=0.1,seed=3"}
    found = made["convergence"]
    assert found["error"].dims == ("seed", "lr", "flow")
    assert found["observed_order"].dims == ("seed", "flow")
    assert found["seed"].values.tolist() == [3, 4]
    np.testing.assert_allclose(found["observed_order"].sel(seed=3), [1, 2], atol=0.2)
    assert np.isnan(found["observed_order"].sel(seed=4)).all()
    outcomes = [[one.outcome for one in diagnoses(found.sel(seed=seed))] for seed in (3, 4)]
    assert outcomes == [[Outcome.AS_EXPECTED] * 2, [Outcome.TOO_FEW_POINTS] * 2]


def test_learning_rates_in_another_order_say_the_same(orders) -> None:
    _, _, found = orders
    rising = found.sortby("lr")
    assert rising["lr"].values.tolist() == [0.05, 0.1, 0.2]
    assert repr(diagnoses(rising)) == repr(diagnoses(found))


def test_a_learning_rate_that_diverges_is_left_out_and_named(orders) -> None:
    path, trees, whole = orders
    diverged = trees["lr=0.2"].copy()
    diverged["discrete"].attrs["status"] = "diverged"
    del diverged["flows"], diverged["comparison"]
    members = {**trees, "lr=0.2": diverged}
    found = REDUCTIONS["order"].reduce(load_sweep(path).record, members.get, path)["convergence"]
    assert found["left_out"].values.tolist() == [["not_solved"] * 2, ["", ""], ["", ""]]
    np.testing.assert_allclose(found["observed_order"], [1, 2], atol=0.15)
    assert diagnoses(found)[0].evidence.left_out == {LeftOut.NOT_SOLVED: 1}
    xr.testing.assert_equal(found["largest_normalised_sharpness"], whole["largest_normalised_sharpness"])


def test_a_flow_that_the_solver_gives_up_is_left_out_and_named(edited, tmp_path: Path) -> None:
    path = edited(
        ("[solver]", SWEEP.replace("0.2, 0.1, 0.05", "0.2, 0.1")), ("rtol = 1e-5", "rtol = 1e-5\nmax_rhs = 3")
    )
    found = reduced(path, tmp_path / "out")[1]["convergence"]
    assert (found["left_out"] == LeftOut.NOT_SOLVED).all()
    diagnosis = diagnoses(found)[0]
    assert (diagnosis.outcome, diagnosis.evidence.used) == (Outcome.TOO_FEW_POINTS, 0)


def test_an_order_that_falls_short_is_explained(edited, tmp_path: Path) -> None:
    path = edited(("[solver]", SWEEP), ("save_every = 5", ""), ("rtol = 1e-5", "rtol = 1e-1"))
    told = dict(unexpected(reduced(path, tmp_path / "out")[1]["convergence"]))
    assert any("the solver's own error is above a tenth" in sentence for sentence in told.values())


def test_kinks_are_named_as_the_cause_with_their_share(edited, tmp_path: Path) -> None:
    sweep = SWEEP.replace("0.2, 0.1, 0.05", "0.5, 0.2, 0.1").replace("steps = 2", "steps = 1")
    path = edited(
        (FLOWS, '["gradient", { kind = "modified", order = 3 }]'),
        ("widths = [64, 4, 10]", 'widths = [64, 16, 10]\nactivation = "relu"'),
        ("[solver]", sweep),
        ("save_every = 5", ""),
        ("rtol = 1e-5", 'engine = "scipy"\nmethod = "Midpoint"\nstep = 0.01'),
    )
    found = reduced(path, tmp_path / "out")[1]["convergence"]
    assert (found["crossing_share"] > 0).all()
    assert float(found["observed_order"][1]) < 2.5
    diagnosis = diagnoses(found)[1]
    assert diagnosis.outcome is Outcome.SHORT
    assert Cause.KINKS in diagnosis.causes
    assert diagnosis.evidence.kinks == ("ReLU",)
    assert diagnosis.evidence.fixed_step
    used = found["crossing_share"].values[found["left_out"][:, 1].values == ""]
    assert diagnosis.evidence.crossing_share == used.max()


def test_adam_from_a_warm_start(edited, tmp_path: Path) -> None:
    sweep = SWEEP.replace("0.2, 0.1, 0.05", "1e-3, 5e-4, 2.5e-4").replace(
        '"lr * steps = 2"', '["lr * steps = 0.01", "lr * warm_steps = 0.4"]'
    )
    path = edited(
        (FLOWS, '[{ kind = "modified", order = 2 }, { kind = "modified", order = 4 }]'),
        ("lr = 0.1", 'name = "adam"'),
        ("save_every = 5", ""),
        ("rtol = 1e-5", 'engine = "scipy"\nrtol = 1e-10'),
        ("[solver]", sweep),
    )
    trees, made = reduced(path, tmp_path / "out")
    tree = trees["lr=0.001"]
    assert run_info(tree["discrete"].dataset).warm_start
    assert run_info(tree["discrete"].dataset).optimizer_text == "Adam, lr = 0.001"
    assert tree["discrete"].sizes["saved_step"] == 11  # the transient's steps
    assert tree["flows/modified_4_iterated_map"].sizes["time"] == 2
    two, four = summary(tree)
    assert four.relative_error < 5e-2 * two.relative_error
    assert (two.holds_from, four.holds_from) == (0, 0)
    found = made["convergence"]
    np.testing.assert_allclose(found["observed_order"], [2, 4], atol=0.4)
    assert np.isfinite(found["start_share"]).all()
    assert tree["discrete/curvature"]["stability_limit"] == 3.8


def test_no_order_is_claimed_for_a_full_batch_flow_beside_minibatches(edited, tmp_path: Path) -> None:
    path = edited(
        (FLOWS, '[{ kind = "modified", order = 2, batches = "full" }]'),
        ("save_every = 5", "batch_size = 20"),
        ("[solver]", SWEEP.replace("0.2, 0.1, 0.05", "0.1, 0.05, 0.025").replace("steps = 2", "steps = 1")),
    )
    (diagnosis,) = diagnoses(reduced(path, tmp_path / "out")[1]["convergence"])
    assert diagnosis.outcome is Outcome.NOT_TO_BE_EXPECTED
    assert Cause.BATCH_NOISE in diagnosis.causes


MISTAKES = [
    (
        ('"optimizer.lr" = [0.2, 0.1, 0.05]\nconstraint = "lr * steps = 2"', "seed = [1, 2]"),
        r"it needs several learning rates",
    ),
    (('constraint = "lr * steps = 2"', ""), r"lr · steps is 2 at lr = 0.2 and 0.5 at .* \"lr \* steps = 1\""),
    (
        ("steps = 10", "steps = 10\nwarm_steps = 5"),
        r"lr · warm_steps is 1 at .*: constraint = \"lr \* warm_steps = 0.5\"",
    ),
    ((FLOWS, "[]"), r"no flow whose order it could show"),
    (
        (FLOWS, '["gradient"]'),
        ("lr = 0.1", 'lr = 0.1\nschedule = { name = "warmup", steps = 3 }'),
        r"optimizer.schedule does not go with it",
    ),
    (("rtol = 1e-5", "rtol = 1e-5\ncheck = false"), r"it needs the solver's own error"),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake[-1] for mistake in MISTAKES])
def test_a_sweep_that_has_no_orders_is_refused_with_the_remedy(edited, mistake) -> None:
    *edits, sentence = mistake
    path = edited(("[solver]", SWEEP), *edits)
    with pytest.raises(CaseError, match=rf"sweep.reduce: 'order' was given; .*{sentence}"):
        load_case(path)


def test_a_study_has_the_orders_of_the_members_that_are_whole(orders, tmp_path: Path) -> None:
    path, trees, found = orders
    sweep = load_sweep(path)
    store = StudyStore.at(tmp_path, sweep.record.name)
    store.begin(sweep.record)
    there = {name: tree for name, tree in trees.items() if name != "lr=0.1"}
    for name in there:
        with store.claim(name):
            shutil.copytree(path.parent / "out" / name / "tiny" / "run.zarr", store.working(name))
            store.commit(name)
    for group, dataset in REDUCTIONS["order"].reduce(sweep.record, there.get, path).items():
        store.write_reduction(group, dataset)
    read = nm_ode.open_study(tmp_path / "tiny" / "study.zarr")["convergence"].to_dataset()
    xr.testing.assert_equal(read["error"].sel(lr=[0.2, 0.05]), found["error"].sel(lr=[0.2, 0.05]))
    assert read["left_out"].sel(lr=0.1).values.tolist() == ["not_solved"] * 2
    assert [one.outcome for one in diagnoses(read)] == [Outcome.AS_EXPECTED] * 2
