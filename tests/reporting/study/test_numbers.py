"""The numbers of each member, and orders over lr: against the laws that the trees were made from."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import nm_ode
from nm_ode.comparison.study import study_frame, study_numbers, study_orders
from nm_ode.comparison.study.numbers import STATES, last, quantities, with_numbers
from nm_ode.reporting.study.plots.multiples import over_axes
from nm_ode.reporting.study.tables import member_table
from nm_ode.reporting.style import svg
from tests.reporting.study.trees import FLOWS, study_tree


def error(tree: xr.DataTree, flow: str) -> xr.DataArray:
    order = FLOWS[flow][1]
    momentum = tree["momentum"] if "momentum" in tree.coords else 0.0
    return 0.3 * tree["lr"] ** order * (1 + momentum) ** 2


def test_numbers_at_the_end_are_the_last_that_were_measured(plane) -> None:
    numbers = study_numbers(plane)
    whole = numbers["state"] == "whole"
    assert int(whole.sum()) == 8
    for flow in FLOWS:
        found = numbers["error"].sel(flow=flow).where(whole)
        np.testing.assert_allclose(found, error(plane, flow).where(whole))
    assert float(numbers["end_time"].sel(lr=0.4, momentum=0)) == 8
    np.testing.assert_array_equal(numbers["steps"].sel(momentum=0).values, [20, 40, 80, np.nan])
    assert float(numbers["expected_order"].sel(flow="modified_2_hessian")) == 2


def test_what_has_no_results_has_no_numbers(plane) -> None:
    numbers = study_numbers(plane)
    for state, measured in zip(STATES, (True, True, True, False, False), strict=True):
        there = np.isfinite(numbers["final_loss"].values[(numbers["state"] == state).values])
        assert there.size
        assert (there == measured).all()
    diverged = numbers["final_loss"].sel(lr=0.4, momentum=0.9)
    losses = plane["discrete/full_loss"].sel(lr=0.4, momentum=0.9)
    assert float(diverged) == float(losses.dropna("saved_step")[-1])


def test_padding_is_no_last_value() -> None:
    ragged = xr.DataArray([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan], [np.nan] * 3], dims=("a", "step"))
    np.testing.assert_array_equal(last(ragged, "step"), [2, 3, np.nan])
    np.testing.assert_array_equal(last(ragged.transpose(), "step"), [2, 3, np.nan])


def test_distances_to_the_runs_average_are_where_that_is_known_last(plane) -> None:
    tree = plane.copy()
    compared = plane["comparison/gradient"].to_dataset()
    known = 0.1 * compared["error"].where(
        compared["error"].notnull() & compared["error"].shift(saved_step=-1).notnull()
    )
    tree["comparison/gradient"] = xr.DataTree(compared.assign(error_to_average=known))
    frame, numbers = study_frame(tree), study_numbers(tree)
    expected = last(known.transpose(*numbers["state"].dims, "saved_step"), "saved_step")
    there = (numbers["state"] == "whole").values
    found = numbers["error_to_average"].sel(flow="gradient").values
    np.testing.assert_allclose(found[there], expected.values[there])
    assert np.isfinite(found[there]).all()
    np.testing.assert_array_equal(frame["error_to_average.gradient"], found.reshape(-1))


def test_orders_are_those_of_the_law_with_what_is_known(plane) -> None:
    orders = study_orders(study_numbers(plane))
    for flow, (_, expected) in FLOWS.items():
        np.testing.assert_allclose(orders["observed_order"].sel(flow=flow), expected, rtol=1e-12)
    np.testing.assert_array_equal(orders["points"].sel(flow="gradient"), [3, 3, 2])
    assert np.isnan(orders["order_standard_error"].sel(flow="gradient", momentum=0.9))
    local = orders["local_order"].sel(flow="gradient", momentum=0.5)
    np.testing.assert_allclose(local, [1, np.nan, np.nan, np.nan], rtol=1e-12)


def test_a_point_that_the_solver_limits_is_not_in_the_fit() -> None:
    tree = study_tree({"lr": [0.4, 0.2, 0.1, 0.05]}, constant={"gradient": 0.3, "modified_2_hessian": 0.3})
    limited = tree.copy(deep=True)
    limited["comparison/gradient/solver_error"][-1] = 0.1
    limited["comparison/gradient/error"][-1] = 0.5
    orders = study_orders(study_numbers(limited))
    assert float(orders["observed_order"].sel(flow="gradient")) == pytest.approx(1, rel=1e-12)
    assert orders["used"].sel(flow="gradient").values.tolist() == [True, True, True, False]


def test_a_run_beyond_the_limit_of_stability_is_not_in_the_fit() -> None:
    tree = study_tree({"lr": [0.4, 0.2, 0.1, 0.05]})
    tree["discrete/curvature/normalised_sharpness"][0] = 2.5
    tree["comparison/gradient/error"][0] = 9.0
    orders = study_orders(study_numbers(tree)).sel(flow="gradient")
    assert float(orders["observed_order"]) == pytest.approx(1, rel=1e-12)
    assert orders["used"].values.tolist() == [False, True, True, True]
    assert float(orders["local_order"][0]) > 5


def test_sharpness_is_over_its_limit_where_limits_differ(plane) -> None:
    (one,) = (one for one in quantities(study_numbers(plane)) if one.kind == "sharpness")
    assert (one.key, one.limit) == ("largest_normalised_sharpness", 2.0)
    other = plane.copy()
    curvature = plane["discrete/curvature"].to_dataset()
    limits = 2 * (1 + plane["momentum"]) + 0 * plane["lr"]
    other["discrete/curvature"] = xr.DataTree(
        curvature.assign(stability_limit=limits, foreseen_step=100 * limits)
    )
    found = study_numbers(other)["foreseen_step"]
    assert found.sel(lr=0.4).values.tolist() == (100 * limits.sel(lr=0.4)).values.tolist()
    np.testing.assert_array_equal(study_frame(other)["foreseen_step"], found.values.reshape(-1))
    (one,) = (one for one in quantities(study_numbers(other)) if one.kind == "sharpness")
    assert one.limit == 1.0
    assert float(one.values.sel(lr=0.4, momentum=0.5)) == pytest.approx(4 * 0.4 / 1.5 / 3)


def test_no_orders_where_runs_end_at_other_times() -> None:
    tree = study_tree({"lr": [0.4, 0.2], "momentum": [0.0, 0.5]})
    times = tree["discrete"].dataset["saved_time"] * tree["lr"] * 10
    other = tree.copy()
    other["discrete"] = xr.DataTree(tree["discrete"].to_dataset().assign_coords(saved_time=times))
    assert "observed_order" in study_orders(study_numbers(tree))
    assert "observed_order" not in study_orders(study_numbers(other))


def test_no_orders_without_lr(seeds) -> None:
    assert not study_orders(study_numbers(seeds)).data_vars


def test_numbers_are_read_once(plane) -> None:
    kept = with_numbers(plane)
    kept["comparison"].orphan()
    found, before = study_numbers(kept), study_numbers(plane)
    assert found.equals(before)
    assert "error" in found


def test_a_study_of_losses_alone() -> None:
    tree = study_tree({"lr": [0.1, 0.2]}, flows={})
    assert [one.key for one in quantities(study_numbers(tree))] == [
        "final_loss",
        "largest_normalised_sharpness",
    ]


def recorded(tree: xr.DataTree, *without: str, **series: list[float]) -> xr.DataTree:
    """The study with what else its runs recorded, the same in all."""
    run = tree["discrete"].to_dataset()
    for name, values in series.items():
        dim = "step" if name == "loss" else "held_out_step"
        if dim == "step":
            values = values[:1] * run.sizes["step"]
        run[name] = run["status"].notnull() * xr.DataArray(values, dims=[dim])
    return tree.assign({"discrete": xr.DataTree(run.drop_vars(without))})


def test_what_was_measured_of_held_out_samples_has_columns() -> None:
    tree = recorded(study_tree({"lr": [0.1, 0.2]}, flows={}), test_loss=[3.0, 2.0], test_accuracy=[0.5, 0.75])
    numbers = study_numbers(tree)
    assert numbers["final_test_loss"].values.tolist() == [2.0, 2.0]
    assert numbers["final_test_accuracy"].values.tolist() == [0.75, 0.75]
    shown = {one.key: one for one in quantities(numbers)}
    assert list(shown)[:3] == ["final_loss", "final_test_loss", "final_test_accuracy"]
    assert not shown["final_test_accuracy"].logarithmic
    titles = [column.title for column in member_table(numbers).columns]
    assert "test accuracy\nat the end" in titles
    frame = nm_ode.study_frame(tree)
    assert frame["final_test_accuracy"].tolist() == [0.75, 0.75]
    assert svg(over_axes(tree, "final_test_accuracy"))


def test_without_a_loss_over_all_samples_there_is_that_of_the_last_batch() -> None:
    tree = study_tree({"lr": [0.1, 0.2]}, flows={})
    assert "last_batch_loss" not in study_numbers(recorded(tree, loss=[0.25]))
    numbers = study_numbers(recorded(tree, "full_loss", loss=[0.25]))
    assert "final_loss" not in numbers
    assert numbers["last_batch_loss"].values.tolist() == [0.25, 0.25]
    assert quantities(numbers)[0].key == "last_batch_loss"


@pytest.mark.parametrize("what", [xr.DataTree(), xr.DataTree(xr.Dataset({"status": 1}))])
def test_another_tree_is_refused(what: xr.DataTree) -> None:
    with pytest.raises(nm_ode.ResultError, match="open_study"):
        study_numbers(what)
