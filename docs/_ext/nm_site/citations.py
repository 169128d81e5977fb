"""Citations in text become links: `docs/theory.md §4.2, §4.3` everywhere, `§4.2` and `(4.3)` within their document."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

from nm_site.anchors import DOCUMENTS, anchor_of, numbers
from nm_site.typeset import running_text

_SECTIONS = r"(?:(?:,? and |, | )§§?[\d.]*\d)"
_NAMES = "|".join(DOCUMENTS)
_BY_PATH = rf"\bdocs/(?P<file>{_NAMES})\.md(?P<sections>{_SECTIONS}*)"
_BY_NAME = rf"\b(?P<short>{_NAMES})(?P<places> §[\d.]*\d{_SECTIONS}*)"
_FILE = f"(?:{_BY_PATH}|{_BY_NAME})"
_EQUATION = r"\beqs?\. \((?P<equation>\d\.\d+)\)"
_PATTERN = re.compile(rf"{_FILE}|{_EQUATION}|§(?P<section>\d+(?:\.\d+)?)|\((?P<number>\d\.\d+)\)")
_SECTION = re.compile(r"§[\d.]*\d")


def _link(text: str, document: str, anchor: str, refdoc: str) -> nodes.Node:
    target = f"{document}#{anchor}" if anchor else document
    where = {
        "refdoc": refdoc,
        "refdomain": "",
        "reftype": "citation",
        "reftarget": target,
        "refexplicit": True,
    }
    return addnodes.pending_xref("", nodes.inline("", text), **where)


def _pieces(match: re.Match[str], document: str, meant: str) -> list[nodes.Node] | None:
    given = match.groupdict()
    if file := given["file"] or given["short"]:
        sections = given["sections"] or given["places"]
        if not sections:
            return [_link(match[0], file, "", document)]
        found: list[nodes.Node] = []
        end = 0
        for place in _SECTION.finditer(sections):
            text = f"{file} {place[0]}" if not found else place[0]
            if found:
                found.append(nodes.Text(sections[end : place.start()]))
            found.append(_link(text, file, anchor_of("section", place[0].lstrip("§")), document))
            end = place.end()
        return found
    if given["equation"]:
        return [_link(match[0], "theory", anchor_of("equation", given["equation"]), document)]
    sections, equations = numbers(meant) if meant else (set(), set())
    if given["section"] in sections:
        return [_link(match[0], meant, anchor_of("section", given["section"]), document)]
    if given["section"] in numbers("theory")[0] and document in DOCUMENTS:
        return [_link(match[0], "theory", anchor_of("section", given["section"]), document)]
    if given["number"] in equations:
        return [_link(match[0], meant, anchor_of("equation", given["number"]), document)]
    return None


class Citations(SphinxTransform):
    default_priority = 620

    def apply(self, **kwargs: Any) -> None:
        document = self.env.docname
        own = document if document in DOCUMENTS else ""
        for node in running_text(self.document):
            if isinstance(node.parent, nodes.reference | addnodes.pending_xref):
                continue
            text, made, end, meant = node.astext(), [], 0, own
            for match in _PATTERN.finditer(text):
                if pieces := _pieces(match, document, meant):
                    made += [nodes.Text(text[end : match.start()]), *pieces]
                    end = match.end()
                    meant = (
                        own or match["file"] or match["short"] or meant
                    )  # a bare § goes on with the same file
            if made:
                node.parent.replace(node, [*made, nodes.Text(text[end:])])


def _resolve(app: Any, env: Any, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    if node.get("reftype") != "citation":
        return None
    document, _, anchor = node["reftarget"].partition("#")
    if anchor and anchor not in env.metadata[document].get("myst_slugs", {}):
        return None
    uri = app.builder.get_relative_uri(node["refdoc"], document)
    return nodes.reference("", "", contnode, internal=True, refuri=uri + (f"#{anchor}" if anchor else ""))


def setup(app: Any) -> None:
    app.add_transform(Citations)
    app.connect("missing-reference", _resolve)
