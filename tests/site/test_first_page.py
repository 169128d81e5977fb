"""The first page that a newcomer reads explains the table and the report as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import xarray as xr

import nm_ode
from nm_ode.comparison import summary
from nm_ode.reporting.report import report_html
from nm_ode.reporting.tables import flow_table
from tests.reporting.trees import small_problem, study_tree

PAGE = (Path(__file__).resolve().parents[2] / "docs/start/five_minutes.md").read_text()


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    problem = small_problem()
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 4)
    return study_tree(run, [nm_ode.solve(nm_ode.GradientFlow(problem), run, rtol=1e-5)])


def test_each_column_of_the_printed_table_is_explained_in_its_order(tree: xr.DataTree) -> None:
    explained = [row[1] for row in re.finditer(r"^\| ([a-z ]+) \| ", PAGE, re.MULTILINE)]
    columns = [column.brief for column in flow_table(summary(tree)).columns if column.brief is not None]
    assert columns == ["flow", *explained[1:]]
    printed = re.search(r"^flow .*$", PAGE, re.MULTILINE)
    assert printed
    assert re.split(r" {2,}", printed[0]) == columns


def test_what_it_says_of_the_report_is_there(tree: xr.DataTree) -> None:
    titles = re.findall(
        r"^- \*(.*?)\*", PAGE.partition("## The report")[2].partition("\n## ")[0], re.MULTILINE
    )
    headings = re.findall(r"<h2>(.*?)</h2>", report_html(tree))
    assert titles
    assert titles == headings
