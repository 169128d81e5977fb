"""Anchors by number in the numbered documents: `s4-2` of a section, `eq-4-3` of an equation.

Other pages link to `theory.md#s4-2` and `theory.md#eq-4-3`, and the anchors stay when a title changes.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

DOCUMENTS = ("theory", "design", "bridge")
_SECTION = re.compile(r"(\d+(?:\.\d+)?)\.? ")
_EQUATION = re.compile(r" \((\d\.\d+)\)[.;,]?$", re.MULTILINE)


def _add(app: Any, document: nodes.document) -> None:
    docname = app.env.docname
    if docname not in DOCUMENTS:
        return
    slugs = app.env.metadata[docname].setdefault("myst_slugs", {})
    for section in document.findall(nodes.section):
        title = section.next_node(nodes.title).astext()
        if number := _SECTION.match(title):
            anchor = "s" + number[1].replace(".", "-")
            section["ids"].insert(0, anchor)
            slugs[anchor] = (section.line or 0, anchor, title)
    for block in document.findall(nodes.literal_block):
        for number in _EQUATION.findall(block.astext()):
            anchor = "eq-" + number.replace(".", "-")
            block["ids"].append(anchor)
            slugs[anchor] = (block.line or 0, anchor, f"({number})")


def setup(app: Any) -> None:
    app.connect("doctree-read", _add)
