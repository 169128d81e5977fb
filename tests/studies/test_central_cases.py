"""Central flows in case files, and what their networks need: a smooth pooling, squares of classes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nm_ode import Problem
from nm_ode.loss.nonsmooth import kinks
from nm_ode.models import cnn
from nm_ode.studies.losses import mse_one_hot


def test_the_squared_error_of_classes_is_that_to_one_hot_targets() -> None:
    output = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 3, 1, 1, 2])
    wanted = F.one_hot(target, 4).double()
    assert float(mse_one_hot(output, target)) == pytest.approx(float(F.mse_loss(output, wanted)), rel=1e-15)


@pytest.mark.parametrize(("pooling", "smooth"), [("max", False), ("average", True)])
def test_average_pooling_has_no_kinks(pooling: str, smooth: bool) -> None:
    model = cnn([2], activation="tanh", pooling=pooling)
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    problem = Problem(model, mse_one_hot, (x, torch.arange(4)))
    assert (not kinks(problem)) == smooth
