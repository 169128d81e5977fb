"""Running a case: done once, gone on with, never written over."""

from __future__ import annotations

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from filelock import FileLock

from nm_ode.comparison import summary
from nm_ode.results import run_info, study_info
from nm_ode.results.store import StoreWriter, partial_path
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
    root = json.loads((store / "zarr.json").read_text())
    del root["attributes"]["digests"], root["attributes"]["digest"]
    root["attributes"]["schema_version"] = 2
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreError, match=r"schema version 2, .*run the case again into another folder"):
        run(tiny_case, tmp_path / "out")
    assert json.loads((store / "zarr.json").read_text()) == root


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


@pytest.mark.usefixtures("python_sigint")
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
    folder = tmp_path / "out/tiny"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(StoreError, match="being written by another run"):
        run(tiny_case, tmp_path / "out")


def test_runs_in_two_threads_do_not_write_one_store(tiny_case: Path, tmp_path: Path, monkeypatch) -> None:
    real, begun, told = member.train, threading.Event(), threading.Event()

    def waits(*arguments, **options):
        begun.set()
        assert told.wait(60)
        return real(*arguments, **options)

    monkeypatch.setattr(member, "train", waits)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(run, tiny_case, tmp_path / "out")
        assert begun.wait(60)
        with pytest.raises(StoreError, match="being written by another run"):
            run(tiny_case, tmp_path / "out")
        told.set()
        assert first.result().failures == ()


def test_a_complete_store_is_shown_where_nothing_can_be_written(
    tiny_case: Path, tmp_path: Path, monkeypatch
) -> None:
    first = run(tiny_case, tmp_path / "out")
    (tmp_path / "out/tiny/.lock").unlink(missing_ok=True)
    there = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}

    def read_only(self, **options):
        raise OSError(30, "Read-only file system", self.lock_file)

    monkeypatch.setattr(FileLock, "acquire", read_only)
    again = run(tiny_case, tmp_path / "out")
    assert again.reused
    assert again.tree.identical(first.tree)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == there
    with pytest.raises(
        StoreError, match=r"cannot be written \(Read-only file system\): choose another folder"
    ):
        run(tiny_case, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("group", "again"),
    [("discrete", ["train"]), ("flows/gradient", ["solve"]), ("comparison/gradient", [])],
)
def test_unfinished_results_that_are_damaged_are_computed_again(
    tiny_case: Path, tmp_path: Path, monkeypatch, group: str, again: list[str]
) -> None:
    right = run(tiny_case, tmp_path / "fresh").tree
    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tiny_case, tmp_path / "out")
    folder = partial_path(tmp_path / "out/tiny/run.zarr") / group
    (tmp_path / "out/tiny/.report.html-dead").touch()
    os.truncate(folder / "zarr.json", 10)
    done = []
    for name in ("train", "solve"):
        monkeypatch.setattr(member, name, counted(getattr(member, name), name, done))
    outcome = run(tiny_case, tmp_path / "out")
    assert done == again
    assert {path.name for path in (tmp_path / "out/tiny").iterdir()} == {".lock", "run.zarr"}
    assert len(outcome.discarded) == len(again)  # comparisons are always computed
    assert all(f"{folder} is damaged: zarr.json" in sentence for sentence in outcome.discarded)
    for name in ("discrete", "comparison/gradient", "comparison/modified_2_hessian"):
        xr.testing.assert_identical(outcome.tree[name].to_dataset(), right[name].to_dataset())


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def counted(plain, name: str, done: list[str]):
    def call(*arguments, **options):
        done.append(name)
        return plain(*arguments, **options)

    return call


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")])
@pytest.mark.parametrize("name", ["run.zarr", "run.zarr.partial"])
def test_what_stands_in_the_stores_way_is_named_before_anything_is_computed(
    tiny_case: Path, tmp_path: Path, monkeypatch, make, name: str
) -> None:
    (tmp_path / "out/tiny").mkdir(parents=True)
    make(tmp_path / "out/tiny" / name)
    monkeypatch.setattr(member, "train", None)
    with pytest.raises(StoreError):
        run(tiny_case, tmp_path / "out")
    assert os.path.lexists(tmp_path / "out/tiny" / name)


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
