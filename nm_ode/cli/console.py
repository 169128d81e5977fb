"""How the command prints: tables, paths, complaints, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

if TYPE_CHECKING:
    from nm_ode.reporting.tables import Table
    from nm_ode.reporting.words import Sentence

DONE, FAILED, MISTAKE = 0, 1, 2
"""Exit codes."""

out, err = Console(), Console(stderr=True)


def bare_table() -> RichTable:
    """A table without lines."""
    return RichTable(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))


def print_table(table: Table) -> None:
    """The table in brief, and what must be known to read it."""
    shown = bare_table()
    for column in table.columns:
        if column.brief is not None:
            # The names of symmetries may be long; numbers must not be broken.
            folds = column.brief == "symmetry"
            shown.add_column(
                column.brief,
                justify="right" if column.numeric else "left",
                no_wrap=not folds,
                overflow="fold" if folds else "ellipsis",
            )
    for row in table.rows:
        shown.add_row(
            *(
                escape(cell.terminal_text)
                + (f" [red]{escape(cell.brief_flag)}[/red]" if cell.brief_flag else "")
                for cell in table.terminal_cells(row)
            )
        )
    out.print(shown)
    if table.brief_caption:
        print_dim(table.brief_caption)


def print_sentence(sentence: Sentence) -> None:
    """A sentence in small print, or with a red mark if it warns."""
    if sentence.warns:
        out.print(f"[red]![/red] {escape(sentence.text)}", highlight=False)
    else:
        print_dim(sentence.text)


def print_dim(text: str) -> None:
    """Small print."""
    out.print(escape(text), style="dim", highlight=False)


def print_path(label: str, path: Path) -> None:
    """A path on one line, for copying."""
    out.print(f"[dim]{label}[/dim] {path}", soft_wrap=True, highlight=False)


def print_own_code(files: Sequence[Path]) -> None:
    """One line that says that the user's own code is run; nothing where the case names none."""
    if files:
        # soft_wrap: a path is for copying, so it stays on one line.
        told = f"runs your own code: {', '.join(map(str, files))}"
        out.print(told, style="dim", highlight=False, markup=False, soft_wrap=True)


def complain(message: str) -> None:
    """An error that does not end the command."""
    err.print(f"[red]error:[/red] {escape(message)}", soft_wrap=True, highlight=False)


def stop(message: str, code: int) -> NoReturn:
    """An error that ends the command with this exit code."""
    complain(message)
    raise typer.Exit(code)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """`progress(what, total)` starts a bar and gives a function to be called with how much is done."""
    columns = (TextColumn("{task.description:45}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bars:

        def start(what: str, total: int) -> Callable[[int], None]:
            task = bars.add_task(what, total=total)
            return lambda done: bars.update(task, completed=done)

        yield start
