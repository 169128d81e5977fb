"""The laws of motion: exact to rounding on any run, the continuous ones as good as THEORY.md §3 says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch.nn import functional as F

import nm_ode
from bridges import EngineError
from nm_ode.charges.laws import (
    LawError,
    driven,
    exact,
    first_order,
    oscillator,
    predict_charges,
    second_order,
    translation_closed_form,
)
from nm_ode.data import digits
from nm_ode.models import mlp, vit
from nm_ode.optimizers.schedules import Cosine, Drop, Warmup
from nm_ode.symmetries import ChargeMeter, symmetries_of
from tests.oracles.charged import simulate

SIGNS = {"scale": np.ones(6), "rescale": np.array([1.0, 1, 1, 1, -1, -1]), "translation": np.ones(6)}


def problem_of(model: torch.nn.Module, image: bool = False, samples: int = 512) -> nm_ode.Problem:
    data = digits(samples)
    return nm_ode.Problem(model, F.cross_entropy, (data.x.reshape(-1, 1, 8, 8) if image else data.x, data.y))


def trained(problem: nm_ode.Problem, steps: int, schedule=None, **sgd: object) -> xr.Dataset:
    return nm_ode.train(
        problem,
        nm_ode.SGD(**sgd),
        steps,
        batch_size=64,
        schedule=schedule,
        symmetries=symmetries_of(problem),
        save_every=steps,
    )


@pytest.fixture(scope="module")
def relu() -> nm_ode.Problem:
    return problem_of(mlp([64, 32, 24, 10], "relu"))


@pytest.fixture(scope="module")
def batch_norm() -> nm_ode.Problem:
    return problem_of(mlp([64, 32, 24, 10], "relu", norm="batch"))


@pytest.fixture(scope="module")
def transformer() -> nm_ode.Problem:
    return problem_of(vit(dim=8, heads=2, hidden=12, depth=1, activation="relu"), image=True, samples=128)


# The exact law


@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(sorted(SIGNS)),
    momentum=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    dampening=st.sampled_from([0.0, 0.1, 0.5]),
    weight_decay=st.sampled_from([0.0, 1e-4, 0.1]),
    nesterov=st.booleans(),
    lrs=st.lists(st.floats(1e-4, 0.1), min_size=1, max_size=30),
)
def test_exact_law_of_any_optimiser(seed, kind, momentum, dampening, weight_decay, nesterov, lrs):
    nesterov = nesterov and momentum > 0 and dampening == 0
    run, true = simulate(
        np.array(lrs),
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
        nesterov=nesterov,
        translation=kind == "translation",
        signs=SIGNS[kind],
        seed=seed,
    )
    np.testing.assert_allclose(exact(run), true, rtol=1e-11, atol=1e-11 * (1 + np.abs(run.driver).max()))


@pytest.mark.parametrize(
    ("sgd", "schedule"),
    [
        ({"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3}, None),
        ({"lr": 0.02, "momentum": 0.9, "dampening": 0.5, "weight_decay": 1e-3}, None),
        ({"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": True}, None),
        ({"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3}, Drop((250,), 0.1)),
        ({"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": True}, Cosine(0.01, warmup=50)),
        ({"lr": 0.05}, Warmup(100)),
    ],
    ids=["heavy ball", "dampening", "nesterov", "drop", "nesterov, cosine", "plain, warm-up"],
)
@pytest.mark.parametrize("network", ["relu", "batch_norm", "transformer"])
def test_exact_law_closes_on_minibatch_runs(network, sgd, schedule, request):
    problem = request.getfixturevalue(network)
    run = trained(problem, 500 if network != "transformer" else 100, schedule, **sgd)
    # What a normalisation's ε adds is recorded, and acts.
    predicted = predict_charges(run, "exact", with_residual=True)
    scale = np.maximum(run["generator_norm"].max("step") ** 2, np.abs(run["charge"]).max("step"))
    closure = np.abs(predicted["charge"] - run["charge"]).max("step") / scale
    assert float(closure.max()) < 1e-12
    moved = np.abs(run["charge"] - run["charge"][0]).max("step") / scale
    assert float(moved.max()) > 1e-4  # there was something to predict


def test_exact_law_in_float32(relu):
    data = digits(512)
    problem = nm_ode.Problem(relu.model, F.cross_entropy, (data.x, data.y), dtype=torch.float32)
    run = trained(problem, 500, lr=0.02, momentum=0.9, weight_decay=1e-3)
    closure = np.abs(predict_charges(run, "exact")["charge"] - run["charge"])
    assert float((closure / run["generator_norm"].max("step") ** 2).max()) < 1e-5  # THEORY.md: 5e-6


def test_recorded_charges_are_those_of_theta(relu):
    symmetries = symmetries_of(relu)
    run = nm_ode.train(relu, nm_ode.SGD(lr=0.05, momentum=0.9), 6, symmetries=symmetries)
    meter = ChargeMeter(relu.layout, symmetries)
    of_theta = torch.stack([meter.charge(theta) for theta in torch.from_numpy(run["theta"].values)]).numpy()
    np.testing.assert_allclose(run["saved_charge"], of_theta, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(run["charge"], of_theta[:-1], rtol=1e-13, atol=1e-14)
    updates = torch.from_numpy(np.diff(run["theta"].values, axis=0)) / 0.05
    drivers = torch.stack([meter.bracket(u, u) for u in updates]).numpy()
    np.testing.assert_allclose(run["charge_driver"], drivers, rtol=1e-10, atol=1e-13)


def test_the_effect_of_batch_norms_epsilon_is_predicted(batch_norm):
    # Multiplying a channel's input by α changes its output by ε/(σ²+ε) · d log α, so with y = γx̂ + β
    # ⟨g, ξ⟩ = ε/(σ²+ε) · γ ∂L/∂γ. From that alone: how far off is the law that knows of no ε?
    steps, lr = 60, 0.02
    symmetries = [s for s in symmetries_of(batch_norm) if s.name == "scale linear1"]
    run = nm_ode.train(batch_norm, nm_ode.SGD(lr=lr), steps, batch_size=64, symmetries=symmetries)
    layout, epsilon = batch_norm.layout, batch_norm.model.norm1.eps
    predicted = np.zeros(32)
    batches = nm_ode.training.sample_batches(batch_norm.n_samples, 64, 0)
    for theta in torch.from_numpy(run["theta"].values[:steps]):
        samples = next(batches)
        gradient = batch_norm.grad(theta, samples)

        def part(vector, name):
            return vector[layout[name].slice].reshape(layout[name].shape)

        h = batch_norm.x[samples] @ part(theta, "linear1.weight").T + part(theta, "linear1.bias")
        share = epsilon / (h.var(0, correction=0) + epsilon)
        predicted -= 2 * lr * (share * part(theta, "norm1.weight") * part(gradient, "norm1.weight")).numpy()
    gap = run["saved_charge"].values[-1] - exact(driven(run))[-1]
    large = np.abs(gap) > 1e-8
    assert large.sum() > 16
    ratio = gap[large] / predicted[large]
    assert ((ratio > 0.5) & (ratio < 2.0)).all()


# The continuous laws


def relative_errors(run: xr.Dataset, law: str) -> dict[str, float]:
    comparison = nm_ode.compare(run, predict_charges(run, law))
    worst = comparison["family_relative_error"].max("step")
    return {str(name): float(value) for name, value in zip(worst["family"].values, worst.values, strict=True)}


def test_first_order_law_without_momentum(relu):
    run = trained(relu, 1000, lr=0.05, weight_decay=1e-3)
    assert max(relative_errors(run, "first_order").values()) < 9e-5  # THEORY.md §3


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
    assert max(relative_errors(run, "second_order").values()) < (1e-2 if nesterov else 2e-3)


def test_first_order_law_with_momentum_is_refused_and_would_be_wrong(relu):
    run = trained(relu, 300, lr=0.02, momentum=0.9, weight_decay=1e-3)
    with pytest.raises(LawError, match=r"momentum = 0; this run has 0\.9: use the second-order law"):
        predict_charges(run, "first_order")
    with pytest.raises(LawError, match=r"this run has 0\.9"):
        nm_ode.solve_charges(run, "first_order")
    # Why: told that there is no momentum, it misses by about as much as the charge moves.
    wrong = first_order(replace(driven(run), momentum=0.0))[:-1]
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


@pytest.mark.parametrize(
    ("engine", "method", "accuracy"), [("scipy", "DOP853", 1e-6), ("sundials", "BDF", 1e-4)]
)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_engine_solves_the_same_law(relu, engine, method, accuracy, momentum):
    run = trained(relu, 40, Drop((20,), 0.5), lr=0.02, momentum=momentum, weight_decay=1e-2)
    for law in ("second_order",) if momentum else ("second_order", "first_order"):
        solved = nm_ode.solve_charges(run, law, engine=engine, method=method, rtol=1e-9)
        expected = predict_charges(run, law)
        size = float(np.abs(expected["charge"] - expected["charge"][0]).max())
        np.testing.assert_allclose(solved["charge"], expected["charge"], rtol=0, atol=accuracy * size)
        assert solved.attrs["method"] == method
        assert solved.attrs["rhs_evaluations"] > 40


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_julia_is_given_the_whole_law_at_once(relu, momentum, monkeypatch):
    """With SciPy standing in for Julia: what crosses, and what comes back, is the same law."""
    monkeypatch.setattr("bridges.julia.engine._default", "tests.bridges.stand_in:StandIn")
    run = trained(relu, 40, Drop((20,), 0.5), lr=0.02, momentum=momentum, weight_decay=1e-2)
    for law in ("second_order",) if momentum else ("second_order", "first_order"):
        solved = nm_ode.solve_charges(run, law, engine="diffeq", rtol=1e-10)
        expected = predict_charges(run, law)
        size = float(np.abs(expected["charge"] - expected["charge"][0]).max())
        np.testing.assert_allclose(solved["charge"], expected["charge"], rtol=0, atol=1e-7 * size)
        assert (solved.attrs["engine"], solved.attrs["method"]) == ("diffeq", "Vern7")


def test_auto_takes_what_fits_an_equation_that_is_not_stiff(relu):
    run = trained(relu, 5, lr=0.02, momentum=0.9, weight_decay=1e-2)
    assert nm_ode.solve_charges(run).attrs["method"] == "DOP853"
    with pytest.raises(EngineError, match="method goes with a named engine"):
        nm_ode.solve_charges(run, method="BDF")


def test_a_law_is_compared_with_the_recorded_charges(relu):
    run = trained(relu, 100, lr=0.02, momentum=0.9, weight_decay=1e-3)
    prediction = predict_charges(run, "second_order")
    comparison = nm_ode.compare(run, prediction)
    assert comparison.attrs["law"] == "second_order"
    error = prediction["charge"].values - run["charge"].values
    motion = np.abs(run["charge"].values - run["charge"].values[0]).max(axis=0)
    np.testing.assert_allclose(comparison["charge_error"], error)
    np.testing.assert_allclose(comparison["charge_relative_error"], np.abs(error) / motion)
    first = run["symmetry"].values == "rescale linear1 → linear2"
    away = np.linalg.norm((run["charge"].values - run["charge"].values[0])[:, first], axis=1).max()
    np.testing.assert_allclose(
        comparison["family_relative_error"].sel(family="rescale linear1 → linear2"),
        np.linalg.norm(error[:, first], axis=1) / away,
    )


@pytest.mark.parametrize(
    ("law", "options", "message"),
    [
        ("third_order", {}, "'third_order' was given"),
        ("second_order", {"with_residual": True}, "goes with law 'exact'"),
        ("exact", {"from_rest": True}, "goes with law 'second_order'"),
    ],
)
def test_laws_that_there_are_not(relu, law, options, message):
    run = trained(relu, 2, lr=0.02)
    with pytest.raises(LawError, match=message):
        predict_charges(run, law, **options)


def test_the_papers_start_from_rest_is_half_a_step_behind(relu):
    run = trained(relu, 300, lr=0.02, momentum=0.9, weight_decay=1e-2)
    gaps = [
        float(nm_ode.compare(run, law)["family_relative_error"].sel(family="translation linear3").max())
        for law in (
            predict_charges(run, "second_order"),
            predict_charges(run, "second_order", from_rest=True),
        )
    ]
    assert gaps[0] < 0.1 * gaps[1]


def test_a_run_without_charges_is_named(relu):
    run = nm_ode.train(relu, nm_ode.SGD(lr=0.1), 2)
    with pytest.raises(LawError, match="train with symmetries="):
        predict_charges(run, "exact")
    with pytest.raises(LawError, match="is no differential equation"):
        nm_ode.solve_charges(run, "exact")
