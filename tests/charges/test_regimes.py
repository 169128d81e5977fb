"""Regimes of the second-order law: the numbers against the law's roots, and what they say against what SGD does."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

import nm_ode
from nm_ode.charges import Regime, regimes
from nm_ode.data import digits
from nm_ode.models import mlp
from nm_ode.optimizers.schedules import Drop


@pytest.fixture(scope="module")
def problem() -> nm_ode.Problem:
    data = digits(40)
    return nm_ode.Problem(mlp([64, 4, 10], "relu", seed=1), nn.functional.cross_entropy, (data.x, data.y))


@pytest.fixture(scope="module")
def observed(problem) -> nm_ode.Charges:
    return nm_ode.Charges(nm_ode.symmetries_of(problem))


def regime(
    weight_decay: float, momentum: float = 0.9, lr: float = 0.1, degree: int = 1, nesterov: bool = False
) -> Regime:
    """Of §3.3's and §3.5's coefficients."""
    friction = 1 - momentum + (degree * momentum * lr * weight_decay if nesterov else 0.0)
    return Regime(
        (0, 10), (0.0, 10 * lr), lr, momentum, weight_decay,
        m=lr * (1 + momentum) / 2, b=friction, kappa=degree * weight_decay, degree=degree, nesterov=nesterov,
    )  # fmt: skip


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [1e-6, 1e-3, 0.02, 0.3])
def test_the_rates_are_the_roots_of_the_law(degree: int, nesterov: bool, weight_decay: float) -> None:
    one = regime(weight_decay, degree=degree, nesterov=nesterov)
    roots = np.sort_complex(np.roots([one.m, one.b, one.kappa]))[::-1]
    swings = bool((roots.imag != 0).any())
    assert one.damping == ("underdamped" if swings else "overdamped")
    assert (one.damping_ratio < 1) == swings
    np.testing.assert_allclose(one.rates, -roots.real, rtol=1e-9)
    if swings:
        assert one.period == pytest.approx(2 * np.pi / abs(roots[0].imag), rel=1e-9)
    else:
        assert one.period == np.inf
    assert swings == (weight_decay > one.critical_weight_decay)


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("nesterov", [False, True])
def test_at_the_critical_weight_decay_damping_is_critical(degree: int, nesterov: bool) -> None:
    critical = regime(0.1, degree=degree, nesterov=nesterov).critical_weight_decay
    if not nesterov:
        assert critical == pytest.approx(0.1**2 / (2 * 0.1 * 1.9) / degree)
    there = regime(critical, degree=degree, nesterov=nesterov)
    assert there.damping == "critically damped"
    assert there.damping_ratio == pytest.approx(1)
    assert there.rates == pytest.approx((there.gamma, there.gamma))


def test_without_weight_decay_nothing_pulls_a_charge_back() -> None:
    one = regime(0.0)
    assert (one.damping, one.damping_ratio, one.period) == ("free", np.inf, np.inf)
    assert one.rates == pytest.approx((0.0, one.b / one.m))


def test_sgd_swings_where_the_law_is_underdamped_and_with_its_period(problem, observed) -> None:
    def translation(weight_decay: float) -> tuple[np.ndarray, Regime]:
        optimizer = nm_ode.SGD(lr=0.01, momentum=0.99, weight_decay=weight_decay)
        run = nm_ode.train(problem, optimizer, 400, observe=[observed])
        (one,) = regimes(run, "translation linear2")
        here = np.flatnonzero(run.charge_symmetry == "translation linear2")
        return run.charge.values[:, here], one

    charges, one = translation(0.3)
    assert one.damping == "underdamped"
    crossings = np.flatnonzero(np.diff(np.sign(charges[:, 0])))[:6]
    assert len(crossings) == 6
    half = np.diff(crossings).mean() * 0.01
    assert half == pytest.approx(one.period / 2, rel=0.02)
    charges, one = translation(1e-4)
    assert one.damping == "overdamped"
    assert (np.sign(charges) == np.sign(charges[:1])).all()


def test_each_stretch_of_a_schedule_has_its_own(problem, observed) -> None:
    optimizer = nm_ode.SGD(lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.1)
    run = nm_ode.train(problem, optimizer, 12, schedule=Drop((5,), 0.1), observe=[observed])
    first, last = regimes(run, "translation linear2")
    assert (first.steps, last.steps) == ((0, 5), (5, 12))
    assert first.times == pytest.approx((0.0, 0.25))
    assert last.times == pytest.approx((0.25, 0.285))
    assert (first.m, first.b, first.kappa) == pytest.approx((0.05 * 0.95, 0.1, 0.1))
    assert (last.lr, last.m) == pytest.approx((0.01, 0.005 * 0.95))
    (quadratic, _) = regimes(run, "rescale linear1 → linear2")
    assert quadratic.kappa == pytest.approx(0.2)
    assert quadratic.critical_weight_decay == pytest.approx(first.critical_weight_decay / 2)


def test_records_at_some_steps_are_enough(problem, observed) -> None:
    optimizer = nm_ode.SGD(lr=0.1, momentum=0.9, weight_decay=0.1)
    schedule = Drop((5,), 0.1)
    every = nm_ode.train(problem, optimizer, 12, schedule=schedule, observe=[observed])
    some = nm_ode.Charges(observed.symmetries, every=3, laws=["second_order"])
    few = nm_ode.train(problem, optimizer, 12, schedule=schedule, observe=[some])
    assert regimes(few, "translation linear2") == regimes(every, "translation linear2")


def test_settings_that_changed_at_an_unknown_step_are_refused(problem, observed) -> None:
    some = nm_ode.Charges(observed.symmetries, every=3, laws=["second_order"])
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1, momentum=0.9), 12, observe=[some])
    values = run.sgd_settings.values.copy()
    values[-1, 2] = 0.1
    changed = run.assign(sgd_settings=(run.sgd_settings.dims, values))
    with pytest.raises(nm_ode.LawError, match="between two records"):
        regimes(changed, "translation linear2")


def test_what_has_no_regime_is_refused(problem, observed) -> None:
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 3, observe=[observed])
    with pytest.raises(nm_ode.ArgumentError, match=r"'scale head'.*translation linear2"):
        regimes(run, "scale head")
    with pytest.raises(nm_ode.LawError, match="no charges"):
        regimes(nm_ode.train(problem, nm_ode.SGD(lr=0.1), 3), "translation linear2")
    adam = nm_ode.train(problem, nm_ode.Adam(lr=1e-3), 3, observe=[observed])
    with pytest.raises(nm_ode.LawError, match="Adam"):
        regimes(adam, "translation linear2")
