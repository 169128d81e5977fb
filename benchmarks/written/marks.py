"""Numbers in a page that a person writes: each stands between two comments that no reader sees, and comes from a file.

`<!--=name-->1.14<!--/-->` is the value of that name; a table has the comments on lines of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

MARKED = re.compile(r"<!--=([\w.-]+)-->(.*?)<!--/-->", re.DOTALL)
_CODE = re.compile(r"^(```|~~~|:::).*?^\1", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w§-])\d[\w.,]*|[⁰¹²³⁴⁵⁶⁷⁸⁹]+")

Values = Mapping[str, Callable[[], str]]


def filled(text: str, values: Values) -> str:
    """The page with each marked value as it is now.

    Raises:
        KeyError: a name that there is no value of.
        ValueError: a value's comment begins a line, where Markdown takes the line for HTML.
    """

    def one(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            raise KeyError(f"no value is called {name!r}; those that there are: {', '.join(sorted(values))}")
        value = values[name]()
        if "\n" in value:
            return f"<!--={name}-->\n\n{value.strip()}\n\n<!--/-->"
        if text[: match.start()].rpartition("\n")[2].strip() == "":
            raise ValueError(f"{name}: its comment begins a line, which Markdown takes for HTML; move it on")
        return f"<!--={name}-->{value}<!--/-->"

    return MARKED.sub(one, text)


def unsourced(text: str) -> list[str]:
    """Numbers in the prose that no value gives: neither marked, nor in code, an address, or a name such as VGG-16."""
    prose = _CODE.sub("", text)
    prose = MARKED.sub("", prose)
    prose = re.sub(r"<!--.*?-->", "", prose, flags=re.DOTALL)
    prose = re.sub(r"`[^`]*`", "", prose)
    prose = re.sub(r"\]\([^)]*\)|https?://\S+", "", prose)
    prose = re.sub(r"\bPython \d\.\d+|\bMIT\b|© ?\d+", "", prose)
    return _NUMBER.findall(prose)
