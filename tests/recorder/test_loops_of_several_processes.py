"""DistributedDataParallel: the first process records, and what it records is the gradient of all. Spread-out
parameters (FSDP) are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import xarray as xr
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import nm_ode

from .witness import Seen, batches, network

STEPS = 5


def together(rank: int, folder: str) -> None:
    """A part of the loop, and the rest from a checkpoint that the first process wrote."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    checkpoint = Path(folder) / "checkpoint.pt"
    for first, last in ((0, 2), (2, STEPS)):
        model = DistributedDataParallel(network())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        resume: Any = False
        if first:
            kept = torch.load(checkpoint, weights_only=True)
            model.load_state_dict(kept["model"])
            optimizer.load_state_dict(kept["optimizer"])
            resume = kept["recorder"]
        store = Path(folder) / "run.zarr"
        with nm_ode.Recorder(model, optimizer, store, observe=[Seen()], resume=resume) as recorder:
            for x, y in batches(STEPS)[first:last]:
                optimizer.zero_grad()
                mine = slice(4 * rank, 4 * rank + 4)
                loss = F.cross_entropy(model(x[mine]), y[mine])
                loss.backward()
                recorder.loss(loss)
                optimizer.step()
            where = recorder.state_dict()
            assert recorder.steps == (0 if rank else last)
        if rank:
            with pytest.raises(nm_ode.ArgumentError, match="process 1"):
                _ = recorder.run
        elif not first:
            states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "recorder": where}
            torch.save(states, checkpoint)
        dist.barrier()
    dist.destroy_process_group()


def alone() -> tuple[xr.Dataset, list[float]]:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    of_first_half = []
    with nm_ode.Recorder(model, optimizer, observe=[Seen()]) as recorder:
        for x, y in batches(STEPS):
            optimizer.zero_grad()
            of_first_half.append(F.cross_entropy(model(x[:4]), y[:4]).item())
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    return recorder.run, of_first_half


@pytest.mark.slow
def test_the_first_process_records_the_gradient_of_all(tmp_path: Path) -> None:
    mp.spawn(together, (str(tmp_path),), nprocs=2)
    run = nm_ode.open_run(tmp_path / "run.zarr")
    reference, losses = alone()
    for name in ("seen_theta", "seen_gradient", "seen_update", "theta_after"):
        np.testing.assert_allclose(run[name], reference[name], atol=1e-13)
    np.testing.assert_allclose(run["loss"], losses, atol=1e-13)
    info = nm_ode.run_info(run)
    assert info.status == "success"
    assert "first of 2 processes" in info.remarks[0]


def test_spread_out_parameters_are_refused(tmp_path: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model: Any = nn.Linear(4, 3)
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(nm_ode.ArgumentError, match="FSDP"):
            nm_ode.Recorder(model, optimizer)
    finally:
        dist.destroy_process_group()
