"""What several files of this folder solve with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch import nn

from bridges.julia.engine import using_backend
from nm_ode import Problem
from nm_ode.data import digits
from nm_ode.models import mlp


@pytest.fixture
def stand_in() -> Iterator[None]:
    """SciPy in the Julia engine's worker."""
    with using_backend("tests.bridges.stand_in:StandIn"):
        yield


@pytest.fixture(scope="module")
def relu_digits() -> Problem:
    data = digits(128)
    return Problem(mlp([64, 16, 10], "relu"), nn.functional.cross_entropy, (data.x, data.y))
