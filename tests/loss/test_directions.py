"""Random directions: the same with one seed, in each parameter of its own size."""

from __future__ import annotations

import torch
from torch import nn

from nm_ode.loss.directions import normal, scale
from nm_ode.parameters import Layout


def test_one_seed_gives_one_direction_whatever_the_dtype() -> None:
    single, double = torch.zeros(100, dtype=torch.float32), torch.zeros(100, dtype=torch.float64)
    assert torch.equal(normal(single, 3), normal(double, 3).float())
    assert not torch.equal(normal(double, 3), normal(double, 4))
    stream = torch.Generator("cpu").manual_seed(3)
    assert torch.equal(normal(double, stream), normal(double, 3))
    assert not torch.equal(normal(double, stream), normal(double, 3))


def test_each_parameter_has_its_own_size_and_zeros_that_of_all() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1)).double()
    theta = torch.tensor([3.0, -4.0, 0.0, 0.5, 0.0], dtype=torch.float64)
    found = scale(torch.ones_like(theta), theta, Layout.of(model))
    overall = (theta.square().sum() / 5).sqrt()
    expected = torch.stack(
        [torch.tensor(12.5, dtype=torch.float64).sqrt()] * 2 + [overall, theta[3], overall]
    )
    torch.testing.assert_close(found, expected)
    ones = torch.ones_like(theta)
    assert torch.equal(scale(ones.clone(), torch.zeros_like(theta), Layout.of(model)), ones)
    assert torch.equal(scale(ones.clone(), theta, Layout.of(model), least=100.0), 100 * ones)
