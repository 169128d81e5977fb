"""The continuous laws of motion: as good as docs/theory.md §3.6 says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.integrate import solve_ivp

import nm_ode
from nm_ode.charges import LawError, driven, predict_charges
from nm_ode.charges.first_order import first_order
from nm_ode.charges.oscillation import translation_closed_form
from nm_ode.charges.second_order import oscillator, second_order
from nm_ode.optimizers import Cosine, Drop, Warmup
from nm_ode.results import comparison_info
from tests.oracles.charged import SIGNS, simulate
from tests.oracles.charged_runs import trained


def relative_errors(run: xr.Dataset, law: str) -> dict[str, float]:
    comparison = nm_ode.compare(run, predict_charges(run, law))
    worst = comparison["symmetry_relative_error"].max("step")
    return {
        str(name): float(value) for name, value in zip(worst["symmetry"].values, worst.values, strict=True)
    }


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_charges_that_overflow_are_not_at_rest(relu, value):
    run = trained(relu, 5, lr=0.05).copy(deep=True)
    predicted = predict_charges(run, "exact")
    run["charge"][3:] = value
    assert not nm_ode.compare(run, predicted)["symmetry_at_rest"].any()


def test_first_order_law_without_momentum(relu):
    run = trained(relu, 1000, lr=0.05, weight_decay=1e-3)
    assert max(relative_errors(run, "first_order").values()) < 9e-5  # docs/theory.md §3.6


@pytest.mark.parametrize(
    ("sgd", "bound"),
    [
        ({"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3}, 1e-3),
        ({"lr": 0.02, "momentum": 0.9, "dampening": 0.5, "weight_decay": 1e-3}, 1e-3),
        ({"lr": 0.02, "momentum": 0.9}, 1e-3),
        ({"lr": 0.002, "momentum": 0.99, "weight_decay": 1e-3}, 2e-5),
    ],
    ids=["0.9", "dampening", "no decay", "0.99"],
)
def test_second_order_law_with_momentum(relu, sgd, bound):
    errors = relative_errors(trained(relu, 1000, **sgd), "second_order")
    if not sgd.get("weight_decay"):
        assert np.isnan(errors.pop("translation linear3"))  # conserved: no motion to be relative to
    assert max(errors.values()) < bound


@pytest.mark.parametrize(
    "schedule", [Drop((250,), 0.1), Warmup(100), Cosine(0.01)], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("nesterov", [False, True])
def test_second_order_law_under_schedules_and_nesterov(relu, schedule, nesterov):
    run = trained(relu, 500, schedule, lr=0.02, momentum=0.9, weight_decay=1e-3, nesterov=nesterov)
    assert max(relative_errors(run, "second_order").values()) < 2e-3


@pytest.mark.parametrize(
    ("momentum", "lr", "bound"), [(0.5, 0.02, 1e-3), (0.9, 0.02, 1e-3), (0.99, 0.002, 1e-4)]
)
def test_nesterov_is_described_as_well_as_heavy_ball(relu, momentum, lr, bound):
    sgd = {"lr": lr, "momentum": momentum, "weight_decay": 1e-3}
    errors = relative_errors(trained(relu, 500, **sgd, nesterov=True), "second_order")
    assert max(errors.values()) < bound


def test_first_order_law_with_momentum_is_refused_and_would_be_wrong(relu):
    run = trained(relu, 300, lr=0.02, momentum=0.9, weight_decay=1e-3)
    with pytest.raises(LawError, match=r"momentum = 0; this run has 0\.9: use the second-order law"):
        predict_charges(run, "first_order")
    with pytest.raises(LawError, match=r"this run has 0\.9"):
        nm_ode.solve_charges(run, "first_order")
    what = driven(run)
    # Why: told that there is no momentum, it misses by about as much as the charge moves.
    wrong = first_order(replace(what, hyperparameters={**what.hyperparameters, "momentum": 0.0}))[:-1]
    moved = np.abs(run["charge"] - run["charge"][0]).max("step").values
    assert (np.abs(wrong - run["charge"].values).max(0) / moved).min() > 0.7


def test_second_order_error_falls_with_the_learning_rate():
    # On the same forces, constant in time: error O(η), so half the η, half the error.
    errors = []
    for lr in (0.02, 0.01, 0.005):
        n = round(4 / lr)
        run, true = simulate(
            np.full(n, lr),
            momentum=0.9,
            dampening=0.0,
            weight_decay=0.3,
            nesterov=False,
            translation=True,
            signs=SIGNS["translation"],
        )
        errors.append(np.abs(second_order(run) - true)[n // 2 :].max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 0.9).all()


@pytest.mark.parametrize(
    ("momentum", "weight_decay", "regime"),
    [(0.9, 1e-3, "over"), (0.99, 0.5, "under"), (0.9, None, "critical")],
)
def test_translation_closed_form_in_all_damping_regimes(momentum, weight_decay, regime):
    lr, steps = 0.02, 400
    m = lr * (1 + momentum) / 2
    if weight_decay is None:
        weight_decay = (1 - momentum) ** 2 / (4 * m)  # γ² = ω²
    run, _ = simulate(
        np.full(steps, lr),
        momentum=momentum,
        dampening=0.0,
        weight_decay=weight_decay,
        nesterov=False,
        translation=True,
        signs=SIGNS["translation"],
    )
    m, b, kappa = oscillator(run, 0, translation=True)
    discriminant = (b / (2 * m)) ** 2 - kappa / m
    assert {"over": discriminant > 1, "under": discriminant < -1, "critical": abs(discriminant) < 1e-9}[
        regime
    ]
    t = lr * np.arange(steps + 1)
    closed, rate = translation_closed_form(t, run.start, np.zeros(1), m, b, kappa)
    # Against an independent integrator, and against the step-wise one.
    solved = solve_ivp(
        lambda t, y: [y[1], -(b * y[1] + kappa * y[0]) / m],
        (0, t[-1]),
        [run.start[0], 0.0],
        t_eval=t,
        method="DOP853",
        rtol=1e-12,
        atol=1e-14,
    )
    np.testing.assert_allclose(closed[:, 0], solved.y[0], atol=1e-9 * abs(run.start[0]))
    np.testing.assert_allclose(rate[:, 0], solved.y[1], atol=1e-9 * abs(run.start[0]) * b / m)
    np.testing.assert_allclose(closed, second_order(run, from_rest=True), atol=1e-10 * abs(run.start[0]))
    # It goes on from any state: from the middle on as from the start.
    half = steps // 2
    onwards, _ = translation_closed_form(t[: half + 1], closed[half], rate[half], m, b, kappa)
    np.testing.assert_allclose(onwards, closed[half:], atol=1e-10 * abs(run.start[0]))
    if regime == "under":
        assert (closed < 0).any() != (run.start[0] < 0)  # it swings through zero


def test_factors_decay_on_runs_where_growing_exponentials_would_overflow():
    n, decay = 20_000, 1.0
    run, true = simulate(
        np.full(n, 0.05),
        momentum=0.0,
        dampening=0.0,
        weight_decay=decay,
        nesterov=False,
        translation=False,
        signs=SIGNS["rescale"],
    )
    assert 2 * decay * 0.05 * n > np.log(np.finfo(float).max)  # e^{2λt} is not a number
    for law in (first_order, second_order):
        predicted = law(run)
        assert np.isfinite(predicted).all()
        assert np.abs(predicted - true).max() < 0.5 * np.abs(true - true[0]).max()


def test_a_law_is_compared_with_the_recorded_charges(relu):
    run = trained(relu, 100, lr=0.02, momentum=0.9, weight_decay=1e-3)
    prediction = predict_charges(run, "second_order")
    comparison = nm_ode.compare(run, prediction)
    assert comparison_info(comparison).law == "second_order"
    error = prediction["charge"].values - run["charge"].values
    motion = np.abs(run["charge"].values - run["charge"].values[0]).max(axis=0)
    np.testing.assert_allclose(comparison["charge_error"], error)
    np.testing.assert_allclose(comparison["charge_relative_error"], np.abs(error) / motion)
    first = run["charge_symmetry"].values == "rescale linear1 → linear2"
    away = np.linalg.norm((run["charge"].values - run["charge"].values[0])[:, first], axis=1).max()
    np.testing.assert_allclose(
        comparison["symmetry_relative_error"].sel(symmetry="rescale linear1 → linear2"),
        np.linalg.norm(error[:, first], axis=1) / away,
    )


def test_the_papers_start_from_rest_is_half_a_step_behind(relu):
    run = trained(relu, 300, lr=0.02, momentum=0.9, weight_decay=1e-2)
    gaps = [
        float(nm_ode.compare(run, law)["symmetry_relative_error"].sel(symmetry="translation linear3").max())
        for law in (
            predict_charges(run, "second_order"),
            predict_charges(run, "second_order", from_rest=True),
        )
    ]
    assert gaps[0] < 0.1 * gaps[1]
