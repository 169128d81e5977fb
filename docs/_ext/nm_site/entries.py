"""Blocks of the reference: a table of names with their summaries, then an entry of each.

```{entries}
nm_ode.solve
nm_ode.solve_info
```
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

_BLOCK = re.compile(r"^```\{entries\}\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def _directive(name: str) -> list[str]:
    module, _, last = name.rpartition(".")
    thing = getattr(importlib.import_module(module), last)
    if inspect.isclass(thing):
        if issubclass(thing, BaseException):
            return [f".. autoexception:: {name}", "   :show-inheritance:"]
        return [f".. autoclass:: {name}", "   :members:"]
    if inspect.ismodule(thing):
        return []
    return [f".. autofunction:: {name}" if callable(thing) else f".. autodata:: {name}\n   :no-value:"]


def _expand(match: re.Match[str]) -> str:
    names = match[1].split()
    lines = ["````{eval-rst}", ".. autosummary::", "", *(f"   ~{name}" for name in names), ""]
    for name in names:
        lines += [*_directive(name), ""]
    return "\n".join([*lines, "````"])


def _read(app: Any, docname: str, source: list[str]) -> None:
    source[0] = _BLOCK.sub(_expand, source[0])


def setup(app: Any) -> None:
    app.connect("source-read", _read)
