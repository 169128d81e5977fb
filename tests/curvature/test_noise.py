"""Gradient noise: estimators against what they estimate, and along loops against gradients one by one."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Noise
from nm_ode.loss.noise_scale import noise_scale
from nm_ode.models import mlp
from nm_ode.parameters import Layout
from tests.curvature.loops import assert_same, loop, probe
from tests.curvature.test_products import Messy
from tests.oracles.as_found import seen

TOTAL = -1


def loss_of(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def drawn(expected: torch.Tensor, deviations: torch.Tensor, parts: int, size: int, seed: int):
    """Gradients of parts of one layer after the other, each entry with its own standard deviation."""
    source = torch.Generator().manual_seed(seed)
    noise = torch.randn(parts, size, len(expected), generator=source, dtype=torch.float64) * deviations
    return expected + noise.mean(dim=1)


@pytest.mark.parametrize(("parts", "size"), [(5, 1), (12, 4), (40, 2)])
def test_estimators_are_unbiased_and_their_errors_are_their_spread(parts: int, size: int) -> None:
    expected = torch.linspace(0.2, 1, 30, dtype=torch.float64)
    deviations = torch.linspace(0.5, 1.5, 30, dtype=torch.float64)
    layout = Layout.of_parameters(
        {"a.weight": torch.zeros(4, 5), "a.bias": torch.zeros(4), "b": torch.zeros(6)}
    )
    exact_trace = torch.stack([one.square().sum() for one in (deviations[:24], deviations[24:], deviations)])
    exact_signal = torch.stack([one.square().sum() for one in (expected[:24], expected[24:], expected)])
    found = []
    for seed in range(300):
        rows = drawn(expected, deviations, parts, size, seed)
        found.append(noise_scale(lambda rows=rows: iter(rows), layout, parts, size))
    for name, exact in (("trace", exact_trace), ("signal", exact_signal)):
        values = torch.stack([getattr(one, name).value for one in found])
        errors = torch.stack([getattr(one, name).error for one in found])
        assert ((values.mean(0) - exact).abs() < 4 * values.std(0) / 300**0.5).all(), name
        torch.testing.assert_close(errors.square().mean(0).sqrt(), values.std(0), rtol=0.3, atol=0)
    if parts > 5:
        for name, exact in (("scale", exact_trace / exact_signal), ("snr", exact_signal / exact_trace)):
            values = torch.stack([getattr(one, name).value for one in found])
            errors = torch.stack([getattr(one, name).error for one in found])
            assert (values.median(0).values / exact - 1).abs().max() < 0.15
            torch.testing.assert_close(errors.median(0).values, values.std(0), rtol=0.5, atol=0)


def test_of_95_percent_intervals_95_percent_hold_noise_and_signal() -> None:
    """With 1.96 for Student's t of 7 degrees, 2.365, it is 90 %."""
    expected = torch.linspace(0.2, 1, 30, dtype=torch.float64)
    deviations = torch.linspace(0.5, 1.5, 30, dtype=torch.float64)
    layout = Layout.of_parameters({"w": torch.zeros(30)})
    rows = [drawn(expected, deviations, 8, 4, seed) for seed in range(400)]
    found = [noise_scale(lambda part=part: iter(part), layout, 8, 4) for part in rows]
    trace, signal = float(deviations.square().sum()), float(expected.square().sum())
    for name, exact in (("trace", trace), ("signal", signal), ("snr", signal / trace)):
        values = torch.stack([getattr(one, name).value[TOTAL] for one in found])
        errors = torch.stack([getattr(one, name).error[TOTAL] for one in found])
        held = ((values - exact).abs() <= 2.365 * errors).double().mean()
        assert 0.91 <= float(held) <= 0.99, name


def test_jackknife_errors_are_those_of_leaving_parts_out() -> None:
    layout = Layout.of_parameters({"w": torch.zeros(7)})
    rows = drawn(torch.ones(7).double(), torch.ones(7).double(), 9, 2, 0)
    found = noise_scale(lambda: iter(rows), layout, 9, 2)
    for name in ("trace", "signal", "snr", "scale"):
        without = []
        for i in range(9):
            rest = torch.cat([rows[:i], rows[i + 1 :]])
            without.append(getattr(noise_scale(lambda rest=rest: iter(rest), layout, 8, 2), name).value)
        without = torch.stack(without)
        expected = (8 / 9 * (without - without.mean(0)).square().sum(0)).sqrt()
        torch.testing.assert_close(getattr(found, name).error, expected)


