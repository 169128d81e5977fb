"""Indices and powers in running text: `θ_{k+1}` and `e^{−2λt}` become what they stand for; code is left alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.transforms import SphinxTransform

_MARKS = "[\u0302-\u0308'′ᵀ]*"
_BASE = rf"(?:(?<![A-Za-z0-9_])[A-Za-z]|(?<![\w.])1(?=_[A-Z]\b)|[\u0370-\u03ff∂∇Σ⟩\)\]‖]){_MARKS}"
_BRACES = r"\{([^{}]+)\}"
_PATTERN = re.compile(
    rf"(?<=\S)_{_BRACES}|(?<=\S)\^{_BRACES}|({_BASE})_([A-Za-z0-9\u0370-\u03ff]{{1,4}})(?![A-Za-z0-9_{{])"
    r"|(?<=[\w)\]])\^([−+-]?[A-Za-z0-9]+)(?!\w)"
)
CODE = (
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.title,
    nodes.doctest_block,
)
_NAMES = ("literal_strong", "literal_emphasis", "desc_signature", "desc_name", "desc_addname", "index")


def typeset(text: str) -> list[nodes.Node]:
    """The text in pieces: plain, below and above the line."""
    found: list[nodes.Node] = []
    end = 0
    for match in _PATTERN.finditer(text):
        below, above, base, index, power = match.groups()
        found.append(nodes.Text(text[end : match.start()] + (base or "")))
        found.append(
            nodes.subscript("", below or index) if below or index else nodes.superscript("", above or power)
        )
        end = match.end()
    return [*found, nodes.Text(text[end:])] if found else [nodes.Text(text)]


def is_code(node: nodes.Node | None) -> bool:
    """Does it lie in code, a signature or a title?"""
    while node is not None:
        if isinstance(node, CODE) or type(node).__name__ in _NAMES:
            return True
        node = node.parent
    return False


def running_text(document: nodes.document) -> Iterator[nodes.Text]:
    """The text nodes that are prose."""
    for node in list(document.findall(nodes.Text)):
        if node.parent is not None and not is_code(node.parent):
            yield node


class Typeset(SphinxTransform):
    default_priority = 640

    def apply(self, **kwargs: Any) -> None:
        for node in running_text(self.document):
            if "_" in node or "^" in node:
                pieces = typeset(node.astext())
                if len(pieces) > 1:
                    node.parent.replace(node, pieces)


def setup(app: Any) -> None:
    app.add_transform(Typeset)
