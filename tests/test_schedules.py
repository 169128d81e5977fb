"""Learning-rate schedules: against torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nm_ode
from nm_ode.models import mlp
from nm_ode.optimizers.schedules import Constant, Cosine, Drop, Warmup

STEPS = 40


def torchs(make, steps: int = STEPS, lr: float = 0.3) -> np.ndarray:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(found) / lr


lr_scheduler = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (Drop((10, 25), 0.1), lambda o: lr_scheduler.MultiStepLR(o, [10, 25], 0.1)),
        (Warmup(8), lambda o: lr_scheduler.LinearLR(o, 1 / 8, 1.0, total_iters=7)),
        (Cosine(0.05), lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.05 * 0.3)),
        (Constant(), lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_factors_are_those_of_torchs_schedulers(schedule, make):
    np.testing.assert_allclose(schedule.factors(STEPS), torchs(make), rtol=1e-12)


def test_a_cosine_after_a_warm_up_is_continuous_and_ends_low():
    factors = Cosine(0.1, warmup=10).factors(100)
    assert factors[9] == factors[10] == 1.0
    assert np.abs(np.diff(factors)).max() <= 0.1 + 1e-12
    assert 0.1 < factors[-1] < 0.102


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Drop((5, 5)), "must be positive and increase"),
        (lambda: Drop((0,)), "must be positive and increase"),
        (lambda: Drop((5,), 0.0), "must be a positive number"),
        (lambda: Warmup(0), "at least one step"),
        (lambda: Cosine(0.0), r"must lie in \(0, 1\]"),
        (lambda: Cosine(warmup=-1), "must be 0 or more"),
    ],
)
def test_what_is_no_schedule_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_training_follows_the_schedule_and_flow_time_adds_up():
    model = mlp([4, 3, 2])
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.randint(2, (8,))
    problem = nm_ode.Problem(model, torch.nn.functional.cross_entropy, (x, y))
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.2), 10, schedule=Drop((4,), 0.5))
    assert run["lr"].values.tolist() == [0.2] * 4 + [0.1] * 6
    np.testing.assert_allclose(run["saved_time"], [0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4])
    theta = problem.theta0
    for lr in run["lr"].values:
        theta = theta - lr * problem.grad(theta)
    np.testing.assert_allclose(run["theta"][-1], theta, atol=1e-14)
