"""A run's own time average, and flows against it: on a quadratic at the edge, where all is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr

import nm_ode
from nm_ode import Sketch, compare, comparison_info
from nm_ode.comparison import AlignmentError, NoAverageError, edge, gaussian_window, run_average
from nm_ode.results import Variable, annotate, layout_of
from nm_ode.sketches import SparseSigns
from tests.oracles.at_edge import (
    LR,
    START,
    central_beside,
    decay,
    edge_run,
    gradient_beside,
    quadratic,
    swinging,
)

STEPS = 40
INSIDE = slice(1, STEPS)  # where the average over three steps is known
MIDDLE = slice(2, STEPS - 1)  # and where its variance is


@pytest.fixture(scope="module")
def run() -> xr.Dataset:
    return edge_run(STEPS)


@pytest.fixture(scope="module")
def central(run: xr.Dataset) -> xr.Dataset:
    return central_beside(run, decay(STEPS), np.full(STEPS + 1, START[0]))


def test_the_oscillation_is_told_from_the_path(run, central) -> None:
    """x alternates exactly; the mean of 0.8^k over three steps is 0.8^k (1 + 0.05²/(4·0.8))."""
    found = compare(run, central)
    y = decay(STEPS)[:, 1]
    bends = y * (LR * 0.4) ** 2 / (4 * (1 - LR * 0.4))
    np.testing.assert_allclose(found["error_to_average"][INSIDE], bends[INSIDE], rtol=1e-9)
    distance = np.hypot(START[0], bends)
    np.testing.assert_allclose(found["run_to_average"][INSIDE], distance[INSIDE], rtol=1e-12)
    np.testing.assert_allclose(
        found["relative_error_to_average"][INSIDE], bends[INSIDE] / found["motion"][INSIDE], rtol=1e-9
    )
    for name in ("error_to_average", "run_to_average", "averaged_loss"):
        assert np.isnan(found[name].values[[0, -1]]).all()
    assert comparison_info(found).average.startswith("three steps")
    assert comparison_info(found).no_average == ""


def test_a_constant_oscillation_is_predicted_to_rounding(run, central) -> None:
    """At the edge λ = 2/η, so that L̄ = L + tr Σ/η and the mean ‖g‖² = ‖ḡ‖² + 4 tr Σ/η²."""
    found = compare(run, central).isel(saved_step=slice(STEPS // 2, -2))
    np.testing.assert_allclose(found["measured_variance"], START[0] ** 2, rtol=1e-4)  # and what bends
    np.testing.assert_allclose(found["predicted_variance"], START[0] ** 2, rtol=1e-12)
    assert float(abs(found["averaged_loss_gap"]).max()) < 1e-4 * float(found["averaged_loss"].min())
    assert float(abs(found["averaged_grad_norm_gap"]).max()) < 1e-4 * float(found["averaged_grad_norm"].min())
    np.testing.assert_allclose(found["variance_along"][:, 0], START[0] ** 2, rtol=1e-12)
    np.testing.assert_allclose(found["predicted_variance_along"][:, 0], START[0] ** 2, rtol=1e-12)
    assert np.isnan(found["variance_along"][:, 1]).all()
    assert math.isnan(float(found["variance_correlation"]))  # nothing moves


@pytest.mark.parametrize("window", [None, gaussian_window(1.2)])
def test_a_changing_oscillation_goes_with_what_predicts_it(run, central, window) -> None:
    def amplitude(k: np.ndarray) -> np.ndarray:
        return 0.2 + 0.1 * np.sin(2 * np.pi * k / 20)

    k = np.arange(STEPS + 1)
    seen = swinging(run, amplitude)
    predicted = central_beside(seen, decay(STEPS), amplitude(k))
    found = compare(seen, predicted, average=window)
    assert float(found["variance_correlation"]) > 0.999
    assert 2 < float(found["variance_correlation_points"]) < STEPS / 4
    shifted = central_beside(seen, decay(STEPS), amplitude(k + 10))
    assert float(compare(seen, shifted, average=window)["variance_correlation"]) < -0.95
    middle = slice(12, -12)
    np.testing.assert_allclose(found["measured_variance"][middle], amplitude(k[middle]) ** 2, atol=5e-3)
    np.testing.assert_allclose(
        found["variance_along"][middle, 0], found["measured_variance"][middle], rtol=1e-2
    )


def test_it_counts_from_where_the_run_has_half_of_what_is_predicted(run) -> None:
    k = np.arange(STEPS + 1)
    size = 0.2 + 0.1 * np.sin(k)
    seen = swinging(run, lambda k: np.where(k < 20, 0.01, size))
    found = compare(seen, central_beside(seen, decay(STEPS), np.where(k < 10, 0.0, size)))
    first = int(found["oscillates_from"])
    share = (found["measured_variance"] / (size[10:] ** 2).mean()).values
    assert 18 <= first <= 20
    assert share[first] >= 0.5 > np.nanmax(share[10:first])
    late = found.isel(saved_step=slice(first, -2))
    expected = np.corrcoef(late["predicted_variance"], late["measured_variance"])[0, 1]
    assert float(found["variance_correlation"]) == pytest.approx(expected)
    # A flow that lets its own oscillation grow is small before, as the run is: that is no arrival.
    delayed = compare(seen, central_beside(seen, decay(STEPS), np.where(k < 20, 0.01, size)))
    assert int(delayed["oscillates_from"]) in (18, 19, 20)
    theta = seen["theta"].values.copy()
    theta[1:14, 0] = 0.1 * k[1:14] ** 2  # as far from its average, to one side
    bends = seen.assign(theta=(seen["theta"].dims, theta))
    later = compare(bends, central_beside(seen, decay(STEPS), np.where(k < 3, 0.0, size)))
    assert float(later["measured_variance"][8]) == pytest.approx(0.05**2, rel=0.01)
    assert 12 < int(later["oscillates_from"]) <= 20
    small = central_beside(seen, decay(STEPS), np.where(k < 10, 0.0, 10.0))
    never = compare(seen, small)
    assert int(never["oscillates_from"]) == -1
    assert math.isnan(float(never["variance_correlation"]))


def test_any_flow_is_held_against_the_average_if_it_is_asked_for(run) -> None:
    gradient = gradient_beside(run)
    plain, asked = compare(run, gradient), compare(run, gradient, average=True)
    assert "error_to_average" not in plain
    assert comparison_info(plain).average is None
    # x of gradient flow has decayed, so that the run's average is where it is, and the run is not.
    assert float(asked["error_to_average"][-2]) < 1e-2 * float(asked["error"][-2])
    np.testing.assert_array_equal(
        asked["averaged_loss_gap"], gradient["loss"].values - asked["averaged_loss"].values
    )
    assert "predicted_variance" not in asked
    assert "error_to_average" not in compare(
        run, central_beside(run, decay(STEPS), np.ones(STEPS + 1)), average=False
    )
    with pytest.raises(nm_ode.ArgumentError, match=r"gaussian_window.*'wide'"):
        compare(run, gradient, average="wide")


def test_a_run_that_kept_few_steps_says_what_to_set() -> None:
    run = edge_run(STEPS, save_every=5)
    central = central_beside(run, decay(STEPS)[::5], np.ones(9))
    found = compare(run, central)
    assert "error_to_average" not in found
    assert "save_every = 1" in comparison_info(found).no_average
    with pytest.raises(AlignmentError, match=r"save_every = 1.*Averages"):
        compare(run, central, average=True)
    with pytest.raises(NoAverageError, match="33 consecutive steps"):
        run_average(edge_run(20), gaussian_window(4.0))


@pytest.fixture(scope="module")
def observed() -> xr.Dataset:
    return edge_run(STEPS, save_every=5, observe=[nm_ode.Averages()])


def test_it_can_be_averaged_while_the_run_goes_on(run, observed) -> None:
    whole, online = run_average(run), run_average(observed)
    np.testing.assert_allclose(online.rows, whole.rows[::5], rtol=1e-12, atol=1e-15)
    for name in ("distance", "cosine", "variance", "loss", "grad_norm"):
        np.testing.assert_allclose(getattr(online, name), getattr(whole, name), rtol=1e-9, atol=1e-15)
    central = central_beside(observed, decay(STEPS)[::5], np.full(9, START[0]))
    found, full = compare(observed, central), compare(run, central)
    shared = {
        "error_to_average",
        "relative_error_to_average",
        "run_to_average",
        "averaged_loss",
        "averaged_loss_gap",
    }
    shared |= {"averaged_grad_norm", "averaged_grad_norm_gap", "measured_variance", "predicted_variance"}
    for name in shared:
        np.testing.assert_allclose(found[name], full[name], rtol=1e-7, atol=1e-13, err_msg=name)
    assert "variance_along" not in found
    with pytest.raises(AlignmentError, match="three steps alone"):
        compare(observed, central, average=gaussian_window(1.0))


def test_it_goes_on_from_a_checkpoint(tmp_path, observed) -> None:
    class StopError(Exception):
        pass

    def stop(done: int) -> None:
        if done == 17:
            raise StopError

    options = {
        "save_every": 5,
        "observe": [nm_ode.Averages()],
        "checkpoint": nm_ode.Checkpoint(tmp_path / "run.ckpt", 0),
    }
    with pytest.raises(StopError):
        edge_run(STEPS, on_step=stop, **options)
    assert (tmp_path / "run.ckpt").exists()
    xr.testing.assert_identical(edge_run(STEPS, **options), observed)


def test_each_member_has_its_own() -> None:
    problem = quadratic()
    starts = torch.tensor([START, (0.1, -1.0)], dtype=torch.float64)
    members = nm_ode.train(
        problem,
        nm_ode.SGD(lr=LR),
        6,
        save_every=2,
        members=nm_ode.Members(theta0=starts),
        observe=[nm_ode.Averages()],
    )
    for i, start in enumerate(starts):
        alone = nm_ode.train(
            problem, nm_ode.SGD(lr=LR), 6, save_every=2, theta0=start, observe=[nm_ode.Averages()]
        )
        one = nm_ode.member_run(members, i)
        for name in ("theta_average", "oscillation_norm", "oscillation_cosine"):
            np.testing.assert_allclose(one[name], alone[name], rtol=1e-12)


@pytest.mark.parametrize("of_run", ["every step", "averages"])
def test_sketches_stand_in_for_theta(of_run: str) -> None:
    """64 rows and two parameters: the projection is exact, and so is what is estimated from it."""
    kept = {"save_every": 1} if of_run == "every step" else {"save_every": 5}
    observe = [Sketch(64)] if of_run == "every step" else [Sketch(64), nm_ode.Averages()]
    run, whole = (
        edge_run(STEPS, observe=observe, **kept),
        edge_run(STEPS, observe=[nm_ode.Averages()], **kept),
    )
    every = kept["save_every"]
    path, size = decay(STEPS)[::every], np.full(STEPS // every + 1, START[0])
    exact = central_beside(whole, path, size)
    found = compare(run, sketched(exact))
    exact = compare(whole, exact)
    names = ["error_to_average", "run_to_average", "measured_variance", "averaged_loss_gap"]
    names += ["variance_along", "predicted_variance_along"] if every == 1 else []
    for name in names:
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-6, atol=1e-14, err_msg=name)
    np.testing.assert_allclose(
        found["error_to_average_standard_error"], found["error_to_average"] / math.sqrt(2 * 64)
    )
    assert "error_to_average_standard_error" not in exact


def sketched(solution: xr.Dataset) -> xr.Dataset:
    """With sketches of 64 rows in place of theta and of the vectors."""
    signs = SparseSigns(layout_of(solution), 64, 0)

    def of(values: np.ndarray) -> np.ndarray:
        rows = [signs.of(torch.from_numpy(row)).numpy() for row in values.reshape(-1, 2)]
        return np.stack(rows).reshape(*values.shape[:-1], 64)

    vectors = of(solution["oscillation_vector"].values)
    made = solution.drop_vars(["theta", "oscillation_vector"]).assign(
        theta_sketch=(("time", "sketch_index"), of(solution["theta"].values)),
        sketch_seed=0,
        sketch_parts=1,
        oscillation_vector=(("time", "critical", "sketch_index"), vectors),
    )
    return annotate(made, {"oscillation_vector": Variable((), "vectors")})


def test_a_tree_says_what_the_edge_comes_to(run) -> None:
    k = np.arange(STEPS + 1)
    size = 0.3 + 0.1 * np.sin(k)
    predicted = np.where(k < 10, 0.0, size)
    seen = swinging(run, lambda k: 0.3 + 0.1 * np.sin(k))
    central, gradient = central_beside(seen, decay(STEPS), predicted), gradient_beside(seen)
    tree = xr.DataTree.from_dict(
        {
            "/discrete": seen,
            "/flows/central": central,
            "/flows/gradient": gradient,
            "/comparison/central": compare(seen, central),
            "/comparison/gradient": compare(seen, gradient, average=True),
        }
    )
    found = edge(tree)
    assert (found.step, found.time, found.settled) == (10, pytest.approx(10 * LR), 10)
    assert [row.name for row in found.rows] == ["central", "gradient", "discrete"]
    own = tree["comparison/central"]
    late = own["relative_error_to_average"].values[10:]
    assert found.rows[0].mean == found.rows[0].settled == pytest.approx(np.nanmean(late))
    assert found.rows[0].step == STEPS - 1
    (row,) = found.central
    measured = own["measured_variance"].values[10:]
    there = np.isfinite(measured)
    assert row.predicted == pytest.approx((predicted[10:] ** 2)[there].mean())
    assert row.measured == pytest.approx(measured[there].mean())
    assert row.correlation.points == there.sum()
    tree["comparison/gradient"] = xr.DataTree(compare(seen, gradient.isel(time=slice(30)), average=True))
    assert [row.step for row in edge(tree).rows] == [29] * 3  # as far as all flows go
    assert edge(xr.DataTree.from_dict({"/discrete": seen, "/flows/gradient": gradient})) is None
