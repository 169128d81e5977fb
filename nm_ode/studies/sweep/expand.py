"""From a case with a sweep to its members, each a case of its own; a mistake in any is told before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nm_ode.results.study import Axis, Place, StudyRecord
from nm_ode.studies.errors import CaseError
from nm_ode.studies.places import has, put
from nm_ode.studies.reductions import REDUCTIONS
from nm_ode.studies.schema import Case, Solver, StabilityTable, SymmetriesTable, Training
from nm_ode.studies.sentences import sentences_of
from nm_ode.studies.sweep.axes import SweepMistakeError, axes_of
from nm_ode.studies.sweep.constraint import Constraint, parse
from nm_ode.studies.sweep.naming import member_name, short_names
from nm_ode.studies.sweep.table import SweepTable
from nm_ode.studies.tables import Table
from nm_ode.studies.written import file_name

_TOLD = 5  # different mistakes of members


@dataclass(frozen=True)
class Member:
    """One member of a sweep.

    Attributes:
        name: "lr=0.1,seed=3", a folder's name on any system.
        place: where it is in the study.
        case: its own, which has no sweep.
        raw: the same as it would be read from a file.
    """

    name: str
    place: Place
    case: Case
    raw: Mapping[str, Any]

    @property
    def values(self) -> Mapping[str, Any]:
        """Key of the case → value: what varies, and what a constraint makes of it."""
        return self.place.values


@dataclass(frozen=True)
class Sweep:
    """A case with a sweep, and its members.

    Attributes:
        case: as it is written; what varies and is not there besides is as in the first member.
        path: of the case file.
        members: in the order of the grid, the last axis fastest.
    """

    case: Case
    path: Path
    record: StudyRecord
    members: tuple[Member, ...]

    @property
    def table(self) -> SweepTable:
        """What the case says of the sweep."""
        assert self.case.sweep is not None
        return self.case.sweep


def expand(raw: Mapping[str, Any], path: Path, text: str = "") -> Sweep:
    """All members of a case with a sweep.

    Args:
        raw: the case as it was read.
        path: of the case file, for messages and for what the case names by relative path.
        text: of the case file.

    Raises:
        CaseError: a mistake in the sweep, in the case, or in a member: the first few different ones.
    """
    table = _table(raw, path)
    plain = {key: value for key, value in raw.items() if key != "sweep"}
    try:
        axes = axes_of(table.values, table.zipped, short_names(table.values))
        places = _places(table, plain, axes)
    except SweepMistakeError as error:
        raise CaseError(f"{path}: sweep: {error}") from None
    whole = _filled(raw, places[0].values, path)
    told, own = _mistakes(whole, path), _mistakes(raw, path)
    plain_mistakes = [sentence for sentence in told if sentence in own]
    if plain_mistakes:
        raise CaseError("\n".join(plain_mistakes))
    members = _members(table, plain, path, places)
    if told:
        raise CaseError("\n".join(_of_sweep(path, sentence) for sentence in told))
    case = Case.model_validate(whole, context={"folder": path.parent})
    record = StudyRecord(
        name=case.name,
        title=case.title or case.name,
        case=case.model_dump(mode="json"),
        case_file=file_name(path),
        case_text=text,
        axes=axes,
        members=places,
    )
    for name in table.reduce:
        mistake = REDUCTIONS[name].mistake(record, raw)
        if mistake is not None:
            raise CaseError(f"{path}: sweep.reduce: {name!r} was given; {mistake}")
    return Sweep(case, path, record, members)


def _table(raw: Mapping[str, Any], path: Path) -> SweepTable:
    try:
        return SweepTable.model_validate(raw["sweep"])
    except ValidationError as error:
        told = sentences_of(path, raw, [{**item, "loc": ("sweep", *item["loc"])} for item in error.errors()])
        raise CaseError("\n".join(told)) from None


def _places(table: SweepTable, plain: Mapping[str, Any], axes: tuple[Axis, ...]) -> tuple[Place, ...]:
    """All members with their values, what constraints make among them.

    Raises:
        SweepMistakeError: a constraint that makes nothing, or not in each member; two members of one name.
    """
    names, constraints = short_names(table.values), list(_constraints(table, plain))
    places: dict[str, Place] = {}
    for index in itertools.product(*(range(axis.size) for axis in axes)):
        values = {
            key: found[i] for axis, i in zip(axes, index, strict=True) for key, found in axis.values.items()
        }
        name = member_name(values, names)
        for constraint, keys, wanted in constraints:
            given = {short: values[key] for short, key in keys.items() if short != wanted}
            try:
                values[keys[wanted]] = constraint.solve(given, wanted)
            except SweepMistakeError as error:
                raise SweepMistakeError(f"member {name}: {error}") from None
        if name in places:  # hashes are short
            raise SweepMistakeError(f"two members are called {name}: change one of their values")
        places[name] = Place(name, index, values)
    return tuple(places.values())


def _constraints(
    table: SweepTable, plain: Mapping[str, Any]
) -> Iterator[tuple[Constraint, dict[str, str], str]]:
    """Each constraint with the keys that its names mean, and the name of what it makes."""
    known = list(table.values)
    others = [*dict.fromkeys([*_keys(plain), *_keys_of_the_schema()])]
    for text in table.constraint:
        constraint = parse(text)
        keys = constraint.keys(known, others)
        wanted = _one(constraint, keys, [name for name, key in keys.items() if key not in known])
        known.append(keys[wanted])
        yield constraint, keys, wanted


def _one(constraint: Constraint, keys: Mapping[str, str], wanted: list[str]) -> str:
    if not wanted:
        raise SweepMistakeError(
            f"constraint {constraint.text!r}: all its keys vary, and nothing is left to be computed: leave "
            f"{' or '.join(dict.fromkeys(keys.values()))} out of the sweep"
        )
    if len(wanted) > 1:
        raise SweepMistakeError(
            f"constraint {constraint.text!r}: {' and '.join(keys[name] for name in wanted)} do not vary, and one alone "
            "can be computed: write the value of the other in its place"
        )
    return wanted[0]


def _keys(table: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """All keys of a table, dotted."""
    for key, value in table.items():
        yield f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{above}{key}.")


def _keys_of_the_schema() -> Iterator[str]:
    """Those that a case may leave out."""
    yield from Case.model_fields
    tables: dict[str, type[Table]] = {
        "training": Training,
        "solver": Solver,
        "symmetries": SymmetriesTable,
        "stability": StabilityTable,
    }
    for name, kind in tables.items():
        yield from (f"{name}.{key}" for key in kind.model_fields)
    yield "optimizer.lr"


def _filled(raw: Mapping[str, Any], first: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The case itself: what varies, and is not there besides, is as in the first member."""
    filled = dict(raw)
    for key, value in first.items():
        if not has(raw, key):
            filled = put(filled, key, value, path, "sweep")
    return filled


