"""What a case file can set of a callable: read off its signature, whatever the types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, MinLen
from pydantic import ValidationError
from pydantic_core import PydanticCustomError
from torch import Tensor

from nm_ode.registry import OneOf, Registry
from nm_ode.studies.options import REQUIRED, options_of, validated

COLOURS: Registry[int] = Registry("colour", {"red": 1, "blue": 2})


def everything(
    problem: Any,
    count: Annotated[int, Ge(1)],
    factor: Annotated[float, Gt(0)] = 1.0,
    word: Literal["a", "b"] = "a",
    colour: Annotated[str, OneOf(COLOURS)] = "red",
    pair: tuple[int, float] = (1, 2.0),
    widths: Annotated[Sequence[Annotated[int, Ge(1)]], MinLen(1)] = (3,),
    plan: list[Annotated[int, Ge(1)] | Literal["M"]] | None = None,
    weights: Mapping[str, float] | None = None,
    path: Path | None = None,
    untyped=7,
    vector: Tensor | None = None,
    *,
    copy: bool = False,
    seed: int = 0,
) -> None:
    """A function with options of all kinds; `copy` is also a method of pydantic's models."""


def values(**given: Any) -> dict[str, Any]:
    return validated("everything", options_of(everything, skip=1, given=("seed",)), given)


def test_what_a_table_does_not_say_is_as_by_default() -> None:
    assert values(count=2) == {
        "count": 2,
        "factor": 1.0,
        "word": "a",
        "colour": "red",
        "pair": (1, 2.0),
        "widths": (3,),
        "plan": None,
        "weights": None,
        "path": None,
        "untyped": 7,
        "copy": False,
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"factor": 2}, 2.0),
        ({"word": "b"}, "b"),
        ({"colour": "blue"}, "blue"),
        ({"pair": [3, 4]}, (3, 4.0)),
        ({"widths": [4, 5]}, (4, 5)),
        ({"plan": [1, "M", 2]}, (1, "M", 2)),
        ({"weights": {"x": 1.5}}, {"x": 1.5}),
        ({"path": "data/mine.npz"}, Path("data/mine.npz")),
        ({"untyped": [1, {"a": True}]}, [1, {"a": True}]),
        ({"copy": True}, True),
    ],
)
def test_toml_becomes_what_python_wants(given: dict[str, Any], expected: object) -> None:
    (name,) = given
    found = values(count=1, **given)[name]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"count": 0}, ("count",)),
        ({"count": 1.5}, ("count",)),
        ({"count": True}, ("count",)),
        ({"count": 1, "factor": float("inf")}, ("factor",)),
        ({"count": 1, "factor": "1"}, ("factor",)),
        ({"count": 1, "pair": [1]}, ("pair", 1)),
        ({"count": 1, "pair": [1, "2"]}, ("pair", 1)),
        ({"count": 1, "widths": []}, ("widths",)),
        ({"count": 1, "widths": [1, 0]}, ("widths", 1)),
        ({"count": 1, "plan": [1, 0]}, ("plan", 1)),
        ({"count": 1, "copy": 1}, ("copy",)),
        ({"count": 1, "colour": "green"}, ("colour",)),
        ({}, ("count",)),
    ],
)
def test_what_is_wrong_is_told_once_with_its_place(given: dict[str, Any], place: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        values(**given)
    assert [error["loc"][: len(place)] for error in caught.value.errors()] == [place]


def test_a_key_that_is_no_option_is_told() -> None:
    for key in ("counts", "seed", "problem", "vector"):
        with pytest.raises(PydanticCustomError, match=f"unknown key '{key}'"):
            values(count=1, **{key: 1})


def test_an_option_that_toml_cannot_write_must_have_a_default() -> None:
    def needs(vector: Tensor) -> None: ...

    with pytest.raises(PydanticCustomError, match="'needs' needs 'vector', which cannot be written"):
        validated("needs", options_of(needs), {})


@dataclass
class Base:
    lr: Annotated[float, Gt(0)]
    names: list[str] = field(default_factory=list)


@dataclass
class Derived(Base):
    lr: Annotated[float, Gt(0)] = 0.5


def test_fields_of_a_dataclass_are_its_options() -> None:
    found = options_of(Base)
    assert found["lr"].default is REQUIRED
    assert validated("base", found, {"lr": 1.0}) == {"lr": 1.0, "names": []}
    assert validated("derived", options_of(Derived), {}) == {"lr": 0.5, "names": []}


def test_what_a_case_must_say_has_no_default_there() -> None:
    assert options_of(Derived, required=("lr",))["lr"].default is REQUIRED
