"""Some samples of data whose batches hold more than samples, and samples that cannot be taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nm_ode import Problem
from nm_ode.data import DataError, DatasetSource


class _Labelled(torch.utils.data.Dataset):
    """Items with a text and a constant beside the samples."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"x": self.x[i], "y": self.y[i], "file": f"{i}.png"}


def test_a_subset_of_batches_that_hold_more_than_samples_is_read_again() -> None:
    x, y = torch.randn(10, 3), torch.randn(10, 1)
    model = nn.Linear(3, 1)
    plain = Problem(model, nn.functional.mse_loss, (x, y))
    labelled = Problem.from_objective(
        model, lambda model, b: nn.functional.mse_loss(model(b["x"]), b["y"]), _Labelled(x, y), chunk_size=5
    )
    few = torch.tensor([7, 1, 4])
    torch.testing.assert_close(
        labelled.subset(few).grad(plain.theta0), plain.subset(few).grad(plain.theta0), rtol=1e-14, atol=1e-15
    )


def test_batches_with_time_before_samples_keep_their_count_of_samples() -> None:
    x = torch.randn(9, 4, 2)  # samples, time, features

    def time_first(items: list[Tensor]) -> Tensor:
        return torch.stack(items, dim=1)

    model = nn.Linear(2, 1)
    plain = Problem.from_objective(model, lambda model, b: model(b).square().mean(), x)
    turned = Problem.from_objective(
        model, lambda model, b: model(b).square().mean(), DatasetSource(list(x), time_first), chunk_size=3
    )
    few = torch.tensor([8, 0, 5])
    assert turned.subset(few).n_samples == 3
    torch.testing.assert_close(
        turned.subset(few).grad(plain.theta0), plain.grad(plain.theta0, few), rtol=1e-14, atol=1e-15
    )


@pytest.mark.parametrize(
    "samples", [[0.5, 1], "all", torch.ones(9, dtype=torch.bool), torch.tensor(2), 3, [20], np.array([-21])]
)
def test_samples_that_are_no_index_vector_or_mask_are_named(tiny: Problem, samples: Any) -> None:
    with pytest.raises(DataError, match="samples: "):
        tiny.loss(tiny.theta0, samples)
