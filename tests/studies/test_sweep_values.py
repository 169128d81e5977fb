"""Values, names and constraints of sweeps, by their properties."""

from __future__ import annotations

import itertools
import json
import re
from fractions import Fraction
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nm_ode.studies.sweep.axes import SweepMistakeError, axes_of, values_of
from nm_ode.studies.sweep.constraint import parse
from nm_ode.studies.sweep.naming import member_name, resolve, short_names, value_name

SETTINGS = settings(
    derandomize=True, max_examples=200, deadline=None, suppress_health_check=list(HealthCheck)
)


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
        "lr = 1e300 ** 1.5",
        "lr = 1e-300 ** 1.5",
        "1e-400 ** 0.5 * lr = 1",
        "lr / lr = 1",
    ],
)
def test_what_is_no_constraint_is_refused(text: str) -> None:
    with pytest.raises(SweepMistakeError, match="constraint"):
        parse(text).solve({}, "lr")


def test_a_root_of_a_number_beyond_all_others_is_refused() -> None:
    with pytest.raises(SweepMistakeError, match="no steps fulfils it here"):
        parse("lr * steps^2 = 1e300").solve({"lr": 1e-300}, "steps")


@SETTINGS
@given(text=st.text("lrsteps0123456789.*/^=+- e[]", max_size=20))
def test_any_text_is_a_constraint_or_a_sentence(text: str) -> None:
    try:
        powers = parse(text).powers
    except SweepMistakeError:
        return
    assert powers


def test_short_names_are_as_long_as_it_takes() -> None:
    assert short_names(["optimizer.lr", "seed", "model.width", "solver.step"]) == {
        "optimizer.lr": "lr",
        "seed": "seed",
        "model.width": "width",
        "solver.step": "solver_step",  # a member's datasets have a dimension of that name
    }
    assert list(short_names(["seed", "model.seed", "flows[0].order", "flows[1].order"]).values()) == [
        *("seed", "model_seed", "flows0_order", "flows1_order")
    ]
    assert resolve("steps", ["training.steps", "optimizer.schedule.steps"]) == ["training.steps"]
    assert resolve("order", ["flows[0].order", "flows[1].order"]) == ["flows[0].order", "flows[1].order"]
