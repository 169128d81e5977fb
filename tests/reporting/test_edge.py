"""What the page and the terminal say past the edge of stability, of a run that is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes

import nm_ode
from nm_ode import plots
from nm_ode.comparison import CentralRow, Correlation, Edge, edge
from nm_ode.reporting.edge_words import edge_sentences
from nm_ode.reporting.plots.given import as_tree
from nm_ode.reporting.report import report_html
from nm_ode.reporting.sections import sections
from nm_ode.reporting.tables import edge_table
from nm_ode.results import encode
from tests.oracles.at_edge import START, central_beside, decay, edge_run, gradient_beside, swinging
from tests.reporting.trees import info

STEPS = 60
NAMES = ("critical_eigenvalues", "oscillation_variance", "averaged_loss", "errors_to_average")


def amplitude(k: np.ndarray) -> np.ndarray:
    return START[0] + 0.1 * np.sin(k)


@pytest.fixture(scope="module")
def run() -> xr.Dataset:
    return swinging(edge_run(STEPS, observe=[nm_ode.Curvature(4)]), amplitude)


@pytest.fixture(scope="module")
def tree(run: xr.Dataset) -> xr.DataTree:
    predicted = np.where(np.arange(STEPS + 1) < 10, 0.0, amplitude(np.arange(STEPS + 1)))
    made = as_tree(run, gradient_beside(run), central_beside(run, decay(STEPS), predicted))
    made.attrs = encode(info())
    return made


def test_all_flows_beside_a_central_one_are_held_against_the_average(tree: xr.DataTree) -> None:
    assert all("error_to_average" in tree[f"comparison/{name}"] for name in ("central", "gradient"))


@pytest.mark.parametrize("name", NAMES)
def test_each_plot_is_a_function_of_the_tree(tree: xr.DataTree, name: str) -> None:
    axes = getattr(plots, name)(tree)
    assert isinstance(axes, Axes)
    assert all(text.get_text() for text in axes.get_legend().get_texts())
    with pytest.raises(nm_ode.ResultError, match="CentralFlow"):
        getattr(plots, name)(tree["discrete"].to_dataset())


def test_the_plots_show_what_is_in_the_tree(tree: xr.DataTree) -> None:
    compared, flow = tree["comparison/central"].dataset, tree["flows/central"].dataset
    measured, predicted, *_ = plots.oscillation_variance(tree).lines
    np.testing.assert_array_equal(measured.get_ydata(), compared["measured_variance"])
    np.testing.assert_array_equal(
        predicted.get_ydata(), flow["oscillation_trace"].where(flow["oscillation_trace"] > 0)
    )
    first, own, line, *_ = plots.critical_eigenvalues(tree).lines
    np.testing.assert_allclose(first.get_ydata(), 2.0)  # lr · λ, at the edge all along
    np.testing.assert_allclose(own.get_ydata(), 2.0, rtol=1e-9)
    assert line.get_ydata()[0] == 2.0
    # A flow that says where its own edge is: half as far up, it is drawn twice as high.
    other = tree.copy()
    other["flows/central"] = xr.DataTree(flow.assign(critical_edge=2.0))
    np.testing.assert_allclose(plots.critical_eigenvalues(other).lines[0].get_ydata(), 4.0)


def test_the_page_has_a_section_of_it(tree: xr.DataTree, monkeypatch) -> None:
    monkeypatch.setattr(
        "nm_ode.reporting.sections.svg", lambda figure: "<svg/>"
    )  # other tests draw all of them
    (section,) = [one for one in sections(tree) if one.title == "Past the edge of stability"]
    assert len(section.drawings) == 4
    assert section.table is not None
    assert [row[0].text for row in section.table.rows] == ["central flow", "gradient flow", "the run itself"]
    (means, correlated) = section.sentences
    assert "tr Σ predicted" in means.text
    assert not correlated.warns
    html = report_html(tree)
    assert "Past the edge of stability" in html
    assert "three steps" in html


def test_a_flow_that_is_held_against_no_average_says_what_to_set() -> None:
    run = edge_run(STEPS, save_every=5)
    tree = as_tree(run, gradient_beside(run), central_beside(run, decay(STEPS)[::5], np.ones(13)))
    seen = edge(tree)
    assert seen is not None
    assert seen.rows == ()
    (sentence,) = edge_sentences(seen)
    assert sentence.warns
    assert "save_every = 1" in sentence.text


def test_a_low_correlation_is_said_to_be_one() -> None:
    def said(value: float, independent: float, points: int = 50) -> tuple[str, bool]:
        row = CentralRow("central", "central flow", 5, 1.0, 1.0, Correlation(value, points, independent))
        sentence = edge_sentences(Edge(3, 1.0, 5, "three steps", (), (row,)))[-1]
        return sentence.text, sentence.warns

    text, warns = said(0.2, 20.0)
    assert warns
    assert "central flow this is low" in text
    assert "Descent bursts" in text
    text, warns = said(0.9, 20.0)
    assert not warns
    assert "0.90 ± 0.04" in text
    text, warns = said(0.9, 2.5)
    assert warns
    assert "too few" in text
    assert "constant" in said(float("nan"), float("nan"))[0]
    assert "fewer than three" in said(float("nan"), float("nan"), 2)[0]


def test_a_low_correlation_is_said_once_for_all_flows_that_have_it() -> None:
    rows = tuple(
        CentralRow(name, title, 5, 1.0, 1.0, Correlation(value, 50, 20.0))
        for name, title, value in (("a", "one flow", 0.1), ("b", "another", 0.9), ("c", "a third", -0.2))
    )
    sentences = edge_sentences(Edge(3, 1.0, 5, "three steps", (), rows))
    assert sum("about 20 independent points of 50" in sentence.text for sentence in sentences) == 3
    (low,) = [sentence.text for sentence in sentences if sentence.warns]
    assert "one flow" in low
    assert "a third" in low
    assert "another" not in low


@pytest.mark.parametrize(("step", "words"), [(None, "no edge"), (3, "not half of the")])
def test_of_an_oscillation_that_is_not_there_there_is_no_correlation(step: int | None, words: str) -> None:
    nan = float("nan")
    row = CentralRow("central", "central flow", None, nan, nan, Correlation(nan, 0, nan))
    (sentence,) = edge_sentences(Edge(step, None if step is None else 1.0, None, "three steps", (), (row,)))
    assert words in sentence.text


def test_the_table_says_from_which_step_its_means_are(tree: xr.DataTree) -> None:
    seen = edge(tree)
    assert seen is not None
    table = edge_table(seen)
    assert "from step 10 on" in table.caption
    assert table.rows[0][1].text == f"{STEPS - 1}"
    assert table.rows[-1][6].text == "–"


def test_a_central_flow_that_came_to_no_sample_is_in_no_plot(tree: xr.DataTree) -> None:
    """As one that ends at the start, where there is none."""
    flows = tree["flows"].children
    ended = {
        f"flows/{name}": node.to_dataset().isel(time=slice(0, 0 if name == "central" else None))
        for name, node in flows.items()
    }
    left = {"/": tree.to_dataset(), "discrete": tree["discrete"].to_dataset(), **ended}
    assert "<html" in report_html(xr.DataTree.from_dict(left))
