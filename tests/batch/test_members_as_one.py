"""A batch whose members are trained as one: the results of one after another, and who waits for whom."""

from __future__ import annotations

from pathlib import Path

import pytest

import nm_ode
from nm_ode.batch.machine import Workers
from nm_ode.batch.plan import Plan, plan_sweep
from nm_ode.batch.run import run_batch
from nm_ode.batch.standing import Standing
from nm_ode.batch.tasks import MemberOutcome
from nm_ode.results.study import StudyStore
from nm_ode.studies import load_sweep
from tests.together.runs import assert_same_run

CASE = """
name = "seeds"
loss = "mse"
model = {{ name = "mlp", widths = [10, 3, 1] }}
data = {{ name = "diabetes", samples = 30 }}
optimizer = {{ lr = 0.05, momentum = 0.5 }}
training = {{ steps = 8, batch_size = 7 }}
[sweep]
seed = {{ range = {members} }}
"optimizer.lr" = [0.05, 0.1]
vectorise = {vectorise}
"""


def planned(folder: Path, vectorise: str, members: int = 2) -> Plan:
    path = folder / "seeds.toml"
    path.write_text(CASE.format(members=members, vectorise=vectorise))
    sweep = load_sweep(path)
    assert sweep is not None
    return plan_sweep(sweep, str(folder / vectorise.strip('"')), None, "a batch")


def run(plan: Plan) -> list[MemberOutcome]:
    assert plan.store is not None
    assert plan.sweep is not None
    plan.store.begin(plan.sweep.record)
    return list(
        run_batch([plan], Workers(0, 1, 0, 0), Standing(total=len(plan.tasks)), lambda standing: None)
    )


def test_the_same_results_from_one_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_turn = planned(tmp_path, "false")
    assert {outcome.status for outcome in run(in_turn)} == {"done"}

    def not_alone(*args: object, **options: object) -> None:
        raise AssertionError("a member is trained alone")

    monkeypatch.setattr("nm_ode.studies.member.train", not_alone)
    at_once = planned(tmp_path, "true")
    assert {outcome.status for outcome in run(at_once)} == {"done"}
    for task in at_once.tasks:
        found, expected = (
            nm_ode.open_store(store.place(task.member))["discrete"].to_dataset()
            for store in (at_once.store, in_turn.store)
            if store is not None
        )
        assert_same_run(found, expected, 1e-9)


def test_what_is_left_after_a_kill_is_done_by_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of companions that were written are found; a member that another process has is left to it."""
    plan = planned(tmp_path, "true")

    def killed(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("nm_ode.batch.member.run_case_into", killed)
        with pytest.raises(KeyboardInterrupt):
            run(plan)
    monkeypatch.setattr("nm_ode.studies.together.train", killed)
    monkeypatch.setattr("nm_ode.studies.member.train", killed)
    assert {outcome.status for outcome in run(planned(tmp_path, "true"))} == {"done"}


def test_each_worker_has_its_part(tmp_path: Path) -> None:
    plan = planned(tmp_path, '"auto"', members=9)  # 18 members
    tasks = plan.sized(1, None, workers=4).tasks
    leaders = [task for task in tasks if task.companions]
    assert list(tasks[:4]) == leaders
    parts = [{leader.member, *(name for name, _ in leader.companions)} for leader in leaders]
    assert sorted(map(len, parts)) == [4, 4, 5, 5]
    assert sorted(name for part in parts for name in part) == sorted(task.member for task in tasks)
    assert all(len(task.companions) <= 64 for task in planned(tmp_path, "true", 70).sized(1, None).tasks)
    assert planned(tmp_path, "false").alike == ()


def test_where_there_is_no_folder_for_all_each_is_trained_alone(tmp_path: Path) -> None:
    path = tmp_path / "seeds.toml"
    path.write_text(CASE.format(members=3, vectorise="true"))
    sweep = load_sweep(path)
    assert sweep is not None
    plan = plan_sweep(sweep, "memory://nowhere", str(tmp_path), "a batch")
    assert isinstance(plan.store, StudyStore)
    assert plan.alike == ()
