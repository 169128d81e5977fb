"""Results say what data they are of: a file that has changed is told, without reading it anew each time."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from nm_ode.batch.plan import plan_sweep
from nm_ode.data import DATA, DataSet, digest
from nm_ode.data.digest import digest_of, stamp_of
from nm_ode.results import StoreError, open_store, study_info
from nm_ode.studies import identity, load_case, load_sweep, run_case

CASE = """
name = "own"
loss = "mse"
model = { name = "linear", inputs = 3, outputs = 1 }
data = { name = "npz", path = "samples.npz", samples = 20 }
optimizer = { lr = 0.1 }
training = { steps = 3 }
"""


def write(folder: Path, change: float = 0.0, at: int = 0, age: float = 3600.0) -> Path:
    """The samples, one of them changed, in a file so many seconds old."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 1))
    x[at, 0] += change
    path = folder / "samples.npz"
    np.savez(path, x=x, y=y)
    when = path.stat().st_mtime - age
    os.utime(path, (when, when))
    return path


@pytest.fixture
def case(tmp_path: Path) -> Path:
    write(tmp_path)
    (tmp_path / "own.toml").write_text(CASE)
    return tmp_path / "own.toml"


def run(case: Path):
    return run_case(load_case(case), case, case.parent / "results")


def test_other_samples_are_told(case: Path) -> None:
    first = run(case)
    assert not first.reused
    assert set(study_info(first.tree).code) == {"samples.npz"}
    assert run(case).reused
    write(case.parent)  # the same in another file
    assert run(case).reused
    write(case.parent, change=1e-9, at=25)  # which is not among the first 20
    assert run(case).reused
    write(case.parent, change=1e-9)
    with pytest.raises(StoreError, match=r"samples\.npz, which has changed since"):
        run(case)


def test_results_are_shown_where_their_data_are_not(case: Path) -> None:
    run(case)
    (case.parent / "samples.npz").unlink()
    assert run(case).reused


def test_what_was_begun_with_other_samples_is_not_gone_on_with(case: Path, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("nm_ode.results.store.StoreWriter.finish", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(case)
    write(case.parent, change=1.0)
    with pytest.raises(StoreError, match="has changed since"):
        run(case)
    write(case.parent)
    assert not run(case).reused


def _interrupted(*given: object) -> None:
    raise KeyboardInterrupt


def test_members_of_a_sweep_are_of_the_data_as_they_were(case: Path) -> None:
    case.write_text(CASE + '[sweep]\n"optimizer.lr" = [0.1, 0.05]\n')
    sweep = load_sweep(case)
    plan = plan_sweep(sweep, str(case.parent / "results"), None, "a batch")
    assert len(plan.tasks) == 2
    plan.store.begin(sweep.record)
    member = sweep.members[0]
    done = run_case(member.case, case, case.parent / "apart")
    plan.store.working(member.name).parent.mkdir(parents=True)
    done.store.rename(plan.store.working(member.name))
    plan.store.commit(member.name)
    assert plan_sweep(sweep, str(case.parent / "results"), None, "a batch").whole == 1
    write(case.parent, change=1.0)
    with pytest.raises(StoreError, match="has changed since"):
        plan_sweep(sweep, str(case.parent / "results"), None, "a batch")


def test_a_file_that_is_as_it_was_is_not_read_again(case: Path, monkeypatch) -> None:
    run(case)
    read = []
    monkeypatch.setattr(
        identity, "digest_of", lambda *given, **more: read.append(1) or digest_of(*given, **more)
    )
    monkeypatch.setattr(identity, "_LARGE", 0)
    monkeypatch.setattr(identity, "users_caches", lambda: case.parent / "caches" / "images")
    monkeypatch.setattr(digest, "_SETTLED", 0.0)
    identity._known.clear()
    assert run(case).reused
    assert len(read) == 1
    identity._known.clear()  # as another command
    assert run(case).reused
    assert len(read) == 1
    monkeypatch.setattr(digest, "_SETTLED", 60.0)  # it was just now: a glance does not tell
    assert run(case).reused
    assert len(read) == 2


def test_many_members_that_are_looked_at_at_once_have_their_data_read_once(case: Path, monkeypatch) -> None:
    read = []

    def slow(*given, **more) -> str:
        read.append(1)
        time.sleep(0.2)
        return digest_of(*given, **more)

    monkeypatch.setattr(identity, "digest_of", slow)
    monkeypatch.setattr(digest, "_SETTLED", 0.0)
    identity._known.clear()
    loaded, there = load_case(case), {"samples.npz": "as they were"}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: identity.identity_now(loaded, there, case.parent), range(4)))
    assert len({one.code["samples.npz"] for one in found}) == 1
    assert len(read) == 1


def test_the_digest_is_of_samples_targets_preparation_and_test_split() -> None:
    x, y = torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 1])
    base = DataSet(x, y, test=lambda: DataSet(x, y))
    found = {
        digest_of(base),
        digest_of(base, held_out=True),
        digest_of(DataSet(x, y, test=lambda: DataSet(x + 1, y)), held_out=True),
        digest_of(DataSet(x + 1, y)),
        digest_of(DataSet(x.double(), y)),
        digest_of(DataSet(x, y.flip(0))),
    }
    assert len(found) == 6
    assert digest_of(base) == digest_of(DataSet(x.clone(), y.clone()))


def test_the_stamp_of_a_folder_is_of_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    file = tmp_path / "a" / "b" / "one.png"
    file.write_bytes(b"one")
    assert stamp_of(tmp_path) is None  # it was just now
    with pytest.raises(FileNotFoundError):
        stamp_of(tmp_path / "none")


def test_the_store_has_the_digest_of_the_samples(case: Path) -> None:
    info = study_info(open_store(run(case).store))
    assert info.code["samples.npz"] == digest_of(DATA["npz"](path=case.parent / "samples.npz", samples=20))
