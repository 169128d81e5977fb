"""Pages that are files of the repository's root, with their links as they are from here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PAGES = {"contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}
_LINK = re.compile(r"\]\((?!\w+://|#)([^)\s]+)\)")


def _from_root(match: re.Match[str]) -> str:
    return f"]({_where(match[1])})"


def _where(path: str) -> str:
    """Where a path from the root is on the site: a page, or a file that can be had."""
    for page, file in PAGES.items():
        if path.partition("#")[0] == file:
            return path.replace(file, f"/{page}.md")
    return f"/{path.removeprefix('docs/')}" if path.startswith("docs/") else f"../{path}"


def _from_docs(match: re.Match[str]) -> str:
    path = match[1]
    return f"]({_where(path.lstrip('./'))})" if path.startswith("../") else match[0]


def _read(app: Any, docname: str, source: list[str]) -> None:
    if file := PAGES.get(docname):
        app.env.note_dependency(str(ROOT / file))
        source[0] = _LINK.sub(_from_root, (ROOT / file).read_text())
    elif "/" not in docname:
        source[0] = _LINK.sub(_from_docs, source[0])


def setup(app: Any) -> None:
    app.connect("source-read", _read)
