"""Running a case: done once, gone on with, never written over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from nm_ode.comparison import summary
from nm_ode.results import run_info, study_info
from nm_ode.results.store import partial_path
from nm_ode.studies import StoreError, load_case, member, open_store, run_case


def run(path: Path, out: Path, **options):
    return run_case(load_case(path, **options), path, out)


def test_a_case_becomes_a_tree(tiny_case: Path, tmp_path: Path) -> None:
    outcome = run(tiny_case, tmp_path / "out")
    tree = outcome.tree
    assert outcome.failures == ()
    assert outcome.store == tmp_path / "out/tiny/run.zarr"
    assert {node.path for node in tree.subtree} >= {
        "/discrete",
        "/flows/gradient",
        "/flows/modified_2_hessian",
        "/comparison/gradient",
        "/comparison/modified_2_hessian",
    }
    info = study_info(tree)
    assert info.status == "complete"
    assert info.case["optimizer"]["lr"] == 0.1
    assert info.case_text == tiny_case.read_text()
    assert info.versions["torch"]
    assert info.started <= info.ended
    assert info.code == {}
    rows = summary(tree)
    assert [row.name for row in rows] == ["gradient", "modified_2_hessian"]
    assert rows[0].error > 5 * rows[1].error > 0
    assert rows[0].step == 10
    assert rows[0].error == float(tree["comparison/gradient/error"][-1])


def test_the_same_case_gives_the_same_bits(tiny_case: Path, tmp_path: Path) -> None:
    one, other = (run(tiny_case, tmp_path / name).tree for name in ("one", "other"))
    for group in ("discrete", "comparison/gradient", "comparison/modified_2_hessian"):
        xr.testing.assert_equal(one[group].to_dataset(), other[group].to_dataset())


def test_a_finished_case_is_not_computed_again(tiny_case: Path, tmp_path: Path, monkeypatch) -> None:
    first = run(tiny_case, tmp_path / "out")
    monkeypatch.setattr(member, "train", None)
    monkeypatch.setattr(member, "solve", None)
    again = run(tiny_case, tmp_path / "out")
    assert again.reused
    assert not first.reused
    assert again.tree.identical(first.tree)


@pytest.mark.parametrize("edit", [("lr = 0.1", "lr = 0.2"), ('["gradient", ', "[")])
def test_results_of_another_case_are_never_written_over(tiny_case, edited, tmp_path: Path, edit) -> None:
    before = run(tiny_case, tmp_path / "out").tree
    with pytest.raises(StoreError, match=r"another case \(it differs in .*choose another folder with --out"):
        run(edited(edit), tmp_path / "out")
    assert open_store(tmp_path / "out/tiny/run.zarr").identical(before)


def test_results_of_an_older_version_are_never_written_over(tiny_case: Path, tmp_path: Path) -> None:
    store = run(tiny_case, tmp_path / "out").store
    root = zarr.open_group(store, mode="a", zarr_format=3)
    root.attrs["schema_version"] = 1
    with pytest.raises(StoreError, match=r"schema version 1, .*run the case again into another folder"):
        run(tiny_case, tmp_path / "out")
    assert root.attrs["schema_version"] == 1
    assert store.exists()


def test_a_diverging_run_is_kept_up_to_where_it_was_sound(edited, tmp_path: Path) -> None:
    path = edited(("lr = 0.1", "lr = 1e4"), ("steps = 10", "steps = 400"), ('"cross_entropy"', '"mse"'))
    path.write_text(
        path.read_text()
        .replace('name = "digits"\nsamples = 40', 'name = "diabetes"')
        .replace("widths = [64, 4, 10]", 'widths = [10, 4, 1]\nactivation = "softplus"')
    )
    outcome = run(path, tmp_path / "out")
    (failure,) = outcome.failures
    assert "training diverged: the loss is" in failure
    assert "choose a smaller learning rate" in failure
    tree = open_store(outcome.store)
    assert study_info(tree).status == "failed"
    assert study_info(tree).failures == (failure,)
    assert run_info(tree["discrete"].dataset).status == "diverged"
    assert tree["discrete"].sizes["step"] > 0
    assert np.isfinite(tree["discrete/loss"]).all()


def test_a_flow_that_fails_leaves_the_others_whole_and_is_tried_again(
    edited, tmp_path: Path, monkeypatch
) -> None:
    path = edited(("rtol = 1e-5", 'engine = "scipy"\nrtol = 1e-5\nmax_rhs = 1000'))
    real = member.solve

    def limited(flow, t, **options):
        return real(flow, t, **(options | ({"max_rhs": 20} if flow.name.startswith("modified") else {})))

    monkeypatch.setattr(member, "solve", limited)
    outcome = run(path, tmp_path / "out")
    (failure,) = outcome.failures
    assert "modified flow, order 2, Hessian form: scipy DOP853 stopped: the limit of 20" in failure
    rows = summary(outcome.tree)
    assert [row.status for row in rows] == ["success", "max_rhs"]

    solved = []
    monkeypatch.setattr(member, "solve", lambda flow, t, **o: solved.append(flow.name) or real(flow, t, **o))
    again = run(path, tmp_path / "out")
    assert again.failures == ()
    assert solved == ["modified_2_hessian"]
    assert again.tree["discrete"].identical(outcome.tree["discrete"])


KILLED = """
import os, signal, sys
from pathlib import Path
import xarray as xr
from nm_ode.results import store
from nm_ode.studies import load_case, run_case
case, out, point, after = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
owner, name = {"write": (xr.Dataset, "to_zarr"), "rename": (Path, "rename"), "root": (store.zarr, "open_group")}[point]
plain, calls = getattr(owner, name), 0
def deadly(*arguments, **options):
    global calls
    calls += 1
    if calls == after and point != "write":
        os.kill(os.getpid(), signal.SIGKILL)
    result = plain(*arguments, **options)
    if calls == after:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, name, deadly)
