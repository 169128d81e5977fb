"""What a run says of itself: its optimiser, its steps, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from nm_ode.parameters import Layout
from nm_ode.results.beyond import NOTHING_BEYOND, BeyondLaws
from nm_ode.results.codec import ResultError, attributes, decode, encode
from nm_ode.results.grid import TimeGrid


@dataclass(frozen=True)
class RunInfo:
    """A run of `train`: the optimiser, how it started and how it ended.

    Attributes:
        optimizer: name of its class, "SGD".
        hyperparameters: by name, as its class takes them.
        optimizer_text: for a reader, "SGD, lr = 0.1, momentum = 0.9".
        time_per_step: flow time of a step at the optimiser's own learning rate.
        stateful: has the optimiser a state beyond theta?
        warm_start: did it start with the state of an earlier run?
        grid: when each step was taken, and with which samples.
        layout: where each parameter lies in theta.
        foreign_gradient: why the gradient that it took is not the loss's; empty where it is.
        autocast: the dtype of its forward passes, where that is coarser than its parameters': "bfloat16".
        beyond_laws: of a recorded loop, why no law describes its charges, or those of some symmetries.
        remarks: sentences on what of the numbers is not as one would think.
        dtype: the coarsest of the parameters' in a recorded loop; empty where it is that of the loss.
        status: "success"; "diverged", or "unfinished" of a recorded loop that was cut off, with a message.
    """

    optimizer: str
    hyperparameters: Mapping[str, Any]
    optimizer_text: str
    time_per_step: float
    stateful: bool
    warm_start: bool
    grid: TimeGrid
    layout: Layout
    foreign_gradient: str = ""
    autocast: str = ""
    beyond_laws: BeyondLaws = NOTHING_BEYOND
    remarks: tuple[str, ...] = ()
    dtype: str = ""
    status: Literal["success", "diverged", "unfinished"] = "success"
    message: str = ""


@dataclass(frozen=True)
class _RunAttributes:
    """A run of nm_ode.train."""

    optimizer: str
    optimizer_text: str
    hyperparameters: Mapping[str, Any]
    time_per_step: float
    stateful: bool
    warm_start: bool
    batch_size: int | str
    seed: int
    n_samples: int
    end_time: float
    layout: Layout
    augmentation: str = ""
    foreign_gradient: str = ""
    autocast: str = ""
    beyond_laws: BeyondLaws = NOTHING_BEYOND
    remarks: tuple[str, ...] = ()
    dtype: str = ""
    status: Literal["success", "diverged", "unfinished"] = "success"
    message: str = ""


def encode_run(info: RunInfo) -> dict[str, Any]:
    """The record as attributes, without the steps of its grid."""
    grid = info.grid
    return encode(
        _RunAttributes(
            batch_size=grid.batch_size,
            seed=grid.seed,
            n_samples=grid.n_samples,
            augmentation=grid.augmentation,
            end_time=float(grid.times[-1]),
            **{
                name: getattr(info, name)
                for name in _RunAttributes.__dataclass_fields__
                if name in RunInfo.__dataclass_fields__
            },
        )
    )


def write_run_info(dataset: xr.Dataset, info: RunInfo) -> xr.Dataset:
    """The dataset with the grid as `lr` and coordinate `time` along `step`, and all else as attributes."""
    grid = info.grid
    return (
        dataset.assign(lr=("step", grid.lr))
        .assign_coords(step=np.arange(grid.steps), time=("step", grid.times[:-1]))
        .assign_attrs(encode_run(info))
    )


def run_info(run: xr.Dataset) -> RunInfo:
    """The typed record of a run: its optimiser, its steps, and how it ended.

    Args:
        run: from `train` or a `Recorder`; selected along `saved_step` at most.

    Returns:
        A `RunInfo`: `optimizer`, `hyperparameters`, `grid` (learning rates, flow times and samples of the steps),
        `layout` of theta, `status` …

    Raises:
        ResultError: the dataset is no run of `train`, or steps of it were left out along `step`, so that neither the
            samples nor the time of each are known any more.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> info = nm_ode.run_info(nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=10, batch_size=64))
        >>> info.optimizer_text, info.status, info.layout.size
        ('SGD, lr = 0.1', 'success', 11)
        >>> info.grid
        <TimeGrid: 10 steps to t = 1, batches of 64 of 442 samples>
    """
    if isinstance(run, xr.Dataset) and "member" in run.dims:
        raise ResultError(
            f"the dataset has the runs of {run.sizes['member']} members: take one after another, "
            "nm_ode.member_run(runs, 0)"
        )
    found = decode(_RunAttributes, attributes(run))
    for name in ("lr", "time"):
        if name not in run.variables:
            raise ResultError(f"the dataset has no variable {name!r}, so it is no run of nm_ode.train")
    named: dict[int | str, Literal["full", "unknown"]] = {"full": "full", "unknown": "unknown"}
    grid = TimeGrid(
        lr=np.asarray(run["lr"].values, dtype=np.float64),
        times=np.append(run["time"].values, found.end_time),
        batch_size=named[found.batch_size] if found.batch_size in named else int(found.batch_size),
        seed=found.seed,
        n_samples=found.n_samples,
        augmentation=found.augmentation,
    )
    _require_all_steps(grid)
    return RunInfo(
        grid=grid,
        **{
            name: getattr(found, name)
            for name in RunInfo.__dataclass_fields__
            if name in _RunAttributes.__dataclass_fields__
        },
    )


def _require_all_steps(grid: TimeGrid) -> None:
    """A run's time starts at 0, and each step's share of it is that of its learning rate."""
    durations = np.diff(grid.times)
    shares = grid.lr * (grid.times[-1] / grid.lr.sum()) if grid.lr.any() else durations
    if grid.times[0] != 0 or not np.allclose(durations, shares, rtol=1e-6, atol=1e-9 * grid.times[-1]):
        raise ResultError(
            "steps of the run were left out along 'step', which has the learning rate, time and samples of each: "
            "select along 'saved_step' alone"
        )
