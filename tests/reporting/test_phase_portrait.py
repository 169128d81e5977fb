"""Phase portraits: rates and charges as recorded and predicted, and the regime in words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

import nm_ode
from nm_ode import plots
from nm_ode.charges import regimes
from nm_ode.reporting import PLOTS
from nm_ode.reporting.plots.phase import in_phase
from tests.reporting.trees import small_problem


@pytest.fixture(scope="module")
def observed() -> nm_ode.Charges:
    return nm_ode.Charges(nm_ode.symmetries_of(small_problem("relu")))


@pytest.fixture(scope="module")
def swinging(observed) -> xr.Dataset:
    """With so much momentum and weight decay that charges swing."""
    optimizer = nm_ode.SGD(lr=0.05, momentum=0.95, weight_decay=0.2)
    return nm_ode.train(small_problem("relu"), optimizer, 130, batch_size=20, observe=[observed])


@pytest.fixture(scope="module")
def plain(observed) -> xr.Dataset:
    return nm_ode.train(small_problem("relu"), nm_ode.SGD(lr=0.05), 12, observe=[observed])


def words(ax: Axes) -> str:
    return " ".join(text.get_text() for text in ax.texts).replace("\u00a0", " ").replace("\n", " ")


def test_rates_are_of_second_order_and_at_their_mean_charge() -> None:
    times = np.linspace(0, 2, 81)
    for block in (1, 4):
        charge, rate = in_phase(times, np.exp(-times), block)
        np.testing.assert_allclose(rate, -charge, rtol=(block * 0.025) ** 2)
        assert len(charge) == 80 // block
    charge, rate = in_phase(np.arange(6.0), np.arange(6.0) ** 2, 4)  # the end is there, too
    assert (charge.tolist(), rate.tolist()) == ([8.0, 20.5], [4.0, 9.0])
    charge, rate = in_phase(
        np.array([0.0, 0.0, 1.0]), np.array([2.0, 2.0, 1.0]), 1
    )  # a step without a length
    assert (charge.tolist(), rate.tolist()) == ([1.5], [-1.0])


def test_what_is_drawn_is_what_was_recorded_and_predicted(swinging) -> None:
    ax = plots.phase_portrait(swinging, channels=3)
    predicted = nm_ode.predict_charges(swinging, "second_order").charge.values
    here = np.flatnonzero(swinging.kind == "translation")
    by_motion = here[
        np.argsort(-np.abs(swinging.charge.values - swinging.charge.values[0])[:, here].max(axis=0))
    ]
    drawn = ax.lines
    assert len(drawn) == 3 * 3  # recorded, where it starts, predicted
    for i, channel in enumerate(by_motion[:3]):
        for line, values in ((drawn[3 * i], swinging.charge.values), (drawn[3 * i + 2], predicted)):
            charge, rate = in_phase(swinging.time.values, values[:, channel], 1)
            np.testing.assert_array_equal(line.get_xdata(), charge)
            np.testing.assert_array_equal(line.get_ydata(), rate)


def test_the_regime_and_its_numbers_are_said(swinging, observed) -> None:
    (one,) = regimes(swinging, "translation linear2")
    said = words(plots.phase_portrait(swinging))
    assert "η = 0.05, β = 0.95, λ = 0.2" in said
    assert f"underdamped, ζ = {one.damping_ratio:.3g}, period {one.period:.3g}" in said
    assert f"critical at λ = {one.critical_weight_decay:.2g}" in said
    slow = nm_ode.SGD(lr=0.05, momentum=0.5, weight_decay=0.01)
    ax = plots.phase_portrait(nm_ode.train(small_problem("relu"), slow, 12, observe=[observed]))
    assert "overdamped" in words(ax)
    (charge, rate) = (
        ax.lines[-1].get_xdata(),
        ax.lines[-1].get_ydata(),
    )  # the direction in which it comes to rest
    rates = np.roots([0.05 * 1.5 / 2, 0.5, 0.01])
    np.testing.assert_allclose(rate, max(rates.real) * charge, rtol=1e-9)


def test_charges_of_a_schedule_have_several_regimes(with_charges) -> None:
    said = words(plots.phase_portrait(with_charges))
    ratios = [
        one.damping_ratio for one in regimes(with_charges["discrete"].to_dataset(), "translation linear1")
    ]
    assert len(ratios) == 2
    assert f"overdamped throughout, ζ = {ratios[0]:.3g} to {ratios[1]:.3g}" in said


def test_points_too_far_apart_for_a_swing_are_told(swinging, observed) -> None:
    """Of every 40th record of a swing that takes fewer than 100 steps."""
    (one,) = regimes(swinging, "translation linear2")
    assert "of a period apart" not in words(plots.phase_portrait(swinging))
    seldom = nm_ode.Charges(observed.symmetries, every=40)
    optimizer = nm_ode.SGD(lr=0.05, momentum=0.95, weight_decay=0.2)
    run = nm_ode.train(small_problem("relu"), optimizer, 121, observe=[seldom])
    said = words(plots.phase_portrait(run))
    assert f"points lie {40 * 0.05 / one.period:.2g} of a period apart" in said


def test_without_a_pull_it_says_so(plain) -> None:
    said = words(plots.phase_portrait(plain))  # translations do not move: a rescale is drawn
    assert "nothing pulls Q back" in said
    with pytest.raises(nm_ode.LawError, match="do not move"):
        plots.phase_portrait(plain, symmetry="translation linear2")


def test_a_symmetry_is_chosen_by_name_and_axes_by_the_user(swinging) -> None:
    ax = Figure().subplots()
    name = "rescale linear1 → linear2"
    assert plots.phase_portrait(swinging, symmetry=name, ax=ax) is ax
    assert ax.get_title(loc="left") == name
    with pytest.raises(nm_ode.ArgumentError, match=r"'rescale head'.*linear1"):
        plots.phase_portrait(swinging, symmetry="rescale head")


def test_charges_of_another_group_go_by_its_own_steps(tmp_path) -> None:
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)), torch.randn(12, 5), torch.arange(12) % 3
    groups = [{"params": model[0].parameters()}, {"params": model[1].parameters(), "lr": 0.02}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.2)
    found = nm_ode.find_symmetries(model, x, loss="cross_entropy")
    with nm_ode.Recorder(model, optimizer, tmp_path / "run.zarr", observe=[nm_ode.Charges(found)]):
        for _ in range(40):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    run = nm_ode.open_run(tmp_path / "run.zarr")
    ax = plots.phase_portrait(run, channels=1)
    assert ax.get_title(loc="left") == "translation 1"
    assert "η = 0.02" in words(ax)
    here = np.flatnonzero(run.charge_symmetry == "translation 1")
    (channel,) = [
        i for i in here if np.isclose(run.charge[:2, i].mean(), ax.lines[0].get_xdata()[0], rtol=1e-12)
    ]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.diff(run.charge[:, channel]) / 0.02, rtol=1e-9)
    (others,) = plots.charge_grid(run)
    said = {
        panel.get_title(loc="left").split(",")[0]: [text.get_text() for text in panel.texts]
        for panel in others
    }
    assert "no law describes it" in said["matrix"]
    assert "no law describes it" not in said["translation"]


def test_the_report_has_one_where_the_second_order_law_is_drawn(with_charges, with_flows, plain) -> None:
    plot = PLOTS["phase_portrait"]
    figure = plot.figure(with_charges)
    assert [ax.get_title(loc="left").split()[0] for ax in figure.axes] == ["translation", "scale", "rescale"]
    assert not plot.applies(with_flows)
    assert not plot.applies(plots.as_tree(plain, nm_ode.predict_charges(plain, "first_order")))
