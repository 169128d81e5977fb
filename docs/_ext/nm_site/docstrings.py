"""Docstrings are Google style with Markdown in it: code spans, indented code and lists become Sphinx's."""

from __future__ import annotations

import re
import sys
from typing import Any

from sphinx.ext.napoleon import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer

from nm_site.names import resolve

_SECTION = re.compile(r"(Args|Attributes|Examples?|Raises|Returns|Yields):$")
_SPAN = re.compile(r"(?<![`:\w])`([^`\n]+)`(?!`)")
_MARKUP = re.compile(r"[\\\\|*]|(?<=\w)_(?!\w)")  # what Sphinx would take for its own
_ITEM = re.compile(r"\s*([-*]|\d+\.) ")


def _span(match: re.Match[str]) -> str:
    text = match[1]
    if name := resolve(text):
        return f":py:obj:`{text} <{name}>`"
    return f"``{text}``" if text == text.strip() else text


class Docstring(GoogleDocstring):
    """What is returned is described in sentences, of which a colon ends no type."""

    def _consume_returns_section(self, preprocess_types: bool = False) -> list[tuple[str, str, list[str]]]:
        return [("", "", self._dedent(self._consume_to_next_section()))]


def convert(lines: list[str]) -> list[str]:
    """The lines of a docstring for Sphinx, with Google's sections left for napoleon."""
    made: list[str] = []
    in_section = code = doctest = False
    for line in lines:
        stripped, indent = line.strip(), len(line) - len(line.lstrip())
        doctest = bool(stripped) and (doctest or stripped.startswith(">>>"))
        if stripped and not indent:
            in_section, code = bool(_SECTION.match(line)), False
        elif stripped and indent >= 4 and not in_section and not code and made and not made[-1]:
            made += [".. code-block:: python", ""]
            code = True
        if _ITEM.match(line) and not (code or doctest) and made and made[-1] and not _ITEM.match(made[-1]):
            made.append("")
        made.append(line if code or doctest else _inline(line))
    return made


def _inline(line: str) -> str:
    parts, end = [], 0
    for match in _SPAN.finditer(line):
        parts += [_MARKUP.sub(r"\\\g<0>", line[end : match.start()]), _span(match)]
        end = match.end()
    return "".join([*parts, _MARKUP.sub(r"\\\g<0>", line[end:])])


def _comment(name: str, thing: Any) -> list[str]:
    """What is written below a constant where it was made, or before it after "#:"."""
    for module in [module for module in sys.modules if module.partition(".")[0] == "nm_ode"]:
        if vars(sys.modules[module]).get(name) is thing:
            analyzer = ModuleAnalyzer.for_module(module)
            if found := analyzer.find_attr_docs().get(("", name)):
                return list(found)
    return []


def _process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    if what == "data" and (not any(lines) or lines[0] == (type(thing).__doc__ or "").split("\n")[0]):
        lines[:] = _comment(name.rpartition(".")[2], thing) or [""]  # not that of its type
    # Napoleon would take the first line of an attribute up to a colon for its type.
    as_what = "class" if what in ("attribute", "data", "property") else what
    lines[:] = Docstring(convert(lines), app.config, app, as_what, name, thing, options).lines()


_ANNOTATED = re.compile(r"~?(?:typing\.)?Annotated\[")


def plain_types(signature: str) -> str:
    """`Annotated[int, …]` as `int` (what is annotated is the case schema's), and defaults by their names."""
    while found := _ANNOTATED.search(signature):
        depth, kept = 0, None
        for place in range(found.end(), len(signature)):
            letter = signature[place]
            if letter == "," and not depth and kept is None:
                kept = signature[found.end() : place]
            if letter == "]" and not depth:
                break
            depth += (letter in "[(") - (letter in "])")
        signature = signature[: found.start()] + (kept or "") + signature[place + 1 :]
    signature = re.sub(r"~[\w.]+\.~", "~", signature)
    # Defaults that Python cannot read back would leave the whole signature without names that link.
    signature = re.sub(r"<bound method ([\w.]+) of <.*?>>", r"\1", signature)
    signature = re.sub(r"<function (\w+)[^<>]*>", r"\1", signature)
    return re.sub(r"<[^<>=]*>", "...", signature)


def _process_signature(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str, str | None] | None:
    return (plain_types(signature), returned) if signature else None


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _process_signature)
