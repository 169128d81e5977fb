"""Networks on digits whose charges several files of this folder predict."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import nm_ode
from nm_ode.data import digits
from nm_ode.models import mlp, vit


def problem_of(model: torch.nn.Module, image: bool = False, samples: int = 512) -> nm_ode.Problem:
    data = digits(samples)
    return nm_ode.Problem(model, F.cross_entropy, (data.x.reshape(-1, 1, 8, 8) if image else data.x, data.y))


@pytest.fixture(scope="session")
def relu() -> nm_ode.Problem:
    return problem_of(mlp([64, 32, 24, 10], "relu"))


@pytest.fixture(scope="session")
def batch_norm() -> nm_ode.Problem:
    return problem_of(mlp([64, 32, 24, 10], "relu", norm="batch"))


@pytest.fixture(scope="session")
def transformer() -> nm_ode.Problem:
    return problem_of(vit(dim=8, heads=2, hidden=12, depth=1, activation="relu"), image=True, samples=128)
