"""Names of symmetries, made of the names of the modules that take part, as precise as it takes to tell them apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import prod

from nm_ode.symmetries.findings import Found
from nm_ode.symmetries.symmetry import Part

BETWEEN = " → | ↔ "
"""Between the sides of a symmetry's name, as a regular expression."""


def names_of(found: Sequence[Found], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """`rescale features.0 → features.3`; with parameters and places in them where layers do not tell apart."""

    def place(part: Part) -> str:
        return f"{part.parameter}[{_where(part, prod(shapes[part.parameter][1:]))}]"

    names = [_name(one, _layer) for one in found]
    for label in (_parameter, place):
        vague = {name for name in names if names.count(name) > 1 or _sides_alike(name)}
        names = [_name(one, label) if name in vague else name for name, one in zip(names, found, strict=True)]
    again = {name for name in names if names.count(name) > 1}
    return [f"{name} ({i})" if name in again else name for i, name in enumerate(names)]


def _sides_alike(name: str) -> bool:
    """Both sides in one layer, as query and key in a fused projection."""
    plus, *minus = re.split(BETWEEN, name.partition(" ")[2])
    return minus == [plus]


def _parameter(part: Part) -> str:
    return part.parameter


def _name(found: Found, label: Callable[[Part], str]) -> str:
    plus, minus = (
        list(dict.fromkeys(label(part) for part in found.parts if sign * part.weight > 0)) for sign in (1, -1)
    )
    between = " ↔ " if found.kind == "translation" else " → "  # what compensates has no direction
    return f"{found.kind} " + between.join(_shortened(side) for side in (plus, minus) if side)


def _shortened(labels: list[str]) -> str:
    return ", ".join(labels) if len(labels) <= 3 else f"{labels[0]}, {labels[1]}, … ({len(labels)})"


def _layer(part: Part) -> str:
    return part.parameter.rpartition(".")[0] or part.parameter


def _where(part: Part, row: int) -> str:
    """Rows or columns of the parameter, as numpy would write them."""
    first, last = part.view.extent.start, part.view.extent.stop - 1
    if bool((part.index < 0).any()):
        first, last = int(part.entries.min()), int(part.entries.max())
    if first % row == 0 and last % row == row - 1:
        return f"{first // row}:{last // row + 1}"
    columns = part.entries % row
    return f":, {int(columns.min())}:{int(columns.max()) + 1}"