run_case(load_case(case), case, out)
"""


@pytest.mark.parametrize(
    ("point", "after"), [("write", 1), ("rename", 2), ("write", 4), ("root", 2), ("rename", 6)]
)
def test_a_killed_run_leaves_no_store_and_the_next_one_goes_on(
    tiny_case, tmp_path: Path, point, after
) -> None:
    out = tmp_path / "out"
    arguments = [sys.executable, "-c", KILLED, str(tiny_case), str(out), point, str(after)]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    store = out / "tiny/run.zarr"
    assert not store.exists()
    assert partial_path(store).exists()
    with pytest.raises(StoreError, match="not finished"):
        open_store(store)
    resumed = run(tiny_case, out)
    fresh = run(tiny_case, tmp_path / "fresh")
    assert study_info(resumed.tree).status == "complete"
    for group in ("discrete", "comparison/gradient", "comparison/modified_2_hessian"):
        xr.testing.assert_equal(resumed.tree[group].to_dataset(), fresh.tree[group].to_dataset())
    assert not partial_path(store).exists()


def test_an_interrupted_run_goes_on_from_what_was_complete(tiny_case, tmp_path: Path, monkeypatch) -> None:
    real = member.solve

    def interrupted(flow, t, **options):
        if flow.name != "gradient":
            os.kill(os.getpid(), signal.SIGINT)
        return real(flow, t, **options)

    monkeypatch.setattr(member, "solve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_case, tmp_path / "out")
    solved = []
    monkeypatch.setattr(member, "train", None)
    monkeypatch.setattr(member, "solve", lambda flow, t, **o: solved.append(flow.name) or real(flow, t, **o))
    assert run(tiny_case, tmp_path / "out").failures == ()
    assert solved == ["modified_2_hessian"]


def test_a_folder_that_cannot_be_written_is_named(tiny_case: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        StoreError, match=r"cannot be written \(Not a directory\): choose another folder with --out"
    ):
        run(tiny_case, tmp_path / "file")


def test_two_runs_do_not_write_one_store(tiny_case: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    folder = tmp_path / "out/tiny"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(StoreError, match="being written by another run"):
        run(tiny_case, tmp_path / "out")


def test_a_damaged_store_is_refused_not_replaced(tiny_case: Path, tmp_path: Path) -> None:
    store = run(tiny_case, tmp_path / "out").store
    (store / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="remove it and run the case again"):
        run(tiny_case, tmp_path / "out")
    assert store.exists()


def test_minibatches_and_momentum_without_flows(edited, tmp_path: Path) -> None:
    path = edited(
        ('["gradient", { kind = "modified", order = 2, form = "hessian" }]', "[]"),
        ("lr = 0.1", "lr = 0.1\nmomentum = 0.9\nnesterov = true"),
        ("save_every = 5", "batch_size = 7"),
    )
    tree = run(path, tmp_path / "out").tree
    assert tree["discrete"].sizes["step"] == 10
    assert summary(tree) == []


def test_engines_agree_on_the_comparison(tiny_case: Path, tmp_path: Path) -> None:
    rows = [
        summary(run(tiny_case, tmp_path / engine, engine=engine).tree) for engine in ("scipy", "sundials")
    ]
    for one, other in zip(*rows, strict=True):
        assert (one.engine, other.engine) == ("scipy", "sundials")
        np.testing.assert_allclose(one.error, other.error, rtol=0.1)