def _mistakes(raw: Mapping[str, Any], path: Path) -> list[str]:
    try:
        Case.model_validate(raw, context={"folder": path.parent})
    except ValidationError as error:
        return sentences_of(path, raw, error.errors())
    return []


def _of_sweep(path: Path, sentence: str, who: str = "") -> str:
    return f"{path}: sweep: {who}{sentence.removeprefix(f'{path}: ')}"


def _members(
    table: SweepTable, plain: Mapping[str, Any], path: Path, places: tuple[Place, ...]
) -> tuple[Member, ...]:
    members: list[Member] = []
    wrong: dict[str, list[Place]] = {}
    context = {"folder": path.parent}
    for place in places:
        raw = dict(plain)
        for key, value in place.values.items():
            raw = put(raw, key, value, path, "sweep")
        for name in table.reduce:
            raw = REDUCTIONS[name].filled(raw)
        try:
            members.append(Member(place.name, place, Case.model_validate(raw, context=context), raw))
        except ValidationError as error:
            for sentence in sentences_of(path, raw, error.errors()):
                wrong.setdefault(sentence, []).append(place)
    if wrong:
        told = [
            f"{_of_sweep(path, sentence, _who(of, len(places)))}{_why(table, sentence, of[0])}"
            for sentence, of in itertools.islice(wrong.items(), _TOLD)
        ]
        if len(wrong) > _TOLD:
            told.append(f"{path}: sweep: and {len(wrong) - _TOLD} more mistakes of its members")
        raise CaseError("\n".join(told))
    return tuple(members)


def _who(places: list[Place], of: int) -> str:
    """Whose mistake it is; the sweep's where all members have it."""
    if len(places) == of:
        return ""
    return f"member {places[0].name}{f' (and {len(places) - 1} more)' if len(places) > 1 else ''}: "


def _why(table: SweepTable, sentence: str, place: Place) -> str:
    """Where a value comes from that nobody has written."""
    made = [key for key in place.values if key not in table.varied and f" {key}: " in sentence]
    constraints = " and ".join(map(repr, table.constraint))
    return f" ({made[0]} follows from {constraints}: take values that make it so)" if made else ""
