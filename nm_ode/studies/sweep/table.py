"""The table `[sweep]` of a case file: which keys vary, and what is made of the members."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_serializer, model_validator

from nm_ode.registry import did_you_mean
from nm_ode.studies.places import leaves, require_apart, require_key
from nm_ode.studies.reductions import REDUCTIONS
from nm_ode.studies.sentences import in_brief
from nm_ode.studies.sweep.axes import SweepMistakeError, canonical, values_of
from nm_ode.studies.sweep.constraint import parse
from nm_ode.studies.sweep.naming import resolve
from nm_ode.studies.tables import Table, combination, unknown_name

_OPTIONS = ("zip", "constraint", "reduce", "vectorise", "max_seconds")


class SweepTable(Table):
    """What varies, `"optimizer.lr" = [0.1, 0.05]`, `seed = { range = 10 }`; and options for all of it.

    Attributes:
        varied: key of the case → its values, as they are written.
        zip: keys that vary together, as one axis.
        constraint: what follows, "lr * steps = 8".
        reduce: what is made of all members, entries of `REDUCTIONS`.
        vectorise: train members of one shape as one? "auto": where that is measured to be faster.
        max_seconds: that one member may take.
    """

    varied: dict[str, Any] = Field(min_length=1)
    zip: list[Annotated[list[str], Field(min_length=2)]] = Field(default_factory=list)
    constraint: list[str] = Field(default_factory=list)
    reduce: list[str] = Field(default_factory=list)
    vectorise: bool | Literal["auto"] = "auto"
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        own = {key: data[key] for key in _OPTIONS if key in data}
        varied = dict(leaves({key: value for key, value in data.items() if key not in own}))
        if not varied:
            raise combination('nothing varies: name a key with its values, "optimizer.lr" = [0.1, 0.05], say')
        for key, given in varied.items():
            _require_values(key, given)
        require_apart(list(varied), "varies")
        return {"varied": varied, **own}

    @field_validator("zip", mode="before")
    @classmethod
    def _one_or_several_lists(cls, given: Any) -> Any:
        return [given] if isinstance(given, list) and all(isinstance(part, str) for part in given) else given

    @field_validator("constraint", "reduce", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    @field_validator("vectorise", mode="before")
    @classmethod
    def _yes_or_no(cls, given: Any) -> Any:
        if isinstance(given, bool) or given == "auto":
            return given
        raise combination(f"{in_brief(given)} was given; it must be true, false or 'auto'")

    @field_validator("constraint")
    @classmethod
    def _products(cls, constraints: list[str]) -> list[str]:
        for text in constraints:
            try:
                parse(text)
            except SweepMistakeError as error:
                raise combination(str(error)) from None
        return constraints

    @field_validator("reduce")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in REDUCTIONS:
                raise unknown_name(name, REDUCTIONS)
        return list(dict.fromkeys(names))

    @model_validator(mode="after")
    def _zipped_keys_vary(self) -> SweepTable:
        for group in self.zip:
            for name in group:
                meant = resolve(name, self.varied)
                if not meant:
                    raise combination(f"zip: {name!r} does not vary{did_you_mean(name, self.varied)}")
                if len(meant) > 1:
                    raise combination(f"zip: {name!r} may be {' or '.join(meant)}: write it out")
        return self

    @property
    def values(self) -> dict[str, tuple[Any, ...]]:
        """Key → all its values."""
        return {key: values_of(given) for key, given in self.varied.items()}

    @property
    def size(self) -> int:
        """How many members there are."""
        values, together = self.values, {key for group in self.zipped for key in group[1:]}
        return math.prod(len(found) for key, found in values.items() if key not in together)

    @property
    def zipped(self) -> list[list[str]]:
        """`zip`, with keys that are written out."""
        return [[resolve(name, self.varied)[0] for name in group] for group in self.zip]

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in _OPTIONS}
        return {**self.varied, **{name: value for name, value in options.items() if value not in ([], None)}}


def _require_values(key: str, given: Any) -> None:
    require_key(key)
    if key in ("name", "sweep") or key.startswith(("sweep.", "sweep[")):
        raise combination(f"{key!r} does not vary: all members belong to one case of one name")
    try:
        for value in values_of(given):
            canonical(value)
    except SweepMistakeError as error:
        raise combination(f"{key}: {in_brief(given)} was given; {error}") from None
