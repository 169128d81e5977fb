"""Sweeps in case files: which members there are, what they are called, and mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nm_ode.results.study import Axis
from nm_ode.studies import CaseError, Sweep, expand, load_case, load_sweep

SWEEP = """
[sweep]
"optimizer.lr" = [0.2, 0.1, 0.05]
seed = { range = 2 }
constraint = "lr * steps = 1"

[solver]"""


@pytest.fixture
def swept(edited):
    """The case with a table `[sweep]`, and pieces of its text replaced."""

    def make(table: str, *pairs: tuple[str, str]) -> Path:
        return edited(*pairs, ("[solver]", f"[sweep]\n{table}\n\n[solver]"))

    return make


def members(path: Path) -> Sweep:
    found = load_sweep(path)
    assert found is not None
    return found


def test_a_grid_keeps_the_final_time(edited) -> None:
    sweep = members(edited(("[solver]", SWEEP)))
    assert [member.name for member in sweep.members] == [
        *("lr=0.2,seed=0", "lr=0.2,seed=1", "lr=0.1,seed=0"),
        *("lr=0.1,seed=1", "lr=0.05,seed=0", "lr=0.05,seed=1"),
    ]
    assert [member.case.training.steps for member in sweep.members] == [5, 5, 10, 10, 20, 20]
    assert [member.case.seed for member in sweep.members] == [0, 1] * 3
    assert all(member.case.sweep is None for member in sweep.members)
    assert sweep.record.axes == (
        Axis("lr", {"optimizer.lr": (0.2, 0.1, 0.05)}),
        Axis("seed", {"seed": (0, 1)}),
    )
    assert sweep.record.shape == (3, 2)
    assert sweep.members[3].place.index == (1, 1)
    assert sweep.members[3].values == {"optimizer.lr": 0.1, "seed": 1, "training.steps": 10}
    assert sweep.case.sweep is not None
    assert sweep.case.training.steps == 10  # as it is written
    assert load_case(sweep.path) == sweep.case
    json.dumps(sweep.record.case)


def test_a_member_is_the_case_with_its_values_in_it(edited, tiny_case: Path) -> None:
    text = tiny_case.read_text()
    for member in members(edited(("[solver]", SWEEP))).members:
        written = {"optimizer.lr": "lr = 0.1", "seed": "seed = 1", "training.steps": "steps = 10"}
        changed = text
        for key, old in written.items():
            changed = changed.replace(old, f"{key.rpartition('.')[2]} = {member.values[key]}")
        tiny_case.write_text(changed)
        assert load_case(tiny_case) == member.case


def test_a_case_without_a_sweep_has_none(tiny_case: Path) -> None:
    assert load_sweep(tiny_case) is None
    assert load_case(tiny_case).sweep is None


def test_what_varies_need_not_be_written_besides(swept) -> None:
    path = swept('"optimizer.lr" = [0.3, 0.1]', ("lr = 0.1", ""))
    assert load_case(path).optimizer.lr == 0.3
    assert [member.case.optimizer.lr for member in members(path).members] == [0.3, 0.1]


def test_tables_names_in_short_and_entries_of_lists_vary(swept) -> None:
    path = swept(
        """
        model = [{ name = "mlp", widths = [64, 4, 10] }, { name = "linear", inputs = 64, outputs = 10 }]
        "flows[0].batches" = ["full"]
        "solver.rtol" = { geomspace = [1e-4, 1e-6, 3] }
        """
    )
    with pytest.raises(CaseError, match=r"sweep: flows\[0\]: batches = 'full' is for a run on"):
        load_case(path)
    text = path.read_text().replace('"flows[0].batches" = ["full"]', '"flows[1].order" = [2]')
    path.write_text(text)
    sweep = members(path)
    assert [axis.name for axis in sweep.record.axes] == ["model", "order", "rtol"]
    assert [member.case.model.name for member in sweep.members] == ["mlp"] * 3 + ["linear"] * 3
    assert [member.case.solver.rtol for member in sweep.members[:3]] == [1e-4, 1e-5, 1e-6]
    assert all(
        re.fullmatch(r"model=(mlp|linear)-[0-9a-f]{8},order=2,rtol=[\de.-]+", m.name) for m in sweep.members
    )


def test_a_flow_by_its_name_alone_gets_options(swept) -> None:
    path = swept(
        '"flows[0].order" = [1, 2]',
        ('"gradient"', '"slow_manifold"'),
        ("lr = 0.1", "lr = 0.1\nmomentum = 0.5"),
    )
    assert [member.case.flows[0].options["order"] for member in members(path).members] == [1, 2]
    assert members(path).members[0].case.flows[1].options["order"] == 2


def test_keys_that_vary_together_are_one_axis(swept) -> None:
    path = swept(
        """
        "model.widths" = [[64, 4, 10], [64, 8, 10]]
        "training.steps" = [8, 4]
        seed = [3, 4]
        zip = ["widths", "steps"]
        """
    )
    sweep = members(path)
    assert sweep.record.shape == (2, 2)
    assert [axis.name for axis in sweep.record.axes] == ["widths", "seed"]
    assert [member.name for member in sweep.members] == [
        *("widths=64x4x10,steps=8,seed=3", "widths=64x4x10,steps=8,seed=4"),
        *("widths=64x8x10,steps=4,seed=3", "widths=64x8x10,steps=4,seed=4"),
    ]
    assert [member.case.training.steps for member in sweep.members] == [8, 8, 4, 4]


def test_the_table_may_be_written_with_plain_keys(swept) -> None:
    dotted = members(swept("optimizer.lr = [0.1, 0.2]\nseed.range = 2"))
    quoted = members(swept('"optimizer.lr" = [0.1, 0.2]\nseed = { range = 2 }'))
    assert dotted.record.members == quoted.record.members


MISTAKES = [
    ("", r"sweep: nothing varies"),
    ('"optimizer.lr" = 0.1', r"sweep: optimizer.lr: 0.1 was given; it must be a list of values"),
    ('"optimizer.lr" = []', r"sweep: optimizer.lr: \[\] was given; it has no value"),
    ('"optimizer.lr" = [0.1, 0.1]', r"sweep: optimizer.lr\[0\] and \[1\] are the same"),
    ("seed = [1, 1.0]", r"sweep: seed\[0\] and \[1\] are the same"),
    (
        '"optimizer.lr" = [0.1, -0.1]',
        r"sweep: member lr=-0.1: optimizer.lr: -0.1 was given; it must be greater",
    ),
    ('"optimizer.lr" = [0.1, inf]', r"sweep: optimizer.lr: .* was given; values must be finite"),
    ("seed = [1979-05-27]", r"sweep: seed: .* values must be finite numbers, texts"),
    ('"optimizer.lrr" = [0.1]', r"sweep: optimizer: unknown key 'lrr'; did you mean 'lr'"),
    ('"optimiser.lr" = [0.1]', r"sweep: unknown key 'optimiser'; did you mean 'optimizer'"),
    ('"flows[5].order" = [2]', r"sweep: flows\[5\].order: the case has no entry \[5\]"),
    ('"seed.x" = [2]', r"sweep: seed.x: there is no table there"),
    ('"optimizer lr" = [0.1]', r"sweep: 'optimizer lr' is no key of a case"),
    ('name = ["a", "b"]', r"sweep: 'name' does not vary"),
    ('model = ["mlp"]\n"model.widths" = [[64, 10]]', r"sweep: model.widths is a part of model"),
    ("seed = { range = 10, step = 2 }", r"sweep: seed.range: 10 was given; it must be a list"),
    ("seed = { range = [1, 2, 0] }", r"sweep: seed: .* a step of 0"),
    ("seed = { range = 1e9 }", r"sweep: seed: .* at most 1000000"),
    (
        "seed = { range = 2000 }\nchunk_size = { range = [1, 2000] }",
        r"sweep: it has 3998000 values, and a sweep",
    ),
    ("seed = { linspace = [1, 2] }", r"sweep: seed: .* linspace must be \[first, last, count\]"),
    ("seed = { geomspace = [-1, 2, 3] }", r"sweep: seed: .* of one sign"),
    ('seed = [1]\nzip = ["seed", "steps"]', r"sweep: zip: 'steps' does not vary"),
    (
        'seed = [1, 2]\n"optimizer.lr" = [0.1]\nzip = ["seed", "lr"]',
        r"sweep: zip: seed has 2, optimizer.lr has 1 values",
    ),
    (
        'seed = [1]\nconstraint = "seed + steps = 3"',
        r"sweep.constraint: .*'seed \+ steps = 3': sums do not go",
    ),
    ('seed = [1]\nconstraint = "seed * stps = 3"', r"sweep: constraint .*: the case has no key 'stps'"),
    ('seed = [1]\nconstraint = "seed * training.steps"', r"sweep.constraint: .*: it must be a product"),
    ('seed = [1]\nconstraint = "seed = 3"', r"all its keys vary"),
    ('seed = [1]\nconstraint = "seed * steps * save_every = 3"', r"one alone can be computed"),
    (
        '"optimizer.lr" = [0.1, 0.3]\nconstraint = "lr * steps = 1"',
        r"sweep: member lr=0.3: training.steps: 3.33333\d* was given; it must be a valid integer .*'lr \* steps = 1'",
    ),
    ('seed = [0, 1]\nconstraint = "seed * steps = 1"', r"sweep: member seed=0: constraint .*seed is 0 here"),
    ('seed = [1]\nreduce = ["ordr"]', r"sweep.reduce: .*'ordr'"),
    ("seed = [1]\nvectorise = 3", r"sweep.*: 3 was given; it must be true, false or 'auto'"),
    ("seed = [1]\nmax_seconds = 0", r"sweep.max_seconds: 0 was given; it must be greater than 0"),
    ("seed = [1]\nzip = 3", r"sweep.zip: 3 was given; it must be a list"),
]


@pytest.mark.parametrize(("table", "sentence"), MISTAKES)
def test_a_mistake_is_one_sentence_with_file_and_place(swept, table: str, sentence: str) -> None:
    path = swept(table)
    with pytest.raises(CaseError, match=sentence) as told:
        load_case(path)
    assert all(line.startswith(f"{path}: ") for line in str(told.value).splitlines())


def test_a_mistake_of_the_case_itself_is_told_once_and_without_members(swept) -> None:
    path = swept("seed = { range = 50 }", ("widths = [64, 4, 10]", "widths = [64, 0, 10]"))
    with pytest.raises(CaseError) as told:
        load_case(path)
    assert str(told.value).count("widths") == 1
    assert "member" not in str(told.value)


def test_a_mistake_of_many_members_is_told_with_their_number(swept) -> None:
    path = swept('"optimizer.momentum" = [0.0, 1.5]\nseed = { range = 20 }')
    with pytest.raises(
        CaseError, match=r"member momentum=1.5,seed=0 \(and 19 more\): optimizer.momentum: 1.5"
    ) as told:
        load_case(path)
    assert len(str(told.value).splitlines()) == 1


def test_a_sweep_of_thousands_of_members_is_expanded(swept) -> None:
    from nm_ode.studies.load import read_case

    raw, text = read_case(swept('seed = { range = 500 }\n"optimizer.lr" = { geomspace = [1e-3, 1, 4] }'))
    sweep = expand(raw, Path("case.toml"), text)
    assert len({member.name for member in sweep.members}) == 2_000
    assert sweep.record.case_text == text
