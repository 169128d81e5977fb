"""Plots of a study: what is drawn is what was measured, and what is missing is marked."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import xarray as xr
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import nm_ode
from nm_ode import plots
from nm_ode.comparison.study import study_numbers
from nm_ode.reporting.study import STUDY_PLOTS
from nm_ode.reporting.study.plots.losses import loss_curves
from nm_ode.reporting.study.plots.multiples import over_axes
from nm_ode.reporting.study.plots.orders import errors_over_lr, orders_over_axis
from nm_ode.reporting.study.plots.phase import phase_diagram
from nm_ode.reporting.study.plots.plane import plane_of, positions
from nm_ode.reporting.style import svg


@pytest.mark.parametrize(
    ("fixture", "applying"),
    [
        ("plane", ["phase", "over_axes", "errors_over_lr", "orders_over_axis", "losses"]),
        ("seeds", ["over_axes", "losses"]),
        ("space", ["phase", "over_axes", "errors_over_lr", "orders_over_axis", "losses"]),
    ],
)
def test_each_is_drawn_where_it_applies(request, fixture: str, applying: list[str]) -> None:
    tree = request.getfixturevalue(fixture)
    assert [name for name, plot in STUDY_PLOTS.items() if plot.applies(tree)] == applying
    before = dict(rcParams)
    for name in applying:
        assert isinstance(STUDY_PLOTS[name].draw(tree), Axes | Figure)
    assert dict(rcParams) == before


def cells(axes: Axes) -> Counter[str]:
    """Cells of a panel by how they are drawn."""
    boxes = [one for one in axes.patches if isinstance(one, Rectangle)]
    return Counter(
        "hatched" if one.get_hatch() else "filled" if one.get_fill() else f"outlined {one.get_linestyle()}"
        for one in boxes
    )


def test_cells_without_a_number_have_no_colour_and_say_why(plane) -> None:
    axes = phase_diagram(plane, "relative_error.gradient").axes[0]
    assert cells(axes)["filled"] == 8
    assert cells(axes)["hatched"] == 3
    assert sum(key.startswith("outlined") for key in cells(axes).elements()) == 1
    marks = {line.get_marker(): (line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines}
    # lr and momentum rise along the axes: 0.05, 0.1, 0.2, 0.4 and 0, 0.5, 0.9.
    assert marks == {"^": (3, 2), "s": (2, 2), "x": (1, 1)}
    assert len(axes.texts) == 8


def test_a_run_that_did_not_come_to_its_end_is_framed(plane) -> None:
    axes = phase_diagram(plane, "final_loss").axes[0]
    framed = [one for one in axes.patches if not one.get_fill() and one.get_linestyle() in ("-", "solid")]
    assert len(framed) == 2  # diverged, and a solver that gave up: both have a loss


def test_cells_are_medians_over_further_axes_and_say_what_is_lost(space) -> None:
    plane = plane_of(study_numbers(space))
    assert plane is not None
    assert (plane.x, plane.y, plane.over) == ("lr", "model", ("seed",))
    losses = study_numbers(space)["final_loss"]
    expected = np.nanmedian(losses.transpose("model", "lr", "seed").values[:, ::-1], axis=-1)
    np.testing.assert_allclose(plane.median(losses), expected)
    lost = plane.some_lost(study_numbers(space)["state"])
    assert np.argwhere(lost).tolist() == [[0, 2]]
    assert "some of its members" in svg(phase_diagram(space, "final_loss"))


def test_the_axes_of_a_phase_diagram_can_be_chosen(space) -> None:
    figure = phase_diagram(space, "final_loss", x="seed", y="lr")
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("seed", "lr")
    with pytest.raises(ValueError, match="no axis 'width'"):
        phase_diagram(space, x="width")
    with pytest.raises(ValueError, match="no quantity"):
        phase_diagram(space, "accuracy")


def test_a_phase_diagram_needs_two_axes(seeds) -> None:
    with pytest.raises(ValueError, match="two axes"):
        phase_diagram(seeds)


def test_every_member_is_a_point(plane) -> None:
    figure = over_axes(plane, "final_loss")
    numbers = study_numbers(plane)
    known = numbers["final_loss"].values[np.isfinite(numbers["final_loss"].values)]
    for axes in figure.axes:
        assert sorted(axes.lines[0].get_ydata()) == sorted(known)
    medians = figure.axes[0].lines[1]
    np.testing.assert_allclose(medians.get_xdata(), [0.05, 0.1, 0.2, 0.4])
    np.testing.assert_allclose(medians.get_ydata(), numbers["final_loss"].median("momentum").values[::-1])


def test_fitted_lines_have_the_slopes_of_the_law(plane) -> None:
    axes = errors_over_lr(plane).axes[0]
    assert axes.get_title(loc="left") == "momentum = 0"
    for label, order in (("gradient flow", 1), ("modified flow, order 2, Hessian form", 2)):
        at = next(i for i, line in enumerate(axes.lines) if line.get_label() == label)
        x, y = (np.log(np.asarray(getattr(axes.lines[at + 2], f"get_{k}data")(), float)) for k in "xy")
        assert np.diff(y)[0] / np.diff(x)[0] == pytest.approx(order, rel=1e-9)


def test_orders_along_the_other_axis(plane) -> None:
    axes = orders_over_axis(plane)
    bars = axes.containers
    assert [bar.get_label() for bar in bars] == ["gradient flow", "modified flow, order 2, Hessian form"]
    for bar, order in zip(bars, (1, 2), strict=True):
        np.testing.assert_allclose(bar.lines[0].get_xdata(), [0, 0.5, 0.9])
        np.testing.assert_allclose(bar.lines[0].get_ydata(), order, rtol=1e-9)


def test_a_line_for_each_run_as_far_as_it_went(plane) -> None:
    axes = loss_curves(plane)
    lengths = sorted(len(line) for line in axes.collections[0].get_segments())
    assert lengths == [4, *[9] * 9]
    figure = Figure()
    mine = figure.subplots()
    assert loss_curves(plane, mine, by="momentum") is mine
    with pytest.raises(ValueError, match="no axis"):
        loss_curves(plane, by="width")


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [
        ([0.4, 0.2, 0.1], True),
        ([0.1, 0.2, 0.3, 0.4, 0.5], False),
        ([0.0, 1.0, 10.0], False),
        ([1.0, 100.0, 50.0], True),
        ([0.02, 0.05, 1e200], True),
    ],
)
def test_where_ratios_are_even_the_axis_is_logarithmic(values: list[float], logarithmic: bool) -> None:
    numbers = xr.Dataset({"state": ("lr", ["whole"] * len(values))}, coords={"lr": values})
    assert positions(numbers, "lr")[1] == logarithmic


def test_a_phase_diagram_is_drawn_in_the_users_axes(plane) -> None:
    figure = Figure()
    axes = figure.subplots(2)
    keys = ["relative_error.gradient", "final_loss"]
    drawn = plots.phase_diagram(plane, quantity=keys, axes=axes)
    assert drawn.tolist() == axes.tolist()
    for panel, key in zip(drawn, keys, strict=True):
        alone = plots.phase_diagram(plane, quantity=key)[0]
        assert cells(panel) == cells(alone)
        assert panel.get_title() == alone.get_title()
        assert (panel.get_xlabel(), panel.get_ylabel()) == ("lr", "momentum")
    with pytest.raises(nm_ode.ArgumentError, match="2 panels"):
        plots.phase_diagram(plane, quantity=keys, axes=axes[0])