def test_a_signal_that_the_noise_hides_is_said_not_invented() -> None:
    layout = Layout.of_parameters({"w": torch.zeros(50)})
    rows = drawn(torch.zeros(50).double(), torch.ones(50).double(), 8, 1, 1)
    rows -= 0.9 * rows.mean(dim=0)
    found = noise_scale(lambda: iter(rows), layout, 8, 1)
    assert float(found.signal.value[TOTAL]) < 0
    assert math.isnan(float(found.scale.value[TOTAL]))
    assert float(found.snr.value[TOTAL]) < 0


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("parts", [None, 6])
def test_along_a_loop_it_is_what_gradients_one_by_one_say(reduction: str, parts: int | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.randn(24, 4, dtype=torch.float64), torch.randint(0, 3, (24,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def loss(out, y):
        return F.cross_entropy(out, y, reduction=reduction)

    kept = []
    noise = Noise(loss_fn=loss, batch=(x, y), every=2, parts=parts)
    with nm_ode.Recorder(model, optimizer, observe=[noise]) as recorder:
        for _ in range(5):
            kept.append(copy.deepcopy(model))
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
    run = recorder.run
    assert run["noise_step"].values.tolist() == [0, 2, 4]
    assert run["noise_scale"].attrs["units"] == "samples"
    n = 24 if parts is None else parts
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    for i, then in enumerate(kept[::2]):
        gradients = []
        for part in order.split(24 // n):
            then.zero_grad()
            F.cross_entropy(then(x[part]), y[part]).backward()
            gradients.append(torch.cat([p.grad.reshape(-1) for p in then.parameters()]))
        rows = torch.stack(gradients)
        trace = 24 / n * float(torch.cov(rows.T).trace())
        signal = float(rows.mean(0).square().sum()) - trace / 24
        at = run.isel(noise_step=i)
        assert float(at["noise_trace"]) == pytest.approx(trace, rel=1e-10)
        assert float(at["noise_signal"]) == pytest.approx(signal, rel=1e-9)
        assert float(at["noise_snr"]) == pytest.approx(signal / trace, rel=1e-9)
        if signal > 0:
            assert float(at["noise_scale"]) == pytest.approx(trace / signal, rel=1e-9)
        of_layers = [
            24 / n * float(torch.cov(rows[:, part].T).trace()) for part in (slice(25), slice(25, 43))
        ]
        np.testing.assert_allclose(at["layer_noise_trace"], of_layers, rtol=1e-10)
        assert run["layer"].values.tolist() == ["0", "2"]
        assert float(at["noise_additivity"]) < 1e-12


def test_a_loop_is_the_same_bit_for_bit_with_and_without() -> None:
    watched = loop([Noise(loss_of, probe(), every=10, parts=4)])
    assert_same(watched, loop(None))
    run = watched[3]
    assert (run["noise_trace"] > 0).all()
    assert (run["noise_additivity"] > 1e-4).all()  # the statistics of a batch, and dropout
    evaluated = loop([Noise(loss_of, probe(), every=10, parts=4, mode="eval")], steps=11)[3]
    assert (evaluated["noise_additivity"] < 1e-5).all()


def test_dropout_is_part_of_the_noise() -> None:
    """Of a linear loss w·mask(x): the gradient's variance is that of the mask alone where all samples are the same."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(40, 1, bias=False)).double()
    x = torch.ones(2000, 40, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    noise = Noise(lambda model, batch: model(batch).mean(), x, every=1, parts=100)
    with nm_ode.Recorder(model, optimizer, observe=[noise]) as recorder:
        for _ in range(2):
            model[1].weight.grad = torch.zeros_like(model[1].weight)
            optimizer.step()
    run = recorder.run
    distance = np.abs(run["noise_trace"] - 40.0)  # each entry of mask/(1 − p) is 0 or 2
    assert (distance < 5 * run["noise_trace_error"]).all()
    assert float(run["noise_trace"][0]) != float(run["noise_trace"][1])  # other masks at each step


def test_what_draws_counts_and_keeps_is_left_as_it_was_found() -> None:
    torch.manual_seed(3)
    model = Messy()
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    F.cross_entropy(model(x), y).backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with nm_ode.Recorder(model, optimizer, observe=[Noise(loss_of, (x, y), every=1, parts=4)]) as recorder:
        before = seen(model)
        optimizer.step()
        assert seen(model) == before
    assert float(recorder.run["noise_trace"][0]) > 0


def test_train_has_it_too() -> None:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, dtype=torch.float64, generator=source)
    y = torch.randint(0, 3, (60,), generator=source)
    problem = nm_ode.Problem(mlp([6, 8, 3], "relu", seed=2), F.cross_entropy, (x, y))
    runs = [
        nm_ode.train(problem, nm_ode.SGD(lr=0.1), 5, observe=[noise], save_every=1)
        for noise in (
            Noise(every=2, samples=30, parts=None),
            Noise(loss_of, problem.batch(), every=2, parts=None),
        )
    ]
    rows = problem.sample_grads(problem.theta0)
    assert float(runs[1]["noise_trace"][0]) == pytest.approx(float(torch.cov(rows.T).trace()), rel=1e-9)
    chosen = rows[torch.linspace(0, 59, 30).round().long()]
    assert float(runs[0]["noise_trace"][0]) == pytest.approx(float(torch.cov(chosen.T).trace()), rel=1e-9)
    alone = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 5, save_every=1)
    np.testing.assert_array_equal(alone["theta"], runs[0]["theta"])


def test_what_is_asked_is_checked() -> None:
    model, x = nn.Linear(4, 3), torch.randn(10, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def begin(noise: Noise):
        nm_ode.Recorder(model, optimizer, observe=[noise]).__enter__()

    for options, told in (
        ({"objective": loss_of}, "batch"),
        ({"parts": 2}, "parts"),
        ({"mode": "test"}, "mode"),
        ({"every": 0}, "every"),
    ):
        with pytest.raises(nm_ode.ArgumentError, match=told):
            Noise(**options)
    for batch, told in (((x, x[:5]), "as many in each"), ((x, x), "4 equal parts"), ({"a": 1}, "samples")):
        with pytest.raises(nm_ode.ArgumentError, match=told):
            begin(Noise(loss_of, batch, parts=4))
    with pytest.raises(nm_ode.ArgumentError, match="objective"):
        begin(Noise())
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    y = torch.randint(0, 3, (10,))
    with nm_ode.Recorder(model, optimizer, observe=[Noise(loss_of, (x, y), parts=None)]):
        F.cross_entropy(model(x), y).backward()
        with pytest.raises(nm_ode.ProblemError, match="statistics"):
            optimizer.step()
