"""What a table is: rows of text, shown in full on the page and in brief on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Cell:
    """A cell's text.

    Attributes:
        text: on the page.
        brief: on the terminal; the same if None.
        flag, brief_flag: a warning beside the text, on each.
        note: a second line on the page.
        href: where the text leads to, on the page.
    """

    text: str
    brief: str | None = None
    flag: str = ""
    brief_flag: str = ""
    note: str = ""
    href: str = ""

    @property
    def terminal_text(self) -> str:
        return self.text if self.brief is None else self.brief


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: on the page; None if it is not there. A line break is a place to break it.
        brief: on the terminal; None if it is not there.
        numeric: is it aligned to the right?
        group: a title above neighbouring columns, on the page.
    """

    title: str | None
    brief: str | None = None
    numeric: bool = True
    group: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        caption: what must be known to read it, on the page.
        brief_caption: the same on the terminal.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    brief_caption: str = ""

    @property
    def on_page(self) -> list[Column]:
        """The columns of the page."""
        return [column for column in self.columns if column.title is not None]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Titles above the columns of the page, and how many columns each is above; empty where there are none."""
        found = [(title, len(list(columns))) for title, columns in groupby(self.on_page, _group_of)]
        return found if any(title for title, _ in found) else []

    def page_cells(self, row: Sequence[Cell]) -> list[tuple[Column, Cell]]:
        """The cells of a row that the page shows."""
        return [pair for pair in zip(self.columns, row, strict=True) if pair[0].title is not None]

    def terminal_cells(self, row: Sequence[Cell]) -> list[Cell]:
        """The cells of a row that the terminal shows."""
        pairs = zip(self.columns, row, strict=True)
        return [cell for column, cell in pairs if column.brief is not None]


def _group_of(column: Column) -> str:
    return column.group
