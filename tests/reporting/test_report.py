"""report.html: one file, complete, well-formed."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import xarray as xr

import nm_ode
from nm_ode.comparison import Row, stability, summary, symmetry_summary
from nm_ode.reporting import PLOTS, Plot, write_report
from nm_ode.reporting.formats import count, number, power
from nm_ode.reporting.style import panel
from nm_ode.results import ResultError, decode, encode
from nm_ode.results.records import StudyInfo
from tests.reporting.pages import Outline, drawings, texts
from tests.reporting.trees import info, study_tree


@pytest.fixture(scope="module")
def html(with_flows, tmp_path_factory) -> str:
    return write_report(with_flows, tmp_path_factory.mktemp("report") / "report.html").read_text()


def page(tree: xr.DataTree, folder: Path) -> str:
    return write_report(tree, folder / "report.html").read_text()


def words(html: str) -> str:
    return " ".join(html.split())


def test_it_is_one_file_with_every_tag_closed(html: str) -> None:
    outline = Outline(html)
    assert html.startswith("<!DOCTYPE html>")
    assert outline.open == []
    assert outline.links == []
    assert len(outline.sources) == 4
    assert all(source.startswith("data:image/svg+xml;base64,") for source in outline.sources)
    assert "@import" not in html
    assert "url(" not in html


def test_the_plots_are_drawings_with_labelled_axes(html: str) -> None:
    found = drawings(html)
    for drawing in found:
        assert ElementTree.fromstring(drawing).tag.endswith("svg")
    for drawing, title, label in zip(
        found,
        ("Loss", "Loss and modified loss", "Error against time", "Error of each layer at the last step"),
        ("loss over all samples", "flow time", "units of θ", "dimensionless"),
        strict=True,
    ):
        assert title in texts(drawing)
        assert any(label in text for text in texts(drawing))


def test_it_says_what_was_run_and_what_came_out(html: str, with_flows) -> None:
    assert "A &lt; B &amp; C" in html
    for text in ("gradient flow", "modified flow, order 2, Hessian form", "torch", "seed", "10 steps of SGD"):
        assert text in html
    for row in summary(with_flows):
        assert number(row.error) in html
        assert count(row.gradient_evaluations) in html
    assert "nan" not in html.split("base64")[0].lower()
    assert "What failed" not in html


def test_failures_come_first(with_flows, tmp_path: Path) -> None:
    failed = with_flows.copy()
    failed.attrs = encode(info(failures=("the solver gave up at t = 3",), status="failed"))
    html = page(failed, tmp_path)
    assert html.index("the solver gave up at t = 3") < html.index("Distance between")


def test_the_users_own_code_is_named_with_its_hash(with_flows, tmp_path: Path) -> None:
    own = with_flows.copy()
    own.attrs = encode(info(code={"my_net.py": "abc123"}))
    assert "my_net.py, SHA-256 abc123" in page(own, tmp_path)


def test_a_run_that_diverged_at_once_has_a_report_too(with_flows, tmp_path: Path) -> None:
    bare = with_flows["discrete"].to_dataset().isel(saved_step=slice(0), step=slice(0))
    bare.attrs["end_time"] = 0.0  # as a run writes it that took no step
    assert "training diverged" in page(study_tree(bare, failures=("training diverged",)), tmp_path)


def test_what_is_no_study_is_refused(with_flows, tmp_path: Path) -> None:
    bare = with_flows.copy()
    bare.attrs = {}
    with pytest.raises(ResultError, match="a study"):
        write_report(bare, tmp_path / "report.html")
    assert decode(StudyInfo, encode(info())) == info()


def test_a_solver_limited_row_is_marked_and_told(with_flows, tmp_path: Path) -> None:
    limited = with_flows.copy(deep=True)
    limited["comparison/gradient/solver_limited"][:] = True
    html = page(limited, tmp_path)
    assert html.count("solver-limited</span>") == 1
    assert "tighten solver.rtol" in html


def test_charges_have_their_pages(with_charges, tmp_path: Path) -> None:
    html = page(with_charges, tmp_path)
    assert Outline(html).open == []
    _, panels, symmetries, beside, portraits = map(texts, drawings(html))
    assert [text for text in panels if text in ("translation", "scale", "rescale")] == [
        "translation",
        "scale",
        "rescale",
    ]
    assert any("flow time" in text for text in panels)
    assert any("units of θ²" in text for text in panels)
    assert "second-order continuous law" in panels
    assert "charges of their channels" in beside
    assert any("overdamped" in text for text in portraits)
    for row in symmetry_summary(with_charges):
        assert row.name in html
        assert row.name in symmetries
        assert power(row.hessian_residual) in html
        for error in row.laws.values():
            assert power(error.together) in html
            assert power(error.worst) in html
    assert "nan" not in html.split("base64")[0].lower()


def test_laws_without_motion_have_no_panel(with_charges, tmp_path: Path) -> None:
    still = with_charges.copy(deep=True)
    for law in ("exact", "exact_epsilon", "second_order"):
        still[f"comparison/{law}/charge_motion"][:] = 0.0
    assert page(still, tmp_path).count("<img") == 1


def test_orders_have_their_page(with_ladder, tmp_path: Path) -> None:
    html = page(with_ladder, tmp_path)
    outline = Outline(html)
    assert outline.open == []
    assert len(outline.sources) == 6
    found = with_ladder["convergence"].dataset
    for i in range(found.sizes["flow"]):
        assert f"{float(found['observed_order'][i]):.2f}" in html
        assert f"{float(found['layer_observed_order'][i, 0]):.2f}" in html
    assert "as theory predicts" in html
    assert "Orders by layer" in html
    assert "linear1" in html


def test_stability_has_its_page(with_ladder, tmp_path: Path) -> None:
    html = page(with_ladder, tmp_path)
    assert "lr · λ<sub>max</sub> stays below" in html
    assert "card fail" not in html
    unstable = with_ladder.copy(deep=True)
    unstable["discrete/curvature/normalised_sharpness"] *= 1000
    assert stability(unstable).unstable_from == 0
    html = page(unstable, tmp_path)
    assert "card fail" in html
    assert "The jump:" in html
    assert "the fourth difference of the run" in html


def test_which_samples_a_flow_takes_is_told(problem, tmp_path: Path) -> None:
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 10, batch_size=20)
    flow = nm_ode.GradientFlow(problem)
    flows = [flow, nm_ode.MinibatchFlow.beside(flow, run)]
    tree = study_tree(run, [nm_ode.solve(one, run, rtol=1e-4) for one in flows])
    assert {row.beside for row in summary(tree)} == {"full_batch", "same_batch"}
    html = words(page(tree, tmp_path))
    for text in (
        "batches of 20",
        "full-batch gradient flow",
        "same-batch gradient flow",
        "its error holds the noise of the batches",
        "its error is the discretisation",
    ):
        assert text in html


def test_adam_and_the_step_from_which_its_flow_holds_are_told(problem, tmp_path: Path) -> None:
    optimizer = nm_ode.Adam(lr=1e-3)
    run = nm_ode.train(problem, optimizer, 40)
    tree = study_tree(run, [nm_ode.solve(nm_ode.modified_flow(problem, optimizer, 4), run, rtol=1e-4)])
    html = words(page(tree, tmp_path))
    row: Row = summary(tree)[0]
    assert row.holds_from > 0
    assert "40 steps of Adam, lr = 0.001," in html
    assert f"before step {row.holds_from}," in html


def test_a_new_plot_is_in_the_report(with_flows, tmp_path: Path) -> None:
    def draw(tree: xr.DataTree):
        axes = panel("Norm of the gradient")
        axes.plot(tree["discrete"].dataset["time"], tree["discrete"].dataset["grad_norm"])
        return axes

    PLOTS.register(
        "grad_norm", Plot("How the gradient shrinks.", draw, lambda tree: "flows" in tree.children)
    )
    try:
        html = page(with_flows, tmp_path)
        other = page(study_tree(with_flows["discrete"].to_dataset()), tmp_path)
    finally:
        PLOTS.unregister("grad_norm")
    assert "How the gradient shrinks." in html
    assert "Norm of the gradient" in texts(drawings(html)[-1])
    assert "How the gradient shrinks." not in other
