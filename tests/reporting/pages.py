"""A page taken apart."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser


class Outline(HTMLParser):
    """Which tags are open, and where the page gets its parts from."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.sources, self.links = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs) -> None:
        attributes = dict(attrs)
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        if "src" in attributes:
            self.sources.append(attributes["src"])
        if "href" in attributes:
            self.links.append(attributes["href"])

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def drawings(html: str) -> list[str]:
    """The SVG text of each picture."""
    return [base64.b64decode(data).decode() for data in re.findall(r"base64,([A-Za-z0-9+/=]+)", html)]


def texts(svg: str) -> list[str]:
    """Every text in a drawing: matplotlib notes each as a comment."""
    return re.findall(r"<!-- (.*?) -->", svg)
