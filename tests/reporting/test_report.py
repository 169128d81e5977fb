"""report.html: one file, complete, well-formed."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import xarray as xr

from nm_ode.comparison import stability, summary, symmetry_summary
from nm_ode.reporting import write_report
from nm_ode.reporting.order_plots import order_plot
from nm_ode.reporting.report import _count, _number, _power
from nm_ode.studies import load_case, run_case
from tests.studies.conftest import CHARGES, TINY


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> xr.DataTree:
    folder = tmp_path_factory.mktemp("case")
    path = folder / "tiny.toml"
    path.write_text(TINY.replace('name = "tiny"', 'name = "tiny"\ntitle = "A < B & C"'))
    return run_case(load_case(path), path, folder / "out").tree


@pytest.fixture(scope="module")
def html(tree, tmp_path_factory) -> str:
    return write_report(tree, tmp_path_factory.mktemp("report") / "report.html").read_text()


class Outline(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open, self.sources, self.links = [], [], []

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


def test_it_is_one_file_with_every_tag_closed(html: str) -> None:
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    assert outline.links == []
    assert len(outline.sources) == 3
    assert all(source.startswith("data:image/svg+xml;base64,") for source in outline.sources)
    assert "@import" not in html
    assert "url(" not in html


def test_the_plots_are_drawings_with_labelled_axes(html: str) -> None:
    drawings = [base64.b64decode(data).decode() for data in re.findall(r"base64,([A-Za-z0-9+/=]+)", html)]
    for drawing in drawings:
        assert ElementTree.fromstring(drawing).tag.endswith("svg")
    comments = [re.findall(r"<!-- (.*?) -->", drawing) for drawing in drawings]  # matplotlib notes each text
    for texts, title, label in zip(
        comments,
        ("Loss", "Error against time", "Error of each layer at the last step"),
        ("loss over all samples", "units of θ", "dimensionless"),
        strict=True,
    ):
        assert title in texts
        assert any(label in text for text in texts)


def test_it_says_what_was_run_and_what_came_out(html: str, tree) -> None:
    assert "A &lt; B &amp; C" in html
    for text in ("gradient flow", "modified flow, order 2, Hessian form", "torch", "seed", "smooth"):
        assert text in html
    for row in summary(tree):
        assert _number(row.error) in html
        assert _count(row.gradient_evaluations) in html
    assert "nan" not in html.split("base64")[0].lower()
    assert "What failed" not in html


def test_failures_come_first(tree, tmp_path: Path) -> None:
    failed = tree.copy()
    failed.attrs |= {"failures": ["the solver gave up at t = 3"], "status": "failed"}
    html = write_report(failed, tmp_path / "report.html").read_text()
    assert html.index("the solver gave up at t = 3") < html.index("Distance between")


def test_a_run_that_diverged_at_once_has_a_report_too(tree, tmp_path: Path) -> None:
    bare = xr.DataTree.from_dict(
        {"/discrete": tree["discrete"].to_dataset().isel(saved_step=slice(0), step=slice(0))}
    )
    bare.attrs = tree.attrs | {"failures": ["training diverged"]}
    assert "training diverged" in write_report(bare, tmp_path / "report.html").read_text()


def test_a_solver_limited_row_is_marked(tree, tmp_path: Path) -> None:
    limited = tree.copy(deep=True)
    limited["comparison/gradient/solver_limited"][:] = True
    html = write_report(limited, tmp_path / "report.html").read_text()
    assert html.count("solver-limited</span>") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.012345, "0.0123"), (-1.5e-7, "−1.5e−7"), (float("nan"), "–"), (2e12, "2e+12"), (0.0, "0")],
)
def test_numbers_are_short_and_readable(value: float, text: str) -> None:
    assert _number(value) == text


@pytest.fixture(scope="module")
def with_charges(tmp_path_factory) -> xr.DataTree:
    folder = tmp_path_factory.mktemp("charges")
    path = folder / "charges.toml"
    path.write_text(CHARGES)
    return run_case(load_case(path), path, folder / "out").tree


def test_charges_have_their_pages(with_charges, tmp_path: Path) -> None:
    html = write_report(with_charges, tmp_path / "report.html").read_text()
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    _, panels, families = (
        base64.b64decode(data).decode() for data in re.findall(r"base64,([A-Za-z0-9+/=]+)", html)
    )
    texts = re.findall(r"<!-- (.*?) -->", panels)
    assert [text for text in texts if text in ("translation", "scale", "rescale")] == [
        "translation",
        "scale",
        "rescale",
    ]
    assert any("flow time" in text for text in texts)
    assert any("units of θ²" in text for text in texts)
    assert "second-order continuous law" in texts
    in_families = re.findall(r"<!-- (.*?) -->", families)
    rows = symmetry_summary(with_charges)
    for row in rows:
        assert row.name in html
        assert row.name in in_families
        assert _power(row.hessian_residual) in html
        for error in row.laws.values():
            assert _power(error.family) in html
    assert "nan" not in html.split("base64")[0].lower()


def test_laws_without_motion_have_no_panel(with_charges, tmp_path: Path) -> None:
    still = with_charges.copy(deep=True)
    for law in ("exact", "exact_epsilon", "second_order"):
        still[f"comparison/{law}/charge_motion"][:] = 0.0
    assert write_report(still, tmp_path / "report.html").read_text().count("<img") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.234e-4, "1.2e−4"), (0.5, "5.0e−1"), (0.0, "0"), (float("nan"), "–"), (3e-17, "3.0e−17")],
)
def test_residuals_are_powers_of_ten(value: float, text: str) -> None:
    assert _power(value) == text


LADDER = TINY.replace(
    "[solver]", "[ladder]\nlr = [0.2, 0.1, 0.05]\n[stability]\npoints = 3\n[solver]"
).replace("rtol = 1e-5", "rtol = 1e-9")


@pytest.fixture(scope="module")
def with_ladder(tmp_path_factory) -> xr.DataTree:
    folder = tmp_path_factory.mktemp("ladder")
    path = folder / "tiny.toml"
    path.write_text(LADDER)
    return run_case(load_case(path), path, folder / "out").tree


def test_orders_have_their_page(with_ladder, tmp_path: Path) -> None:
    html = write_report(with_ladder, tmp_path / "report.html").read_text()
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    assert len(outline.sources) == 5
    found = with_ladder["convergence"].dataset
    for i in range(found.sizes["flow"]):
        assert f"{float(found['observed_order'][i]):.2f}" in html
        assert str(found["verdict"].values[i]) in html
    assert "Orders by layer" in html
    assert "linear1" in html


def test_a_point_out_of_the_fit_is_hollow(with_ladder) -> None:
    found = with_ladder["convergence"].dataset.copy(deep=True)
    assert order_plot(found) != order_plot(
        found.assign(left_out=(("lr", "flow"), [["rounding", ""], ["", ""], ["", ""]]))
    )


def test_stability_has_its_page(with_ladder, tmp_path: Path) -> None:
    html = write_report(with_ladder, tmp_path / "report.html").read_text()
    seen = stability(with_ladder)
    assert seen.words in html
    assert "card fail" not in html
    curvature = with_ladder["discrete/curvature"].to_dataset()
    beyond = curvature.assign(normalised_sharpness=curvature["normalised_sharpness"] * 1000)
    tree = with_ladder.copy()
    tree["discrete/curvature"] = xr.DataTree(beyond)
    html = write_report(tree, tmp_path / "report.html").read_text()
    assert "card fail" in html
    assert "past this step none is expected to follow the run" in html


def test_which_samples_a_flow_takes_is_told(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(
        TINY.replace("save_every = 5", "batch_size = 20").replace(
            '["gradient", { kind = "modified", order = 2, form = "hessian" }]',
            '[{ kind = "gradient", batches = "full" }, { kind = "gradient", batches = "same" }]',
        )
    )
    html = write_report(
        run_case(load_case(path), path, tmp_path / "out").tree, tmp_path / "r.html"
    ).read_text()
    assert "full-batch gradient flow" in html
    assert "same-batch gradient flow" in html
    assert "its error holds the batches’ noise" in html
    assert "its error is the discretisation’s alone" in html


def test_adam_and_the_step_from_which_its_flow_holds_are_told(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(
        TINY.replace("lr = 0.1", 'name = "adam"\nlr = 1e-3')
        .replace("steps = 10", "steps = 40")
        .replace("save_every = 5", "save_every = 1")
        .replace(
            '["gradient", { kind = "modified", order = 2, form = "hessian" }]',
            '[{ kind = "modified", order = 4 }]',
        )
    )
    tree = run_case(load_case(path), path, tmp_path / "out").tree
    html = " ".join(write_report(tree, tmp_path / "r.html").read_text().split())
    (row,) = summary(tree)
    assert "40 steps of Adam, lr = 0.001," in html
    assert f"leaves out more than a thousandth of an update in the steps before {row.holds_from}," in html
