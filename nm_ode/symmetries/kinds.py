"""The kinds of symmetry: for each how it is found in a graph and how its charges are measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from nm_ode.registry import Registry
from nm_ode.symmetries.findings import Findings
from nm_ode.symmetries.forms import Form
from nm_ode.symmetries.graph import Graph

Kind: TypeAlias = str
"""The name of a kind, a key of `KINDS`."""


@dataclass(frozen=True)
class SymmetryKind:
    """What there is to say of a kind.

    Attributes:
        find: from the graph of model and loss to the symmetries of this kind. Kinds that one look at the graph finds
            together have the same function; it is called once.
        form: how the generators act on theta, and so what the charges are.
        diagonal: the kind whose charges, where both move the same entries, are the diagonal of this one's.
        formula: a charge in matplotlib's TeX, for the axes of plots.

    Example:
        >>> from nm_ode.symmetries import KINDS
        >>> KINDS["matrix"].diagonal, KINDS["rescale"].form.__name__
        ('rescale', 'Diagonal')
    """

    find: Callable[[Graph], Findings]
    form: type[Form]
    diagonal: Kind | None = None
    formula: str = ""


KINDS: Registry[SymmetryKind] = Registry(
    "kind of symmetry",
    {
        "translation": "nm_ode.symmetries.rules.translation:TRANSLATION",
        "scale": "nm_ode.symmetries.rules.scaling:SCALE",
        "rescale": "nm_ode.symmetries.rules.scaling:RESCALE",
        "matrix": "nm_ode.symmetries.rules.matrix:MATRIX",
    },
)
"""In the order in which symmetries are listed.

Example:
    >>> from nm_ode.symmetries import KINDS
    >>> list(KINDS)
    ['translation', 'scale', 'rescale', 'matrix']
"""
