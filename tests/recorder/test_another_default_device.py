"""A default device of the caller's changes nothing that is recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional as F

import nm_ode
from nm_ode.passes import shared


@pytest.mark.parametrize("compiled", [False, True])
def test_a_loop_on_a_device_that_is_not_the_default_one(tmp_path: Path, monkeypatch, compiled: bool) -> None:
    if compiled:
        monkeypatch.setattr(shared, "WORTH_IT", 0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 4, generator=generator)
    y = torch.randint(3, (24,), generator=generator)
    symmetries = nm_ode.find_symmetries(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), x)
    cpu = torch.arange(24).split(8)

    def loop(device: str, store: Path) -> xr.Dataset:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        probe = {"loss_fn": F.cross_entropy, "batch": (x, y), "every": 4}
        observe = [
            nm_ode.Charges(symmetries, every=3),
            nm_ode.Hessian(**probe, top=2, trace=6, density=2),
            nm_ode.Noise(**probe, parts=4),
            nm_ode.Statistics(),
            nm_ode.Scores({"accuracy": lambda m: (m(x).argmax(-1) == y).double().mean()}, every=2),
            nm_ode.Sketch(m=64, keep_theta=True),
        ]
        with torch.device(device):
            with nm_ode.Recorder(model, optimizer, store, observe=observe, save_every=4) as recorder:
                for batch in cpu * 3:
                    optimizer.zero_grad()
                    loss = F.cross_entropy(model(x[batch]), y[batch])
                    loss.backward()
                    recorder.loss(loss.item())
                    optimizer.step()
            run = nm_ode.open_run(store).load()
            predicted = nm_ode.predict_charges(run, "exact")
        return run.assign(predicted=predicted["charge"])

    expected, found = (loop(device, tmp_path / f"{device}.zarr") for device in ("cpu", "meta"))
    assert set(expected.data_vars) == set(found.data_vars)
    for name, values in expected.data_vars.items():
        if values.dtype.kind == "f":
            np.testing.assert_array_equal(values, found[name], err_msg=str(name))
