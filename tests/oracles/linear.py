"""Flows of a quadratic loss in closed form."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import expm
from torch import nn

from nm_ode import Problem


class Quadratic:
    """L(θ) = mean over samples of (x·w + b − y)², θ = (w, b): H = (2/n) X̃ᵀX̃ and a unique minimum θ*."""

    def __init__(self, x: np.ndarray, y: np.ndarray, weight_decay: float = 0.0) -> None:
        extended = np.hstack([x, np.ones((len(x), 1))])
        n, parameters = extended.shape
        self.hessian = 2 / n * extended.T @ extended + weight_decay * np.eye(parameters)
        self.minimum = np.linalg.solve(self.hessian, 2 / n * extended.T @ y.reshape(-1))

    def gradient_flow(self, theta0: np.ndarray, t: float) -> np.ndarray:
        return self.minimum + expm(-self.hessian * t) @ (theta0 - self.minimum)

    def modified_flow(self, theta0: np.ndarray, t: float, lr: float) -> np.ndarray:
        """θ̇ = −(I + (η/2)H) g."""
        matrix = self.hessian + lr / 2 * self.hessian @ self.hessian
        return self.minimum + expm(-matrix * t) @ (theta0 - self.minimum)

    def descent(self, theta0: np.ndarray, steps: int, lr: float) -> np.ndarray:
        step = np.eye(len(theta0)) - lr * self.hessian
        return self.minimum + np.linalg.matrix_power(step, steps) @ (theta0 - self.minimum)


def regression(size: int = 3) -> Problem:
    """Linear regression on noise: a quadratic loss."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, size, dtype=torch.float64, generator=generator)
    y = torch.randn(30, 1, dtype=torch.float64, generator=generator)
    return Problem(nn.Linear(size, 1), nn.functional.mse_loss, (x, y))
