"""Parameters beside the charges of their channels: which entries are drawn, and their numbers."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import nm_ode
from nm_ode import plots
from nm_ode.reporting import PLOTS
from nm_ode.reporting.plots.dynamics import way_over_range
from nm_ode.symmetries import Symmetries
from tests.reporting.trees import small_problem


@pytest.fixture(scope="module")
def found() -> Symmetries:
    return nm_ode.symmetries_of(small_problem("relu", norm="batch"))


@pytest.fixture(scope="module")
def run(found) -> xr.Dataset:
    """64-4-10 with BatchNorm; theta at each second step."""
    optimizer = nm_ode.SGD(lr=0.05, momentum=0.5, weight_decay=1e-2)
    observe = [nm_ode.Charges(found)]
    return nm_ode.train(
        small_problem("relu", norm="batch"), optimizer, 20, batch_size=20, save_every=2, observe=observe
    )


def drawn(ax: Axes) -> np.ndarray:
    """Shape (saved steps, lines)."""
    return np.stack([np.asarray(line.get_ydata(), dtype=float) for line in ax.lines], axis=1)


def places(run: xr.Dataset, *names: str) -> np.ndarray:
    slots = {slot.name: slot for slot in nm_ode.run_info(run).layout.slots}
    return np.concatenate(
        [np.arange(slots[name].start, slots[name].start + slots[name].size) for name in names]
    )


def test_parameters_of_the_layers_in_the_name_are_drawn(run) -> None:
    left, _ = plots.parameters_and_channels(run, symmetry="rescale norm1 → linear2", parameters=1000)
    there = places(run, "norm1.weight", "norm1.bias", "linear2.weight", "linear2.bias")
    np.testing.assert_array_equal(drawn(left), run.theta.values[:, there])
    np.testing.assert_array_equal(left.lines[0].get_xdata(), run.saved_time)


def test_of_the_symmetry_itself_exactly_what_takes_part(run, found) -> None:
    rescale = found.named("rescale norm1 → linear2")
    left, _ = plots.parameters_and_channels(run, symmetry=rescale, parameters=1000)
    there = places(run, "norm1.weight", "norm1.bias", "linear2.weight")  # the bias of linear2 does not
    np.testing.assert_array_equal(drawn(left), run.theta.values[:, there])
    other = small_problem("relu")
    with pytest.raises(nm_ode.ArgumentError, match="no charges of 'rescale linear1"):
        plots.parameters_and_channels(
            run, symmetry=nm_ode.symmetries_of(other).named("rescale linear1 → linear2")
        )


def test_charges_and_their_law_stand_beside(run) -> None:
    _, right = plots.parameters_and_channels(run, symmetry="scale linear1")
    here = np.flatnonzero(run.charge_symmetry == "scale linear1")
    predicted = nm_ode.predict_charges(run, "second_order")
    np.testing.assert_array_equal(drawn(right)[:, ::2], run.charge.values[:, here])
    np.testing.assert_array_equal(drawn(right)[:, 1::2], predicted.charge.values[:, here])


def test_the_way_over_the_range_is_one_for_what_only_rises(run) -> None:
    zigzag = np.array([[0.0, 0.0, 5.0], [2.0, 1.0, 5.0], [1.0, 2.0, 5.0], [3.0, 3.0, 5.0]])
    assert way_over_range(zigzag[:, :1]) == pytest.approx(5 / 3)
    assert way_over_range(zigzag[:, 1:]) == 1  # what does not move is not counted
    assert np.isnan(way_over_range(zigzag[:, 2:]))
    left, right = plots.parameters_and_channels(run, symmetry="scale linear1", parameters=1000)
    here = np.flatnonzero(run.charge_symmetry == "scale linear1")
    for panel, values in ((left, drawn(left)), (right, run.saved_charge.values[:, here])):
        assert f"way / range = {way_over_range(values):.3g}" in [text.get_text() for text in panel.texts]


def test_as_many_lines_as_asked_for_in_the_users_axes(run) -> None:
    axes = Figure().subplots(1, 2)
    given = plots.parameters_and_channels(run, parameters=5, channels=2, axes=axes)
    assert given.tolist() == axes.tolist()
    assert [len(ax.lines) for ax in given] == [5, 4]
    with pytest.raises(nm_ode.ArgumentError, match="2 panels"):
        plots.parameters_and_channels(run, axes=axes[:1])


def test_what_was_not_kept_is_said(found) -> None:
    problem, optimizer = small_problem("relu", norm="batch"), nm_ode.SGD(lr=0.05)
    sketched = nm_ode.train(
        problem, optimizer, 6, save_every=1, observe=[nm_ode.Charges(found), nm_ode.Sketch(64)]
    )
    ends = nm_ode.train(problem, optimizer, 6, save_every=6, observe=[nm_ode.Charges(found)])
    for run, words in ((sketched, "keep_theta"), (ends, "save_every")):
        with pytest.raises(nm_ode.ResultError, match=words):
            plots.parameters_and_channels(run)
        tree = plots.as_tree(run, nm_ode.predict_charges(run, "first_order"))
        assert not PLOTS["parameters_and_channels"].applies(tree)


def test_a_name_that_tells_no_parameters_is_refused(run) -> None:
    renamed = run.charge_symmetry.values.copy()
    renamed[renamed == "scale linear1"] = "scale everything"
    other = run.assign_coords(charge_symmetry=("charge_index", renamed))
    with pytest.raises(nm_ode.ArgumentError, match="give the symmetry itself"):
        plots.parameters_and_channels(other, symmetry="scale everything")
    with pytest.raises(nm_ode.ArgumentError, match=r"'scale head'.*scale linear1"):
        plots.parameters_and_channels(run, symmetry="scale head")


def test_the_report_has_it_where_parameters_and_a_law_are_there(run, with_flows) -> None:
    plot = PLOTS["parameters_and_channels"]
    tree = plots.as_tree(run, nm_ode.predict_charges(run, "exact"))
    assert plot.applies(tree)
    assert [len(ax.lines) > 0 for ax in plot.figure(tree).axes] == [True, True]
    assert not plot.applies(with_flows)
