"""Blocks of the reference: a table of names with their summaries, then an entry of each.

```{entries}
nm_ode.solve
nm_ode.solve_info
```
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from bridges.registry import Registry
from nm_site.docstrings import convert
from nm_site.names import BLOCK, documented
from nm_site.names import resolve as named


def _entry(name: str, thing: Any) -> list[str]:
    if inspect.isclass(thing):
        kind = "autoexception" if issubclass(thing, BaseException) else "autoclass"
        bases = ["   :show-inheritance:"] if _bases(thing) else []
        return [f".. {kind}:: {name}", "   :members:", *bases]
    if isinstance(thing, Registry):
        return [f".. autodata:: {name}", "   :no-value:", "", *_indented(_contents(thing))]
    if callable(thing) and inspect.isfunction(thing):
        return [f".. autofunction:: {name}"]
    return [f".. autodata:: {name}", "   :no-value:"]


def _bases(thing: type) -> list[type]:
    """Those that a reader can look up."""
    return [base for base in thing.__bases__ if base in documented().values()]


def _process_bases(app: Any, name: str, thing: type, options: Any, bases: list[Any]) -> None:
    bases[:] = _bases(thing)


def _contents(registry: Registry[Any]) -> list[str]:
    lines = ["", ".. list-table::", "   :widths: auto", "   :class: entries", ""]
    for name in registry:
        lines += [f"   * - ``{name}``", f"     - {_said(registry[name])}"]
    return lines


def _said(entry: Any) -> str:
    """What an entry of a registry is, in a line."""
    for field in ("caption", "title"):
        if isinstance(text := getattr(entry, field, None), str) and not inspect.isclass(entry):
            return convert([text])[0]
    thing = next((v for f in ("build", "function") if (v := getattr(entry, f, None))), entry)
    if not callable(thing) and not inspect.isclass(thing):
        return ""
    if (full := f"{thing.__module__}.{thing.__qualname__}").startswith("torch"):
        return f"``{full}``"
    found = named(full)
    summary = convert([(inspect.getdoc(thing) or "").split("\n")[0]])[0]
    return f":py:obj:`{found.rpartition('.')[2]} <{found}>`: {summary}" if found else summary


def _indented(lines: list[str]) -> list[str]:
    return [f"   {line}" if line else "" for line in lines]


def _expand(match: re.Match[str]) -> str:
    names = match[1].split()
    lines = [
        "````{eval-rst}",
        ".. autosummary::",
        "   :nosignatures:",
        "",
        *(f"   ~{name}" for name in names),
        "",
    ]
    for name in names:
        lines += [*_entry(name, documented()[name]), ""]
    return "\n".join([*lines, "````"])


def _read(app: Any, docname: str, source: list[str]) -> None:
    source[0] = BLOCK.sub(_expand, source[0])


def setup(app: Any) -> None:
    app.connect("source-read", _read)
    app.connect("autodoc-process-bases", _process_bases)
