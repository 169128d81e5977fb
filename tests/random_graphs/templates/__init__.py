"""The operations of which networks are drawn: functions from what there is to the expression of one more line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tests.random_graphs.drawing import Drawer
from tests.random_graphs.templates import contractions, elementwise, moves, normalisations, reductions
from tests.random_graphs.templates.table import FAMILIES, Template

Family: TypeAlias = str

__all__ = ["FAMILIES", "Template", "next_line"]

_MODULES = (contractions, elementwise, moves, normalisations, reductions)

SHARES: dict[Family, float] = {
    "contraction": 6,
    "activation": 4,
    "weighted": 2,
    "pair": 2.5,
    "normalisation": 2.5,
    "move": 1.5,
    "reduction": 1,
}
"""How often a family is taken."""


def next_line(drawer: Drawer) -> Callable[[Drawer], str]:
    """A template at random."""
    (family,) = drawer.random.choices(list(SHARES), list(SHARES.values()))
    return drawer.choice(FAMILIES[family])
