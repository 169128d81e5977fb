"""The page of a study: one file, complete, with a link to each member's page that is there."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import xarray as xr

import nm_ode
from nm_ode.comparison import convergence
from nm_ode.comparison.study import study_numbers, study_orders
from nm_ode.reporting.formats import power
from nm_ode.reporting.study import write_study_report
from nm_ode.reporting.study.tables import (
    MOST_ROWS,
    diagnosis_table,
    member_table,
    spread_table,
    study_order_table,
)
from nm_ode.reporting.study.words import duration, size_sentence, state_sentence, troubles, without_page
from nm_ode.results import LadderInfo, ladder_info, write
from tests.reporting.pages import Outline, drawings, texts
from tests.reporting.study.trees import study_tree


@pytest.fixture(scope="module")
def html(plane, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("study")
    (folder / "members").mkdir()
    for name in ("lr=0.4,momentum=0", "lr=0.1,momentum=0.5"):
        (folder / f"members/{name}.html").write_text("")
    return write_study_report(plane, folder / "report.html").read_text()


def test_it_is_well_formed_and_needs_nothing_else(html: str) -> None:
    outline = Outline(html)
    assert outline.open == []
    assert all(source.startswith("data:image/svg+xml;base64,") for source in outline.sources)
    assert "url(" not in html
    for drawing in drawings(html):
        assert ElementTree.fromstring(drawing).tag.endswith("svg")
    titles = [text for drawing in drawings(html) for text in texts(drawing)]
    for title in ("Loss at the end", "Gradient flow: order", "Observed order in lr", "Loss of every member"):
        assert title in titles


def test_members_are_linked_where_there_is_a_page_and_results(html: str) -> None:
    # The second has a page of an earlier run, but failed.
    assert Outline(html).links == ["members/lr%3D0.4%2Cmomentum%3D0.html"]


def test_it_says_what_is_not_whole_and_why(html: str) -> None:
    text = " ".join(html.split())
    assert "8 whole, 1 diverged, 1 with a part that failed, 1 failed, 1 not run yet" in text
    assert "12 members: lr (4) × momentum (3)" in text
    assert "A &lt; B &amp; sweep" in text
    assert text.index("&lt;out of memory&gt;") < text.index("Over the axes")
    assert "nan" not in html.split("base64")[0].lower()


def test_nothing_is_said_of_failures_where_there_are_none(seeds, tmp_path: Path) -> None:
    html = write_study_report(seeds, tmp_path / "report.html").read_text()
    assert "all whole" in html
    assert "What is not whole" not in html


def test_every_member_has_a_row_with_its_numbers(plane) -> None:
    table = member_table(study_numbers(plane), lambda name: f"to/{name}")
    rows = {row[0].text: [cell.text for cell in row] for row in table.rows}
    assert len(rows) == 12
    assert power(0.3 * 0.4 / 5) in rows["lr=0.4,momentum=0"]
    assert {row[0].flag for row in table.rows} == {"", "diverged", "stopped", "failed", "not run"}
    assert [row[0].href for row in table.rows].count("") == 2


def test_a_name_that_does_not_say_the_values_has_them_beside_it() -> None:
    tree = study_tree({"lr": [0.1, 0.2], "model": ["tanh", "relu"]})
    tree["member"][:] = [["a", "b"], ["c", "d"]]
    table = member_table(study_numbers(tree))
    assert [column.title for column in table.columns][1:3] == ["lr", "model"]
    assert [cell.text for cell in table.rows[3]][:3] == ["d", "0.2", "relu"]


def test_very_many_members_are_not_all_on_the_page() -> None:
    tree = study_tree({"seed": list(range(MOST_ROWS + 5))}, saved=2, flows={})
    table = member_table(study_numbers(tree))
    assert len(table.rows) == MOST_ROWS
    assert "5 more" in table.caption
    assert "--csv" in table.caption


def test_tables_of_spread_and_orders(plane, seeds) -> None:
    rows = {row[0].text: row for row in spread_table(study_numbers(plane)).rows}
    assert rows["Gradient flow: error over the motion"][1].text == "8"
    orders = study_order_table(study_numbers(plane))
    assert orders is not None
    assert [cell.text for cell in orders.rows[0]] == ["0", "1.00 ± 0.00", "2.00 ± 0.00", "3"]
    assert study_order_table(study_numbers(seeds)) is None


def test_members_without_a_page_are_named(seeds, tmp_path: Path) -> None:
    numbers = study_numbers(study_tree({"seed": list(range(20))}, saved=2, flows={}))
    members = numbers["member"].values.reshape(-1).tolist()
    assert without_page(numbers, members) == ""
    assert without_page(numbers, members[1:]).startswith(f"Without a page of their own: {members[0]};")
    assert "and 7 more;" in without_page(numbers, members[:1])
    assert "No member has a page" in without_page(numbers, [])
    assert "--pages" in write_study_report(seeds, tmp_path / "report.html").read_text()


def test_words() -> None:
    numbers = study_numbers(study_tree({"lr": [0.1]}, {(0,): ("failed", "killed")}))
    assert size_sentence(numbers) == "1 member: lr (1)"
    assert state_sentence(numbers) == "1 failed"
    assert [(one.member, one.reason) for one in troubles(numbers)] == [("lr=0.1", "killed")]
    assert [duration(one) for one in (2.5, 125, 3720)] == ["2.5 s", "2 min 5 s", "1 h 2 min"]


def test_a_study_of_which_nothing_is_there_has_a_page(tmp_path: Path) -> None:
    states = {(i, j): ("missing", "") for i in range(2) for j in range(2)}
    tree = study_tree({"lr": [0.1, 0.2], "momentum": [0.0, 0.5]}, states)
    assert "4 not run yet" in write_study_report(tree, tmp_path / "report.html").read_text()


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(nm_ode.ResultError, match="open_study"):
        write_study_report(xr.DataTree(), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def reduced(tree: xr.DataTree, momenta: list[float]) -> xr.DataTree:
    """With the orders that a reduction makes; at momentum 0 its fit is without the largest learning rate."""
    numbers = study_numbers(tree)
    found = []
    for momentum in momenta:
        here = numbers.sel(momentum=momentum) if "momentum" in numbers.dims else numbers
        points = []
        for i in range(here.sizes["lr"]):
            one = here.isel(lr=i)
            error = one["error"].values
            points.append(
                xr.Dataset(
                    {
                        "error": ("flow", error),
                        "relative_error": ("flow", error),
                        "layer_error": (("flow", "layer"), error[:, None]),
                        "solver_error": ("flow", error * (0.5 if i == 0 and momentum == 0 else 1e-9)),
                        "start_share": ("flow", error * np.nan),
                        "expected_order": ("flow", [1, 2]),
                        "beside": ("flow", np.array(["", ""], dtype=object)),
                        "rounding": ((), 1e-15),
                        "largest_normalised_sharpness": ((), 0.1),
                        "crossing_share": ((), np.nan),
                    },
                    coords={
                        "lr": float(one["lr"]),
                        "flow": one["flow"].values,
                        "flow_title": ("flow", one["flow_title"].values),
                        "layer": ["all"],
                    },
                )
            )
        found.append(convergence(points, LadderInfo(stateful=False, warm_start=False, fixed_step=False)))
    whole = xr.concat(found, "momentum", data_vars="all", coords="minimal", compat="override")
    whole = write(whole.assign_coords(momentum=momenta), ladder_info(found[0]))
    return tree.assign({"convergence": xr.DataTree(whole if "momentum" in tree.dims else found[0])})


def test_the_fit_is_that_of_the_studys_own_reduction() -> None:
    tree = reduced(study_tree({"lr": [0.2, 0.1, 0.05], "momentum": [0.0, 0.5]}), [0.0, 0.5])
    orders = study_orders(study_numbers(tree))
    np.testing.assert_array_equal(orders["points"].sel(flow="gradient"), [2, 3])
    np.testing.assert_allclose(orders["observed_order"].sel(flow="modified_2_hessian"), 2, rtol=1e-12)


def test_a_study_over_lr_alone_has_the_diagnosis_of_each_flow(tmp_path: Path) -> None:
    tree = reduced(study_tree({"lr": [0.2, 0.1, 0.05]}), [0.5])
    html = write_study_report(tree, tmp_path / "report.html").read_text()
    assert "as theory predicts (2)" in html
    assert "Orders by layer" in html


def test_where_an_order_is_not_theorys_it_is_said_why(tmp_path: Path) -> None:
    tree = study_tree({"lr": [0.2, 0.1, 0.05], "momentum": [0.0, 0.5]})
    error = tree["comparison/modified_2_hessian/error"]
    tree["comparison/modified_2_hessian/error"] = error.where(
        tree["momentum"] == 0, error * tree["lr"] ** -0.5
    )
    rows = diagnosis_table(reduced(tree, [0.0, 0.5])["convergence"].dataset).rows
    assert [(row[0].text, row[1].text) for row in rows] == [("0.5", "modified flow, order 2, Hessian form")]
    assert "short of the 2" in rows[0][2].text
