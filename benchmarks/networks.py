"""The problems that the benchmarks solve."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from nm_ode import Problem
from nm_ode.data import digits
from nm_ode.models import mlp


def progressive() -> Problem:
    """16-32-32-4 tanh, mean squared error, P = 1732, on digits 0 to 3 (720 samples), 16 principal components / 4."""
    data = digits()
    x = data.x - data.x.mean(dim=0)
    x = x @ torch.linalg.svd(x, full_matrices=False).Vh[:16].T / 4
    few = data.y < 4
    return Problem(mlp([16, 32, 32, 4], "tanh"), F.mse_loss, (x[few], F.one_hot(data.y[few], 4).double()))


def relu() -> Problem:
    """64-32-10 ReLU on 512 digits, cross-entropy, P = 2410."""
    data = digits(512)
    return Problem(mlp([64, 32, 10], "relu"), F.cross_entropy, (data.x, data.y))


def tanh() -> Problem:
    """64-32-10 tanh on 512 digits, cross-entropy, P = 2410."""
    data = digits(512)
    return Problem(mlp([64, 32, 10], "tanh"), F.cross_entropy, (data.x, data.y))


def wide(samples: int = 512) -> Problem:
    """64-1340-10 tanh on 512 digits, cross-entropy, P = 100 510."""
    data = digits(samples)
    return Problem(mlp([64, 1340, 10], "tanh"), F.cross_entropy, (data.x, data.y))


def tanh_squares(samples: int = 256, seed: int = 0) -> Problem:
    """64-32-10 tanh on 256 digits, mean squared error to one-hot targets, P = 2410."""
    data = digits(samples)
    targets = F.one_hot(data.y, 10).double()
    return Problem(mlp([64, 32, 10], "tanh", seed=seed), F.mse_loss, (data.x, targets))
