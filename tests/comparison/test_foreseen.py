"""The jump off the flow: foreseen from the curvature, and seen, where both are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from nm_ode import SGD, Drop, Problem, RMSprop, train
from nm_ode.comparison import NotForeseen, jump, with_jump
from nm_ode.observers import Curvature


class Valley(nn.Module):
    """L = (1 + y)x²/2 − by + cy²/2: along x the curvature is 1 + y, which grows on the path x = 0."""

    def __init__(self, x: float, y: float, b: float, c: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([x, y], dtype=torch.float64))
        self.b, self.c = b, c

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        x, y = self.theta
        return (1 + y) * x**2 / 2 - self.b * y + self.c * y**2 / 2


def valley(x: float, y: float, b: float, c: float) -> Problem:
    return Problem(Valley(x, y, b, c), lambda out, _: out, (torch.zeros(1, 1), torch.zeros(1)))


def left_at(run: xr.Dataset, edge: int, b: float, c: float) -> int:
    """The step before which |x| is √(2(b − cy)), y as it is while x is small."""
    x, y = np.abs(run["theta"].values.T)
    last = edge + int(np.flatnonzero(x[edge:] > 1e-3)[0])
    return edge + int(np.flatnonzero(x[edge:] >= np.sqrt(2 * (b - c * y[last])))[0])


CASES = {
    "plain": (SGD(lr=0.5), 1.5, 0.45, 0.1, 110),
    "heavy ball": (SGD(lr=0.2, momentum=0.9), 15.0, 0.1, 0.002, 80),
    "nesterov": (SGD(lr=0.2, momentum=0.6, nesterov=True), 5.0, 0.3, 0.025, 90),
}


@pytest.mark.parametrize(("optimizer", "y", "b", "c", "steps"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("points", [21, 9])
def test_foreseen_is_seen(optimizer: SGD, y: float, b: float, c: float, steps: int, points: int) -> None:
    run = train(valley(1e-12, y, b, c), optimizer, steps, observe=[Curvature(points)])
    share, limit = optimizer.stability.step, optimizer.stability.limit
    edge = int(np.flatnonzero(share * (1 + run["theta"].values[:, 1]) > limit)[0])
    exact = left_at(run, edge, b, c)
    assert edge + 30 < exact < steps - 2
    found = jump(run, run["lr"].values)
    assert found.why_not is None
    assert abs(found.foreseen - exact) <= 2
    assert abs(found.seen - exact) <= 2


def test_the_growth_is_exact() -> None:
    """As long as the oscillation is small, it is the product of |1 − η(1 + y)| over the steps."""
    run = train(valley(1e-12, 1.5, 0.45, 0.1), SGD(lr=0.5), 30, observe=[Curvature(31)])
    found = with_jump(run, run["lr"].values)
    x, y = run["theta"].values.T
    product = 1e-12 * np.cumprod(np.append(1.0, np.abs(1 - 0.5 * (1 + y[:-1]))))
    foreseen, at = found["foreseen_oscillation"].values, found["curvature_step"].values
    quiet = np.abs(x[at]) < 1e-6
    assert quiet.sum() > 20
    np.testing.assert_allclose(foreseen[quiet], product[at][quiet], rtol=0.05)
    assert {"foreseen_step", "seen_step"} <= set(found.data_vars)
    assert all(
        found[name].attrs["long_name"] for name in ("foreseen_oscillation", "foreseen_step", "seen_step")
    )


def test_none_below_the_limit() -> None:
    run = train(valley(1e-12, 1.0, 0.25, 0.1), SGD(lr=0.5), 40, observe=[Curvature(41)])
    assert jump(run, run["lr"].values) is None
    found = with_jump(run, run["lr"].values)
    assert all(np.isnan(found[name]).all() for name in ("foreseen_oscillation", "foreseen_step", "seen_step"))


def test_a_rate_that_drops_in_time_keeps_it_small() -> None:
    run = train(
        valley(1e-12, 1.5, 0.45, 0.1), SGD(lr=0.5), 120, observe=[Curvature(40)], schedule=Drop((50,), 0.3)
    )
    found = jump(run, run["lr"].values)
    assert (found.foreseen, found.seen, found.why_not) == (None, None, NotForeseen.TOO_SMALL)


def test_under_a_preconditioner() -> None:
    """Along x RMSProp has D = √ν + ε, and ν, begun as 0, grows by the oscillation alone."""
    run = train(
        valley(1e-12, 1.5, 0.6, 0.1), RMSprop(lr=0.5, alpha=0.9, eps=1.0), 110, observe=[Curvature(23)]
    )
    found = jump(run, run["lr"].values)
    x = np.abs(run["theta"].values[:, 0])
    exact = found.edge + int(np.flatnonzero(x[found.edge :] >= found.size)[0])
    assert found.edge + 30 < exact
    assert abs(found.seen - exact) <= 2
    assert abs(found.foreseen - exact) <= 2


def test_where_the_growth_is_not_known_it_is_said() -> None:
    run = train(valley(1e-12, 1.5, 0.45, 0.1), SGD(lr=0.5), 30, observe=[Curvature(5)])
    run = run.drop_vars("growth_momentum")
    assert jump(run, run["lr"].values).why_not is NotForeseen.NOT_RECORDED
    assert with_jump(run, run["lr"].values) is run
