"""Probe batches in chunks: the numbers of the whole batch, and never more samples in the model than a chunk has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

import nm_ode
from nm_ode import Hessian, Noise
from nm_ode.models import mlp

CHUNK = 7

SEEN: list[int] = []
"""How many samples the model saw at once. What is the model's own is put back after each look at it."""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()

    def forward(self, x: Tensor) -> Tensor:
        SEEN.append(len(x))
        return self.layers(x)


def data() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (40,), generator=source).sort().values
    return torch.randn(40, 4, dtype=torch.float64, generator=source), y


def recorded(observer: nm_ode.Observer) -> xr.Dataset:
    torch.manual_seed(1)
    model = Net()
    SEEN.clear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    x, y = data()
    with nm_ode.Recorder(model, optimizer, observe=[observer]) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x[:6]), y[:6]).backward()
            optimizer.step()
    return recorder.run


class Items(Dataset[Any]):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i], self.y[i]


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@pytest.mark.parametrize(("reduction", "kind"), [("mean", "tensors"), ("sum", "dataset")])
def test_chunks_give_the_numbers_of_the_whole_batch(matrix: str, reduction: str, kind: str) -> None:
    x, y = data()

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, y, reduction=reduction)

    asked: dict[str, Any] = {
        "loss_fn": loss,
        "every": 3,
        "matrix": matrix,
        "mode": "eval",
        "top": 3,
        "trace": 6,
        "density": 2,
        "density_steps": 5,
        "tol": 1e-9,
    }
    whole = recorded(Hessian(batch=(x, y), **asked))
    batch = (x, y) if kind == "tensors" else Items(x, y)
    run = recorded(Hessian(batch=batch, chunk_size=CHUNK, **asked))
    assert max(SEEN) == CHUNK
    assert set(run) == set(whole)
    for name in set(run) - {"hessian_products", "gauss_newton_products"}:  # rounding may save one
        np.testing.assert_allclose(run[name], whole[name], rtol=1e-7, atol=1e-11, err_msg=str(name))


def test_what_chunks_would_change_is_refused() -> None:
    x, y = data()

    def masked(out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, torch.where(y == 0, -100, y))

    for loss, mode, told in ((F.cross_entropy, None, "BatchNorm"), (masked, "eval", "neither")):
        with pytest.raises(nm_ode.ProblemError, match=told):
            recorded(Hessian(loss_fn=loss, batch=(x, y), chunk_size=CHUNK, mode=mode))
    with pytest.raises(nm_ode.ArgumentError, match="chunk_size"):
        Hessian(chunk_size=CHUNK)
    with pytest.raises(nm_ode.ArgumentError, match="samples"):
        Hessian(loss_fn=F.cross_entropy, batch=(x, y), samples=3)


def test_noise_looks_at_two_parts_at_a_time_and_reads_arrays_on_disk(tmp_path) -> None:
    x, y = data()
    np.save(tmp_path / "x.npy", x.numpy())
    on_disk = np.load(tmp_path / "x.npy", mmap_mode="r")
    asked: dict[str, Any] = {"loss_fn": F.cross_entropy, "every": 2, "parts": 10, "mode": "eval"}
    run = recorded(Noise(batch=(on_disk, y), **asked))
    assert max(SEEN) == 8
    whole = recorded(Noise(batch=(x, y), **asked))
    for name in whole:
        np.testing.assert_array_equal(run[name], whole[name], err_msg=str(name))


@pytest.fixture(scope="module")
def problems() -> list[nm_ode.Problem]:
    """The same problem whole and in chunks, of a mean and of a sum over samples."""
    x, y = data()
    return [
        nm_ode.Problem(
            mlp([4, 5, 3], "tanh", seed=2),
            lambda out, y, reduction=reduction: F.cross_entropy(out, y, reduction=reduction),
            (x, y),
            chunk_size=size,
        )
        for reduction in ("mean", "sum")
        for size in (None, CHUNK)
    ]


@pytest.mark.parametrize("batch_size", ["full", 8])
@pytest.mark.parametrize("samples", [None, 20])
def test_gauss_newton_and_hessian_of_a_problem_are_of_one_loss(problems, batch_size, samples) -> None:
    """Of chunks, of some of the samples, and of the share of a sum that a batch has: all are of the same loss."""
    for problem in problems:
        asked: dict[str, Any] = {"every": 1, "top": 1, "samples": samples}
        both = [Hessian(matrix=matrix, **asked) for matrix in ("hessian", "gauss_newton")]
        run = nm_ode.train(problem, nm_ode.SGD(lr=1e-3), 1, batch_size=batch_size, observe=both)
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(run[f"gauss_newton_{name}"], run[f"hessian_{name}"], rtol=1e-9)
        sums = problem.reduction == "sum"
        chosen = (
            None if samples is None else torch.linspace(0, 39, samples, dtype=torch.float64).round().long()
        )
        factor = (40 if batch_size == "full" else 8) / (samples or 40) if sums else 1.0
        loss = factor * float(problem.loss(problem.theta0, chosen))
        assert float(run["hessian_loss"][0]) == pytest.approx(loss, rel=1e-9)


def test_a_tensor_dataset_is_a_tree_of_tensors() -> None:
    x, y = data()
    hessian = Hessian(loss_fn=F.cross_entropy, batch=TensorDataset(x, y), chunk_size=64, mode="eval", top=1)
    whole = recorded(Hessian(loss_fn=F.cross_entropy, batch=(x, y), mode="eval", top=1))
    np.testing.assert_allclose(
        recorded(hessian)["hessian_eigenvalue"], whole["hessian_eigenvalue"], rtol=1e-7
    )
