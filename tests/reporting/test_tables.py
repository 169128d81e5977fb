"""Tables: the same rows for the page and the terminal."""

from __future__ import annotations

import pytest

from nm_ode.comparison import law_infos, summary, symmetry_summary
from nm_ode.reporting.tables import (
    Cell,
    Column,
    Table,
    constraint_table,
    cost_table,
    flow_table,
    law_table,
    layer_order_table,
    order_table,
    unexpected,
)


def every_table(tree) -> list[Table]:
    rows, found = summary(tree), symmetry_summary(tree)
    tables = [flow_table(rows), cost_table(rows), law_table(found, law_infos(tree)), constraint_table(found)]
    if "convergence" in tree.children:
        orders = tree["convergence"].dataset
        tables += [order_table(orders), layer_order_table(orders)]
    return tables


@pytest.mark.parametrize("fixture", ["with_flows", "with_ladder", "with_charges"])
def test_every_row_has_a_cell_for_every_column(request, fixture: str) -> None:
    for table in every_table(request.getfixturevalue(fixture)):
        briefly = [column for column in table.columns if column.brief is not None]
        for row in table.rows:
            assert len(row) == len(table.columns)
            assert len(table.page_cells(row)) == len(table.on_page)
            assert len(table.terminal_cells(row)) == len(briefly)
            assert not any("nan" in cell.text for cell in row)


def test_both_show_the_same_figures(with_flows) -> None:
    table = flow_table(summary(with_flows))
    for row, measured in zip(table.rows, summary(with_flows), strict=True):
        page = {column.title: cell.text for column, cell in table.page_cells(row)}
        brief = [column.brief for column in table.columns if column.brief is not None]
        terminal = dict(zip(brief, table.terminal_cells(row), strict=True))
        assert float(page["error"]) == pytest.approx(measured.error, rel=5e-3)
        assert float(terminal["error"].terminal_text) == pytest.approx(measured.error, rel=5e-2)


def test_groups_of_columns() -> None:
    columns = [Column("a"), Column(None, "b"), Column("c", group="law"), Column("d", group="law")]
    table = Table(columns, [[Cell(name) for name in "abcd"]])
    assert table.groups == [("", 1), ("law", 2)]
    assert [cell.text for _, cell in table.page_cells(table.rows[0])] == ["a", "c", "d"]
    assert [cell.terminal_text for cell in table.terminal_cells(table.rows[0])] == ["b"]
    assert Table(columns[:2], []).groups == []


def test_orders_as_expected_need_no_words_on_the_terminal(with_ladder) -> None:
    assert unexpected(with_ladder["convergence"].dataset) == []
    wrong = with_ladder["convergence"].to_dataset()
    wrong = wrong.assign(outcome=wrong["outcome"].copy(data=["short", "as_expected"]))
    ((label, text),) = unexpected(wrong)
    assert label == "gradient"
    assert "short of the 1" in text
