"""The public names: where each is documented, and under which other names annotations and docstrings have it."""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from typing import Any

MODULES = ("nm_ode", "nm_ode.plots", "nm_ode.data", "nm_ode.models")
"""Modules whose `__all__` is public, in the order in which a name is looked for."""

EXTENDING = ()


@cache
def public_names() -> dict[str, Any]:
    """Full public name → object."""
    found = {}
    for module in MODULES:
        loaded = importlib.import_module(module)
        for name in loaded.__all__:
            found.setdefault(f"{module}.{name}", getattr(loaded, name))
    return found


@cache
def by_home() -> dict[str, str]:
    """The name by which a class or function was defined → its public name."""
    return {
        f"{thing.__module__}.{thing.__qualname__}": name
        for name, thing in reversed(public_names().items())
        if inspect.isclass(thing) or inspect.isfunction(thing)
    }


@cache
def by_last_part() -> dict[str, str]:
    """`solve` → `nm_ode.solve`: the names that a docstring may use bare. Those of plots are too common for it."""
    return {
        name.rpartition(".")[2]: name
        for name in reversed(public_names())
        if not name.startswith("nm_ode.plots.") and not inspect.ismodule(public_names()[name])
    }


def resolve(span: str) -> str | None:
    """The public name that a code span of a docstring means: `solve`, `nm_ode.solve`, `Problem.hvp`, `train()`."""
    name = span.removesuffix("()")
    if name in public_names():
        return name
    if name in by_home():
        return by_home()[name]
    if name in by_last_part():
        return by_last_part()[name]
    owner, _, member = name.rpartition(".")
    if owner and (found := resolve(owner)) and inspect.isclass(public_names()[found]):
        return f"{found}.{member}" if hasattr(public_names()[found], member) else None
    return None
