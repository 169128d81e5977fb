"""The built site as what its pages link to, show and say."""

from __future__ import annotations

import posixpath
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_QUIET = ("pre", "code", "script", "style", "svg", "math", "nav", "aside")


class Page(HTMLParser):
    """One page: anchors, links, images, what the browser loads, and the running text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.loaded: list[str] = []
        self.said: list[str] = []
        self._quiet = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids |= {value for key in ("id", "name") if (value := given.get(key))}
        if tag == "a" and (href := given.get("href")):
            self.links.append(href)
        if tag == "img":
            self.images.append(given)
        if tag in ("script", "img", "iframe", "source", "object") and (src := given.get("src")):
            self.loaded.append(src)
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev", "index", "search"):
            self.loaded.append(given.get("href") or "")
        self._quiet += tag in _QUIET

    def handle_endtag(self, tag: str) -> None:
        self._quiet -= tag in _QUIET

    def handle_data(self, data: str) -> None:
        if not self._quiet:
            self.said.append(data)


@dataclass(frozen=True)
class Site:
    """All pages by their path from the root."""

    root: Path
    pages: dict[str, Page] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Site:
        found = {
            path.relative_to(root).as_posix(): Page(path.read_text())
            for path in sorted(root.rglob("*.html"))
            if "_static" not in path.parts
        }
        return cls(root, found)

    def target(self, page: str, link: str) -> tuple[str, str] | None:
        """Path and anchor of a link within the site; None of one that leads out."""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            return None
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path)))
        return (path if parts.path else page), unquote(parts.fragment)

    @cached_property
    def names(self) -> set[str]:
        """What others can refer to: the inventory's Python names."""
        content = (self.root / "objects.inv").read_bytes().split(b"\n", 4)[4]
        lines = zlib.decompress(content).decode().splitlines()
        return {line.split()[0] for line in lines if line.split()[1].startswith("py:")}
