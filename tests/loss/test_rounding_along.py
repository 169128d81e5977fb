"""Rounding along a direction, against roundings that were really made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nm_ode.loss.rounding import gradient_rounding_along, rounding_along


def test_of_theta_against_numbers_rounded_to_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(400, generator=generator, dtype=torch.float64)
    theta = torch.rand(4000, 400, generator=generator, dtype=torch.float64) * 1e-3 + 1.0
    errors = (theta.float().double() - theta) @ direction
    assert rounding_along(theta[0].float(), direction) == pytest.approx(float(errors.std()), rel=0.05)


class Noisy:
    """A problem of which only the gradient is asked: a smooth one and noise of a known size."""

    def __init__(self, noise: float) -> None:
        self.generator, self.noise = torch.Generator().manual_seed(0), noise

    def grad(self, theta: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(theta.shape, generator=self.generator, dtype=theta.dtype)
        return theta.sin() * 40 + self.noise * noise


def test_of_a_gradient_whose_noise_is_known() -> None:
    theta = torch.linspace(0.5, 1.5, 40, dtype=torch.float64)
    direction = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64)
    problem = Noisy(1e-9)
    found = [gradient_rounding_along(problem, theta, direction) for _ in range(100)]
    expected = 1e-9 * float(direction.norm())
    assert float(np.sqrt(np.mean(np.square(found)))) == pytest.approx(expected, rel=0.15)
