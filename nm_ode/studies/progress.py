"""How a study tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int], Callable[[int], None]]
"""`progress(what, total)` gives a function to be called with how much is done."""


def silent(what: str, total: int) -> Callable[[int], None]:
    """Tells nobody."""
    return lambda done: None


def unheard(sentence: str) -> None:
    """A sentence that nobody hears."""
