"""How the command prints: tables, paths, complaints, progress."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

from nm_ode.cli.stopping import heed

if TYPE_CHECKING:
    from nm_ode.reporting.tables import Table
    from nm_ode.reporting.tables.table import Cell
    from nm_ode.reporting.words import Sentence


class _Stream:
    """The standard output or error that is there now.

    One that fails is given up, so that what is computed does not hang on who reads it.

    Attributes:
        failed: why; None while it works.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.failed: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "rich_proxied_file":
            raise AttributeError(name)
        return getattr(self._now, name)

    @property
    def _now(self) -> Any:
        """A progress bar puts a proxy in the stream's place, which prints by way of this one."""
        stream = getattr(sys, self._name)
        return getattr(stream, "rich_proxied_file", stream)

    def write(self, text: str) -> int:
        self._try("write", text.encode("utf-8", "backslashreplace").decode("utf-8"))
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def isatty(self) -> bool:
        return self._now is not None and bool(self._now.isatty())

    def _try(self, method: str, *arguments: str) -> None:
        stream = self._now
        if stream is None or self.failed is not None:
            return
        try:
            getattr(stream, method)(*arguments)
        except OSError as error:
            self.failed = error
            if not isinstance(error, BrokenPipeError) and self._name == "stdout":
                complain(f"what is printed cannot be written: {error.strerror or error}")


_STDOUT, _STDERR = _Stream("stdout"), _Stream("stderr")
_ANY_WIDTH = 1_000_000
out, err = Console(file=cast(IO[str], _STDOUT)), Console(file=cast(IO[str], _STDERR))


def all_printed() -> bool:
    """Did all that was printed find its way? Asked once, at the end of a command."""
    failed, _STDOUT.failed, _STDERR.failed = _STDOUT.failed, None, None
    return failed is None


def bare_table() -> RichTable:
    """A table without lines."""
    return RichTable(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))


def print_table(table: Table) -> None:
    """The table in brief, and what must be known to read it; one that is too wide runs over, and is not cut."""
    shown = _shown(table)
    least = _width(shown).minimum
    if least > out.width:
        shown.width = least
    out.print(shown, crop=False)
    if table.brief_caption:
        print_dim(table.brief_caption)


def fits(table: Table) -> bool:
    """Has the console room for the table in brief?"""
    return _width(_shown(table)).maximum <= out.width


def _width(shown: RichTable) -> Measurement:
    """What it takes on a console of any width."""
    return Measurement.get(out, out.options.update(max_width=_ANY_WIDTH), shown)


def _shown(table: Table) -> RichTable:
    shown = bare_table()
    rows = [
        [Text.assemble(cell.terminal_text, *_flag(cell)) for cell in table.terminal_cells(row)]
        for row in table.rows
    ]
    titles = [(column.brief, column.numeric) for column in table.columns if column.brief is not None]
    for i, (title, numeric) in enumerate(titles):
        # The names of symmetries may be long; numbers and other names must not be broken.
        folds = title == "symmetry"
        shown.add_column(
            title,
            justify="right" if numeric else "left",
            no_wrap=not folds,
            overflow="fold",
            min_width=None if folds else max([cell_len(title), *(row[i].cell_len for row in rows)]),
        )
    for row in rows:
        shown.add_row(*row)
    return shown


def _flag(cell: Cell) -> list[tuple[str, str]]:
    return [(f" {cell.brief_flag}", "red")] if cell.brief_flag else []


def print_sentence(sentence: Sentence) -> None:
    """A sentence in small print, or with a red mark if it warns."""
    if sentence.warns:
        out.print(Text.assemble(("!", "red"), " ", sentence.text))
    else:
        print_dim(sentence.text)


def print_dim(text: str) -> None:
    """Small print."""
    out.print(Text(text, style="dim"))


def print_path(label: str, path: Path) -> None:
    """A path on one line, for copying."""
    print_line(label, str(path))


def print_line(label: str, text: str, style: str = "dim") -> None:
    """A label and a text on one line, however long."""
    out.print(Text.assemble((label, style), " ", text), soft_wrap=True)


def print_own_code(files: Sequence[Path]) -> None:
    """One line that says that the user's own code is run; nothing where the case names none."""
    if files:
        # soft_wrap: a path is for copying, so it stays on one line.
        told = f"runs your own code: {', '.join(map(str, files))}"
        out.print(Text(told, style="dim"), soft_wrap=True)


def complain(message: str) -> None:
    """An error that does not end the command."""
    err.print(Text.assemble(("error:", "red"), " ", message), soft_wrap=True)


def stop(message: str, code: int) -> NoReturn:
    """An error that ends the command with this exit code."""
    complain(message)
    raise typer.Exit(code)


class _Telling(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


@contextmanager
def engines_told(say: Callable[[str], None] = print_dim) -> Iterator[None]:
    """Within this block what takes an engine seconds (its start, a compilation) is said, one line each."""
    logger, handler = logging.getLogger("bridges.progress"), _Telling(say)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """`progress(what, total)` starts a bar and gives a function to be called with how much is done."""
    columns = (TextColumn("{task.description:45}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bars:

        def start(what: str, total: int) -> Callable[[int], None]:
            task = bars.add_task(escape(what), total=total)

            def report(done: int) -> None:
                heed()
                bars.update(task, completed=done)

            return report

        yield start
