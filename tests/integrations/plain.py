"""What a Trainer does, as a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import nm_ode

from ..recorder.witness import Seen


def data() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    return [(torch.randn(4, generator=generator), torch.randn(2, generator=generator)) for _ in range(20)]


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def batches(size: int) -> list[tuple[Tensor, Tensor]]:
    pairs = [data()[i : i + size] for i in range(0, 20, size)]
    return [(torch.stack([x for x, _ in pair]), torch.stack([y for _, y in pair])) for pair in pairs]


def recorded_by_hand(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Any], Tensor],
    micro_batches: Sequence[Any],
    accumulate: int,
    clip: float,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> xr.Dataset:
    with nm_ode.Recorder(model, optimizer, observe=[Seen()], save_every=2) as recorder:
        for i in range(0, len(micro_batches), accumulate):
            optimizer.zero_grad()
            for batch in micro_batches[i : i + accumulate]:
                loss = loss_of(batch) / accumulate
                loss.backward()
                recorder.loss(loss, add=True)
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
    return recorder.run


def assert_alike(found: xr.Dataset, wanted: xr.Dataset) -> None:
    assert set(found.variables) == set(wanted.variables)
    for name, values in wanted.variables.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6, err_msg=str(name))
