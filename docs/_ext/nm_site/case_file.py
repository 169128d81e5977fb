"""The reference of the case file, from the schema that validates it: `{case-file}` in a page stands for it."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from nm_ode.studies import entries, schema
from nm_ode.studies.options import REQUIRED, in_words
from nm_ode.studies.sweep.table import SweepTable
from nm_ode.studies.tables import Table

MARK = "% case-file"
_SECTION = re.compile(r"^(Args|Attributes):\n((?:    .*\n|\n)*)", re.MULTILINE)
_FIELD = re.compile(r"^    ([\w, ]+): ((?:.*\n(?:     .*\n)*))", re.MULTILINE)


def described(thing: Any) -> dict[str, str]:
    """What a docstring says of each argument or attribute, in a line."""
    found: dict[str, str] = {}
    for kind in reversed(inspect.getmro(thing)) if inspect.isclass(thing) else (thing,):
        doc = inspect.cleandoc(kind.__doc__ or "") + "\n"
        for _, body in _SECTION.findall(doc):
            for names, text in _FIELD.findall(body):
                found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def summary(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def type_in_words(hint: Any, metadata: Iterable[Any] = ()) -> str:
    """`in_words`, of a field of the schema."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return type_in_words(parts[0], [*parts[1:], *metadata])
    given = [m for one in metadata for m in (one.metadata if isinstance(one, FieldInfo) else [one])]
    limits = [one for one in given if isinstance(one, Ge | Gt | Le | Lt) and not _huge(one)]
    if origin not in (None, list, dict, Literal) and (known := [p for p in parts if p is not type(None)]):
        return " or ".join(dict.fromkeys(type_in_words(part, limits) for part in known))
    if inspect.isclass(hint) and issubclass(hint, entries.CodeTable):
        return "[your own code](#own-code)"
    if inspect.isclass(hint) and issubclass(hint, Table):
        return "a table"
    if origin is list:
        inner = type_in_words(parts[0])
        return f"a list of {inner.removeprefix('a ')}s" if inner in ("a table", "a text") else "a list"
    return in_words(Annotated[(hint, *limits)] if limits else hint)


def _huge(limit: Any) -> bool:
    return isinstance(limit, Le) and limit.le >= 10**9


def _default(value: Any) -> str:
    if value is REQUIRED:
        return "required"
    if value is None or value in ((), [], ""):
        return ""
    if isinstance(value, Table):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return f"`{list(value)}`"
    return f"`{value!r}`".replace("'", '"')


def _rows(rows: Iterable[tuple[str, str, str, str]]) -> str:
    lines = ["{.keys}", "| key | type | default | what it is |", "| --- | --- | --- | --- |"]
    for key, kind, default, said in rows:
        cells = (key, kind, default, said.removesuffix("."))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def fields(table: type[Table], leave_out: Iterable[str] = ()) -> str:
    """A schema's table with the keys of its own."""
    said = described(table)
    return _rows(
        (
            f"`{name}`",
            type_in_words(field.annotation, field.metadata),
            _default(REQUIRED if field.is_required() else field.get_default(call_default_factory=True)),
            said[name],
        )
        for name, field in table.model_fields.items()
        if name not in leave_out
    )


def options(table: type[entries.EntryTable], name: str) -> str:
    """The keys of an entry of a registry."""
    entry = table.registry[name]
    said = described(getattr(entry, "build", entry))
    rows = [
        (
            f"`{key}`",
            in_words(option.hint).replace(", at most 1e+09", ""),
            _default(option.default),
            said.get(key, ""),
        )
        for key, option in table.options_of(entry).items()
    ]
    return _rows(rows) if rows else "No further keys."


def registered(table: type[entries.EntryTable]) -> str:
    """All entries of a registry, each with its keys."""
    parts = []
    for name in table.registry:
        entry = table.registry[name]
        parts += [f"### `{name}`", summary(getattr(entry, "build", entry)), options(table, name)]
    return "\n\n".join(parts)


def own_keys(table: type[entries.EntryTable]) -> str:
    return fields(table, ("name", "options"))


def _losses() -> str:
    return ", ".join(f'`"{name}"`' for name in schema.LOSSES)


PARTS: dict[str, Callable[[], str]] = {
    "case": lambda: fields(schema.Case),
    "training": lambda: fields(schema.Training),
    "solver": lambda: fields(schema.Solver),
    "symmetries": lambda: fields(schema.SymmetriesTable),
    "stability": lambda: fields(schema.StabilityTable),
    "sweep": lambda: fields(SweepTable, ("varied",)),
    "losses": _losses,
    "model": lambda: registered(entries.ModelTable),
    "data": lambda: registered(entries.DataTable),
    "optimizer own": lambda: own_keys(entries.OptimizerTable),
    "optimizer": lambda: registered(entries.OptimizerTable),
    "schedule": lambda: registered(entries.ScheduleTable),
    "flows own": lambda: own_keys(entries.FlowTable),
    "flows": lambda: registered(entries.FlowTable),
    "observe own": lambda: own_keys(entries.ObserverTable),
    "observe": lambda: registered(entries.ObserverTable),
}
_PLACE = re.compile(rf"^{MARK}: (.+)$", re.MULTILINE)


def _read(app: Any, docname: str, source: list[str]) -> None:
    if _PLACE.search(source[0]):
        for module in (schema, entries):
            app.env.note_dependency(str(Path(module.__file__ or "")))
        source[0] = _PLACE.sub(lambda match: PARTS[match[1]](), source[0])


def setup(app: Any) -> None:
    app.connect("source-read", _read)
