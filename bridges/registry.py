"""Names of one kind of thing, each registered once, with near names for a mistake."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from bridges.errors import NmOdeError

T = TypeVar("T")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """'; did you mean "RK23"? Known: …' for error messages, whatever the case of the letters."""
    names = list(known)
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(given.lower(), by_lower, n=1, cutoff=0.5)
    guess = f"; did you mean {by_lower[near[0]]!r}?" if near else "."
    return f"{guess} Known: {', '.join(names)}"


class UnknownNameError(NmOdeError, KeyError):
    """Nothing of this name is registered; the text has near names."""

    def __str__(self) -> str:
        return str(self.args[0])


class Registry(Mapping[str, T], Generic[T]):
    """name → thing. An entry may be a string "module:attribute", imported when it is first asked for.

    Args:
        what: the kind of thing, for messages: "optimiser".
        entries: those that are registered from the start.

    Example:
        >>> import nm_ode
        >>> from nm_ode.optimizers import OPTIMIZERS
        >>> OPTIMIZERS
        <Registry (optimiser): sgd, adam, adamw, rmsprop, scalar_rmsprop>
        >>> OPTIMIZERS["sgd"] is nm_ode.SGD
        True
        >>> OPTIMIZERS["sdg"]
        Traceback (most recent call last):
            ...
        bridges.registry.UnknownNameError: no optimiser is called 'sdg'; did you mean 'sgd'? ...
    """

    def __init__(self, what: str, entries: Mapping[str, T | str] | None = None) -> None:
        self.what = what
        self._entries: dict[str, Any] = dict(entries or {})

    def __repr__(self) -> str:
        return f"<Registry ({self.what}): {', '.join(self)}>"

    def register(self, name: str, entry: T | str) -> None:
        """Add an entry.

        Raises:
            ValueError: the name is taken by another.
        """
        if self._entries.get(name, entry) != entry:
            raise ValueError(f"{self.what} {name!r} is registered already")
        self._entries[name] = entry

    def unregister(self, name: str) -> None:
        """Remove an entry, as a test does that has registered it."""
        del self._entries[name]

    def __getitem__(self, name: str) -> T:
        if name not in self:
            called = name if isinstance(name, str) else type(name).__name__
            raise UnknownNameError(f"no {self.what} is called {called!r}{did_you_mean(called, self)}")
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = self._entries[name] = getattr(importlib.import_module(module), attribute)
        found: T = entry
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
