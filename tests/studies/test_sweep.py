"""Sweeps in case files: which members there are, what they are called, and mistakes."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nm_ode.results.study import Axis
from nm_ode.studies import CaseError, Sweep, expand, load_case, load_sweep
from nm_ode.studies.sweep.axes import SweepMistakeError, axes_of, values_of
from nm_ode.studies.sweep.constraint import parse
from nm_ode.studies.sweep.naming import member_name, short_names, value_name

SETTINGS = settings(
    derandomize=True, max_examples=200, deadline=None, suppress_health_check=list(HealthCheck)
)

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


def test_spans_are_those_of_numpy() -> None:
    assert values_of({"range": 4}) == (0, 1, 2, 3)
    assert values_of({"range": [5, 11, 3]}) == tuple(range(5, 11, 3))
    assert values_of({"range": [5, 1, -2]}) == (5, 3)
    assert values_of({"range": [0.1, 0.4, 0.1]}) == (0.1, 0.2, 0.3)
    np.testing.assert_allclose(values_of({"linspace": [0.1, 0.7, 7]}), np.linspace(0.1, 0.7, 7), rtol=1e-11)
    np.testing.assert_allclose(values_of({"geomspace": [1e-3, 1, 9]}), np.geomspace(1e-3, 1, 9), rtol=1e-11)
    assert values_of({"geomspace": [1e-3, 1, 4]}) == (0.001, 0.01, 0.1, 1.0)


NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.booleans() | NUMBERS | st.text(max_size=50)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.lists(
    st.sampled_from(
        [
            "seed",
            "model.seed",
            "Model.Seed",
            "optimizer.lr",
            "a.lr",
            "flows[0].order",
            "flows[1].order",
            "flows0.order",
            "solver.step",
            "x" * 60,
            "y." + "x" * 60,
        ]
    ),
    min_size=1,
    max_size=5,
    unique=True,
)

SAFE = re.compile(r"[a-zA-Z_][A-Za-z0-9_.-]*=[A-Za-z0-9_.,=-]*[A-Za-z0-9_]")


@settings(SETTINGS, max_examples=80)
@given(keys=KEYS, data=st.data())
def test_names_are_unique_and_safe(keys: list[str], data: st.DataObject) -> None:
    """As folders on systems that do not tell small and capital letters apart, and in URLs as they are."""
    values: dict[str, tuple[Any, ...]] = {}
    for key in keys:
        drawn = data.draw(st.lists(VALUES, min_size=1, max_size=3))
        values[key] = tuple({_meant(value): value for value in drawn}.values())
    names = short_names(keys)
    assert len({name.lower() for name in names.values()}) == len(keys)
    axes = axes_of(values, [], names)
    found = [
        member_name(dict(zip(keys, row, strict=True)), names) for row in itertools.product(*values.values())
    ]
    assert len(axes) == len(keys)
    assert len({name.lower() for name in found}) == len(found)
    for name in found:
        assert SAFE.fullmatch(name), name
        assert len(name) <= 120
        assert quote(name, safe=",=") == name


def _meant(value: Any) -> str:
    """A value as a case means it: 1.0 is 1, and true is not."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{key!r}:{_meant(part)}" for key, part in value.items())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_meant, value)) + "]"
    if isinstance(value, float) and value == int(value) and abs(value) < 2**53:
        value = int(value)
    return repr(value)


@SETTINGS
@given(value=st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False))
def test_the_name_of_a_number_says_the_number(value: float) -> None:
    name = value_name(value)
    assert json.loads(name) == value
    assert isinstance(json.loads(name), bool) == isinstance(value, bool)


def test_a_value_that_is_added_leaves_the_other_names() -> None:
    values = [
        "relu",
        "Relu",
        "tanh",
        "0.1",
        0.1,
        True,
        "true",
        [1, 2],
        [1],
        "1x2",
        {"name": "mlp"},
        {"name": "mlp", "a": 1},
    ]
    assert len({value_name(value) for value in values}) == len(values)
    assert [value_name(value) for value in ("relu", 0.1, True, [1, 2], 1e-5, 1e20)] == [
        *("relu", "0.1", "true", "1x2", "1e-05", "1e20")
    ]


@SETTINGS
@given(
    lr=st.integers(1, 10**6).map(lambda n: n / 10**4),
    steps=st.integers(1, 10**5),
    power=st.sampled_from([1, 2, -1, 3]),
)
def test_a_constraint_keeps_the_final_time(lr: float, steps: int, power: int) -> None:
    """Whole numbers come out whole, however lr is written as a binary number."""
    from fractions import Fraction

    final = Fraction(str(lr)) ** power * steps
    found = parse(f"lr^{power} * steps = {final.numerator} / {final.denominator}").solve({"lr": lr}, "steps")
    assert found == steps
    assert isinstance(found, int)
    back = parse(f"steps * lr**{power} = {final.numerator} / {final.denominator}").solve(
        {"steps": steps}, "lr"
    )
    assert back == pytest.approx(lr, rel=1e-14)


@pytest.mark.parametrize(
    ("text", "given_values", "wanted", "value"),
    [
        ("lr * steps = 8", {"lr": 0.1}, "steps", 80),
        ("steps = 8 / lr", {"lr": 0.025}, "steps", 320),
        ("lr * steps / batch_size = 2", {"lr": 0.5, "batch_size": 25}, "steps", 100),
        ("8 = steps * lr", {"steps": 3}, "lr", 8 / 3),
        ("width^2 * depth = 100", {"depth": 4}, "width", 5),
        ("width^2 * depth = 100", {"depth": 3}, "width", (100 / 3) ** 0.5),
        ("a ** -0.5 = 3 * b", {"b": 2}, "a", 1 / 36),
        ("optimizer.lr * flows[0].order = 1e-3", {"optimizer.lr": 5e-4}, "flows[0].order", 2),
    ],
)
def test_constraints(text: str, given_values: dict[str, Any], wanted: str, value: float) -> None:
    found = parse(text).solve(given_values, wanted)
    assert found == pytest.approx(value, rel=1e-14)
    assert isinstance(found, type(value))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=",
        "lr",
        "lr = ",
        "lr * = 3",
        "lr steps = 3",
        "lr - 1 = 3",
        "(lr) = 2",
        "lr ** x = 2",
        "2 = 3",
        "0 * lr = 1",
        "a = b = c",
        "lr ** 1e9 = 2",
        "3 ** 1e9 = lr",
        "lr / lr = 1",
    ],
)
def test_what_is_no_constraint_is_refused(text: str) -> None:
    with pytest.raises(SweepMistakeError, match="constraint"):
        parse(text).solve({}, "lr")


@SETTINGS
@given(text=st.text("lrsteps0123456789.*/^=+- e[]", max_size=20))
def test_any_text_is_a_constraint_or_a_sentence(text: str) -> None:
    try:
        powers = parse(text).powers
    except SweepMistakeError:
        return
    assert powers


def test_a_sweep_of_thousands_of_members_is_expanded(swept) -> None:
    from nm_ode.studies.load import read_case

    raw, text = read_case(swept('seed = { range = 500 }\n"optimizer.lr" = { geomspace = [1e-3, 1, 4] }'))
    sweep = expand(raw, Path("case.toml"), text)
    assert len({member.name for member in sweep.members}) == 2_000
    assert sweep.record.case_text == text
