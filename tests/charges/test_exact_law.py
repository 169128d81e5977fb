"""The exact law of motion: to rounding on any run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import nm_ode
from nm_ode.charges import driven, predict_charges
from nm_ode.charges.exact import exact
from nm_ode.data import digits, sample_batches
from nm_ode.observers import Charges
from nm_ode.optimizers import Cosine, Drop, Warmup
from nm_ode.symmetries import ChargeMeter, symmetries_of
from tests.oracles.charged import SIGNS, simulate
from tests.oracles.charged_runs import trained


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
    assert float((closure / run["generator_norm"].max("step") ** 2).max()) < 1e-5  # docs/theory.md: 5e-6


def test_recorded_charges_are_those_of_theta(relu):
    symmetries = symmetries_of(relu)
    run = nm_ode.train(relu, nm_ode.SGD(lr=0.05, momentum=0.9), 6, observe=[Charges(symmetries)])
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
    run = nm_ode.train(batch_norm, nm_ode.SGD(lr=lr), steps, batch_size=64, observe=[Charges(symmetries)])
    layout, epsilon = batch_norm.layout, batch_norm.model.norm1.eps
    predicted = np.zeros(32)
    batches = sample_batches(batch_norm.n_samples, 64, 0)
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
