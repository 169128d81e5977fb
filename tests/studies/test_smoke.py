"""The table `[smoke]`: what it makes of a case, and mistakes in it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from nm_ode.results import study_info
from nm_ode.studies import CaseError, load, load_case, load_sweep, run_case

SMOKE = """
[smoke]
"training.steps" = 4
"training.save_every" = 2
"model.widths" = [64, 3, 10]
flows = []

[solver]"""

SWEEP = """
[sweep]
"optimizer.lr" = [0.2, 0.1]
seed = { range = 3 }
constraint = "lr * steps = 1"
"""


@pytest.fixture
def small(edited):
    """The case with a table `[smoke]`, after more tables."""

    def make(table: str = SMOKE, more: str = "", *pairs: tuple[str, str]) -> Path:
        return edited(*pairs, ("\n[solver]", f"{more}{table}"))

    return make


def test_values_take_the_place_of_the_cases(small) -> None:
    path = small()
    whole, smoke = load_case(path), load_case(path, smoke=True)
    assert (whole.name, whole.training.steps, len(whole.flows)) == ("tiny", 10, 2)
    assert (smoke.name, smoke.training.steps, len(smoke.flows)) == ("tiny_smoke", 4, 0)
    assert smoke.title == "tiny (smoke run)"
    assert smoke.model.options["widths"] == (64, 3, 10)
    assert smoke.optimizer == whole.optimizer


def test_a_case_is_the_same_with_and_without_the_table(small, tiny_case: Path) -> None:
    """So its results stay its own when the table changes."""
    assert load_case(small()).model_dump() == load_case(tiny_case).model_dump()


@pytest.mark.parametrize(
    ("table", "device"), [(SMOKE, "cpu"), (SMOKE.replace("flows = []", 'device = "cuda:3"'), "cuda:3")]
)
def test_it_runs_on_a_cpu_unless_it_says_otherwise(small, table: str, device: str) -> None:
    path = small(table, "", ("seed = 1", 'seed = 1\ndevice = "cuda"'))
    assert load_case(path).device == "cuda"
    assert load_case(path, smoke=True).device == device


def test_what_is_asked_for_comes_before_the_table(small) -> None:
    path = small(SMOKE.replace("flows = []", '"solver.engine" = "scipy"'))
    assert load_case(path, smoke=True).solver.engine == "scipy"
    assert load_case(path, smoke=True, engine="sundials").solver.engine == "sundials"


def test_results_say_what_they_are_of(small, tmp_path: Path) -> None:
    path = small()
    found = load(path, smoke=True)
    outcome = run_case(found.case, path, tmp_path / "out", text=found.text)
    info = study_info(outcome.tree)
    assert outcome.tree["discrete"].sizes["step"] == 4
    raw = tomllib.loads(info.case_text)
    assert raw["name"] == "tiny_smoke"
    assert raw["training"]["steps"] == 4
    assert outcome.store == tmp_path / "out/tiny_smoke/run.zarr"


def test_a_sweep_keeps_its_members_and_their_constraints(small) -> None:
    table = '\n[smoke]\n"model.widths" = [64, 3, 10]\n"sweep.seed" = { range = 2 }\n\n[solver]'
    path = small(table, SWEEP)
    whole, smoke = load_sweep(path), load_sweep(path, smoke=True)
    assert whole is not None
    assert smoke is not None
    assert len(whole.members) == 6
    assert [member.name for member in smoke.members] == [
        *("lr=0.2,seed=0", "lr=0.2,seed=1", "lr=0.1,seed=0", "lr=0.1,seed=1")
    ]
    assert [member.case.training.steps for member in smoke.members] == [5, 5, 10, 10]
    assert {member.case.model.options["widths"] for member in smoke.members} == {(64, 3, 10)}
    assert smoke.record.name == "tiny_smoke"
    assert tomllib.loads(smoke.record.case_text)["sweep"]["seed"] == {"range": 2}


def test_keys_of_a_sweep_may_be_written_in_either_way(small) -> None:
    table = '\n[smoke.sweep]\noptimizer.lr = [0.5]\n"sweep.max_seconds" = 9\n\n[solver]'
    path = small(table.replace('"sweep.max_seconds" = 9', "max_seconds = 9"), SWEEP)
    sweep = load_sweep(path, smoke=True)
    assert sweep is not None
    assert [member.case.optimizer.lr for member in sweep.members] == [0.5] * 3
    assert sweep.table.max_seconds == 9


MISTAKES = {
    "smoke = 3": ("smoke: 3 was given; it must be a table",),
    '[smoke]\n"training.stpes" = 3': ("smoke: training: unknown key 'stpes'",),
    '[smoke]\n"training.steps" = 0\nloss = "msee"': (
        "smoke: loss: 'msee' was given",
        "smoke: training.steps: 0 was given",
    ),
    '[smoke]\nname = "other"': ("smoke: 'name' is not changed",),
    '[smoke]\n"a b" = 1': ("smoke: 'a b' is no key of a case",),
    '[smoke]\nmodel = "linear"\n"model.inputs" = 64': ("smoke: model.inputs is a part of model",),
    '[smoke]\n"flows[7].order" = 3\n"seed.x" = 1': (
        "smoke: flows[7].order: the case has no entry [7] there",
        "smoke: seed.x: there is no table there",
    ),
    "[smoke]\nseed = 2020-01-01": ("smoke: seed: datetime.date(2020, 1, 1) was given; values must be",),
    '[smoke]\n"sweep.zip" = ["lr"]': ("smoke: sweep: nothing varies",),
}


@pytest.mark.parametrize("table", MISTAKES)
def test_mistakes_are_told_whether_it_is_run_or_not(edited, table: str) -> None:
    place = (
        ('name = "tiny"', f'name = "tiny"\n{table}')
        if "[" not in table
        else ("\n[solver]", f"\n{table}\n[solver]")
    )
    path = edited(place)
    for smoke in (False, True):
        with pytest.raises(CaseError) as caught:
            load(path, smoke=smoke)
        told = str(caught.value).split("\n")
        assert len(told) == len(MISTAKES[table])
        for sentence, wanted in zip(told, MISTAKES[table], strict=True):
            assert sentence.startswith(f"{path}: {wanted}"), sentence


def test_a_mistake_of_the_case_is_told_once_and_beside_those_of_the_table(small) -> None:
    path = small(SMOKE.replace("= 4", '= "four"'), "", ("lr = 0.1", "lr = -1.0"))
    with pytest.raises(CaseError) as caught:
        load(path)
    own, of_table = str(caught.value).split("\n")
    assert own.startswith(f"{path}: optimizer")
    assert of_table.startswith(f"{path}: smoke: training.steps: 'four' was given")


@pytest.mark.parametrize("key", ["optimizer.lr", "training.steps", "optimizer"])
def test_a_value_that_the_sweep_gives_itself_is_refused(small, key: str) -> None:
    value = '{ name = "sgd", momentum = 0.5, lr = 1.0 }' if key == "optimizer" else 3
    path = small(f'\n[smoke]\n"{key}" = {value}\n\n[solver]', SWEEP)
    with pytest.raises(CaseError, match=r"smoke: .* is the sweep's to give"):
        load(path)


def test_a_case_without_the_table_has_no_smoke_run(tiny_case: Path) -> None:
    with pytest.raises(CaseError, match=r"smoke: there is no such table; write \[smoke\]"):
        load(tiny_case, smoke=True)


def test_data_that_lie_in_no_folder_are_not_read_from_one(small, tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="data: 'digits' lies in no folder"):
        load(small(), data=tmp_path)
