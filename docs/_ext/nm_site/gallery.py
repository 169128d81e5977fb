"""Thumbnails of the gallery are named after their examples, for readers who do not see them."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

_THUMB = re.compile(r"sphx_glr_(\w+?)_thumb")


def _name(app: Any, document: nodes.document, docname: str) -> None:
    for image in document.findall(nodes.image):
        if (found := _THUMB.search(image["uri"])) and not image.get("alt"):
            title = app.env.titles.get(f"gallery/{found[1]}")
            image["alt"] = f"Picture of the example: {title.astext() if title else found[1]}"


def setup(app: Any) -> None:
    app.connect("doctree-resolved", _name)
