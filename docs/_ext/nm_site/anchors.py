"""Anchors by number in the numbered documents: `s4-2` of a section, `eq-4-3` of an equation.

Other pages link to `theory.md#s4-2` and `theory.md#eq-4-3`, and the anchors stay when a title changes. The equations,
plain text in the source, are set in the font of the text, with their indices and their numbers at the right.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.transforms import SphinxTransform

from nm_site.typeset import typeset

DOCS = Path(__file__).resolve().parents[2]
DOCUMENTS = ("theory", "design", "bridge")
_SECTION = re.compile(r"(\d+(?:\.\d+)?)\.? ")
_NUMBER = re.compile(r" +\((\d\.\d+)\)$")


@cache
def numbers(document: str) -> tuple[set[str], set[str]]:
    """Of a document's sections, and of its equations."""
    text = (DOCS / f"{document}.md").read_text()
    sections = set(re.findall(r"^##+ (\d+(?:\.\d+)?)\.? ", text, re.MULTILINE))
    return sections, set(
        re.findall(r" \((\d\.\d+)\)$", text, re.MULTILINE)
    ) if document == "theory" else set()


def anchor_of(what: str, number: str) -> str:
    return f"{'s' if what == 'section' else 'eq-'}{number.replace('.', '-')}"


def section_numbers(document: nodes.document) -> dict[str, nodes.section]:
    """The numbered sections by number."""
    return {
        number[1]: section
        for section in document.findall(nodes.section)
        if (number := _SECTION.match(section.next_node(nodes.title).astext()))
    }


class Equations(SphinxTransform):
    """Of theory: its indented blocks are equations."""

    default_priority = 600

    def apply(self, **kwargs: Any) -> None:
        if self.env.docname != "theory":
            return
        numbers: list[str] = []
        for block in list(self.document.findall(nodes.literal_block)):
            lines = block.astext().splitlines()
            rows = [_row(line, numbers) for line in lines]
            block.parent.replace(block, nodes.container("", *rows, classes=["equation"]))
        self.document["nm_equations"] = numbers


def _row(line: str, numbers: list[str]) -> nodes.Node:
    found = _NUMBER.search(line)
    text = (line[: found.start()] if found else line).rstrip()
    indent = len(text) - len(text.lstrip())
    text = "\u2002" * (indent // 2) + re.sub(r" {2,}", "\u2003\u2003", text.lstrip())
    row = nodes.container("", nodes.paragraph("", "", *typeset(text)), classes=["row"])
    if found:
        numbers.append(found[1])
        row["ids"].append(anchor_of("equation", found[1]))
        row += nodes.paragraph("", f"({found[1]})", classes=["number"])
    return row


def _add(app: Any, document: nodes.document) -> None:
    docname = app.env.docname
    if docname not in DOCUMENTS:
        return
    slugs = app.env.metadata[docname].setdefault("myst_slugs", {})
    for number, section in section_numbers(document).items():
        anchor = anchor_of("section", number)
        section["ids"].insert(0, anchor)
        slugs[anchor] = (section.line or 0, anchor, section.next_node(nodes.title).astext())
    for number in document.get("nm_equations", ()):
        anchor = anchor_of("equation", number)
        slugs[anchor] = (0, anchor, f"({number})")


def setup(app: Any) -> None:
    app.add_transform(Equations)
    app.connect("doctree-read", _add)
