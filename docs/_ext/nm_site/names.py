"""The names of the reference: where each is documented, and under which other names code and docstrings have it."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

from sphinx.ext.autodoc.mock import mock

REFERENCE = Path(__file__).resolve().parents[2] / "reference"
NOT_INSTALLED = ["lightning", "transformers"]
"""Libraries that documented modules import, and that need not be there."""

BLOCK = re.compile(r"^```\{entries\}\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def load(name: str) -> Any:
    """The thing of a full name."""
    module, _, last = name.rpartition(".")
    with mock(NOT_INSTALLED):
        return getattr(importlib.import_module(module), last)


@cache
def documented() -> dict[str, Any]:
    """Full name → thing, of all that the pages of the reference have."""
    names = [
        name
        for page in sorted(REFERENCE.glob("*.md"))
        for block in BLOCK.findall(page.read_text())
        for name in block.split()
    ]
    return {name: load(name) for name in names}


@cache
def by_home() -> dict[str, str]:
    """The name under which a class or a function was defined → that of the reference."""
    return {
        f"{thing.__module__}.{thing.__qualname__}": name
        for name, thing in documented().items()
        if inspect.isclass(thing) or inspect.isfunction(thing)
    }


@cache
def by_last_part() -> dict[str, str]:
    """`solve` → `nm_ode.solve`: what a docstring may use bare. A common word is only meant where it is nm_ode's own."""
    found: dict[str, str] = {}
    for name in sorted(documented(), key=lambda name: -name.count(".")):
        last = name.rpartition(".")[2]
        if (
            name == f"nm_ode.{last}"
            or not last.islower()
            or ("_" in last and not name.startswith("nm_ode.plots"))
        ):
            found[last] = name
    del found["final_state"]  # a variable of each run, too
    return found


def resolve(span: str) -> str | None:
    """The documented name that a code span means: `solve`, `nm_ode.solve`, `Problem.hvp`, `train()`."""
    name = span.removesuffix("()")
    for known in (by_home(), by_last_part()):
        if name in known:
            return known[name]
    if name in documented():
        return name
    owner, _, member = name.rpartition(".")
    if owner and (found := resolve(owner)) and inspect.isclass(documented()[found]):
        return f"{found}.{member}" if hasattr(documented()[found], member) else None
    return None
