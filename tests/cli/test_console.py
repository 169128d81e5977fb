"""Tables on consoles that are narrow and wide."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from nm_ode.cli import console
from nm_ode.reporting.tables import Cell, Column, Table

NUMBERS = [f"{1.1 * k:.1e}" for k in range(1, 9)]
LONG = "lr=0.025,momentum=0.9,steps=320"
TABLE = Table(
    [Column("member", "member", numeric=False), *(Column(f"flow {k}", f"flow {k}") for k in range(8))],
    [[Cell(LONG, brief_flag="failed"), *map(Cell, NUMBERS)]],
)
LAW = "the trace of the product of the weights of layers 1 and 2 " * 3
LAWS = Table(
    [Column("symmetry", "symmetry", numeric=False), *(Column(f"{k}", f"number {k}") for k in range(8))],
    [[Cell(LAW), *map(Cell, NUMBERS)]],
)


def printed(table: Table, width: int, monkeypatch) -> tuple[bool, list[str]]:
    """Does it fit, and its lines."""
    file = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=file, width=width))
    console.print_table(table)
    return console.fits(table), file.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 40, 80, 109, 110, 200])
def test_no_number_and_no_name_is_cut(width: int, monkeypatch) -> None:
    fits, lines = printed(TABLE, width, monkeypatch)
    assert len(lines) == 2
    assert lines[1].split() == [LONG, "failed", *NUMBERS]
    assert fits == (max(map(len, lines)) <= width)


def test_a_narrow_console_and_a_wide_one(monkeypatch) -> None:
    assert not printed(TABLE, 80, monkeypatch)[0]
    assert printed(TABLE, 120, monkeypatch)[0]


@pytest.mark.parametrize("width", [40, 100])
def test_a_long_symmetry_is_folded_and_its_numbers_are_whole(width: int, monkeypatch) -> None:
    fits, lines = printed(LAWS, width, monkeypatch)
    assert not fits
    assert len(lines) > 2
    assert lines[1].split()[-8:] == NUMBERS
