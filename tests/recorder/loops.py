"""A small loop of a user's own, which can be cut off and gone on with."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn
from torch.nn import functional as F

import nm_ode
from nm_ode.recorder import Recorder

N = 48


def model_and_data(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A net with two layers, and samples that its loss can tell apart."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(N, 5, generator=generator, dtype=dtype)
    y = torch.randint(3, (N,), generator=generator)
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).to(dtype)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=dtype))
    return net, x, y


@cache
def _symmetries() -> nm_ode.Symmetries:
    model, x, _ = model_and_data()
    return nm_ode.find_symmetries(model, x, loss="cross_entropy")


class Loop:
    """SGD with momentum on minibatches that the step's number fixes."""

    def __init__(self) -> None:
        self.model, self.x, self.y = model_and_data()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.done = 0
        self.observers = [nm_ode.Charges(_symmetries())]

    def recorder(self, store: Path | None, **options: Any) -> Recorder:
        return Recorder(self.model, self.optimizer, store, observe=self.observers, save_every=7, **options)

    def step(self, recorder: Recorder) -> None:
        batch = torch.randint(N, (16,), generator=torch.Generator().manual_seed(self.done))
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.x[batch]), self.y[batch])
        loss.backward()
        recorder.loss(loss)
        self.optimizer.step()
        self.done += 1

    def checkpoint(self, recorder: Recorder) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "recorder": recorder.state_dict(),
            "done": self.done,
        }

    def load(self, checkpoint: dict[str, Any]) -> None:
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.done = checkpoint["done"]


def recorded(store: Path | None, steps: int, **options: Any) -> xr.Dataset:
    """A run of so many steps."""
    loop = Loop()
    with loop.recorder(store, **options) as recorder:
        while loop.done < steps:
            loop.step(recorder)
    return recorder.run


def assert_same(one: xr.Dataset, other: xr.Dataset) -> None:
    """The same variables, to the bit, with the same dimensions and descriptions."""
    assert set(one.variables) == set(other.variables)
    assert set(one.coords) == set(other.coords)
    for name, variable in one.variables.items():
        found = other[name]
        assert found.dims == variable.dims, name
        assert {key: found.attrs.get(key) for key in variable.attrs} == variable.attrs, name
        np.testing.assert_array_equal(
            found.values.astype(variable.dtype), variable.values, err_msg=str(name), strict=True
        )
