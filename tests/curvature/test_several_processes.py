"""DistributedDataParallel: the first process measures, the others wait for nothing and know of nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import nm_ode
from tests.curvature.loops import Net, data, probe


def loss_of(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def train(rank: int, observe) -> tuple[nn.Module, nm_ode.Recorder | None]:
    torch.manual_seed(3)
    model = DistributedDataParallel(Net())
    torch.manual_seed(rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = data()
    recorder = nm_ode.Recorder(model, optimizer, observe=observe)
    with recorder:
        for _ in range(8):
            some = torch.randperm(len(x))[:8]
            optimizer.zero_grad()
            F.cross_entropy(model(x[some]), y[some]).backward()
            optimizer.step()
    return model.module, recorder


def together(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    watching = [
        nm_ode.Hessian(loss_of, probe(), every=3, top=2, trace=2),
        nm_ode.Noise(loss_of, probe(), every=3, parts=4),
    ]
    alone, _ = train(rank, [])
    watched, recorder = train(rank, watching)
    for one, other in zip(alone.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    if rank == 0:
        assert recorder is not None
        run = recorder.run
        assert run["hessian_step"].values.tolist() == run["noise_step"].values.tolist() == [0, 3, 6]
        np.savetxt(f"{folder}/found", run["hessian_eigenvalue"].values)
    _refuses_to_wait(rank)
    dist.barrier()
    dist.destroy_process_group()


def _refuses_to_wait(rank: int) -> None:
    """SyncBatchNorm in train mode would wait for the other process, which evaluates nothing."""
    model = nn.Sequential(nn.Linear(4, 3), nn.SyncBatchNorm(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = torch.randn(6, 4), torch.randint(0, 3, (6,))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    if rank == 0:
        recorder = nm_ode.Recorder(model, optimizer, observe=[nm_ode.Hessian(loss_of, batch, top=1)])
        with recorder, pytest.raises(nm_ode.ProblemError, match=r"SyncBatchNorm.*mode='eval'"):
            optimizer.step()
        with nm_ode.Recorder(
            model, optimizer, observe=[nm_ode.Hessian(loss_of, batch, top=1, mode="eval")]
        ) as recorder:
            optimizer.step()
        assert np.isfinite(recorder.run["hessian_eigenvalue"]).all()


@pytest.mark.slow
def test_the_first_process_measures_alone_and_changes_nothing(tmp_path: Path) -> None:
    mp.spawn(together, (str(tmp_path),), nprocs=2)
    assert (np.loadtxt(tmp_path / "found")[:, 0] > 0).all()
