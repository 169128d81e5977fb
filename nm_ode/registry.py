"""How one addition is one file and one line: a registry for each kind of thing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bridges.registry import Registry, UnknownNameError, did_you_mean

__all__ = ["NotInCases", "OneOf", "Registry", "UnknownNameError", "did_you_mean"]


@dataclass(frozen=True, eq=False)
class OneOf:
    """Metadata of an option that is a name: `Annotated[str, OneOf(ACTIVATIONS)]`. The case schema reads it."""

    names: Iterable[str]


@dataclass(frozen=True)
class NotInCases:
    """Metadata of an argument that is a caller's alone: `Annotated[Any, NotInCases()]`. No case file can give it."""
