"""What each group of the tree says of itself, as typed values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xarray as xr

from nm_ode.parameters import Layout
from nm_ode.results.beyond import NOTHING_BEYOND, BeyondLaws
from nm_ode.results.codec import ResultError, attributes, decode, encode
from nm_ode.results.grid import TimeGrid

Beside = Literal["full_batch", "same_batch"]
"""Whose samples a flow beside a run on minibatches takes: all, or in each step those of that step."""


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
    """What `write_run_info` wrote.

    Raises:
        ResultError: the dataset is no run of `train`, or steps of it were left out along `step`, so that neither the
            samples nor the time of each are known any more.
    """
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


@dataclass(frozen=True)
class EnsembleInfo:
    """An ensemble: of runs of an optimiser, or of paths of a stochastic flow.

    Attributes:
        title: of the flow, or of the optimiser.
        seed: of the noise or the batches.
        time: flow time that the members end at.
        steps, batch_size: of runs.
        lr: of the optimiser, or of the flow's.
        step: of a fixed-step method.
        noise_kind, …: of a flow's noise, as of `GradientNoise`; None for a factor of the user's own. Where it was
            measured is the dataset's `noise_theta`. It is constant in theta, and for batches drawn with replacement.
    """

    title: str
    members: int
    seed: int
    time: float
    layout: Layout
    steps: int | None = None
    batch_size: int | None = None
    flow: str | None = None
    engine: str | None = None
    method: str | None = None
    step: float | None = None
    lr: float | None = None
    noise_kind: str | None = None
    noise_batch_size: int | None = None
    noise_captured: float | None = None
    noise_estimator: str | None = None
    noise_draws: int | None = None
    noise_standard_error: float | None = None


def ensemble_info(ensemble: xr.Dataset) -> EnsembleInfo:
    """Of what `sgd_ensemble` or `solve_ensemble` gives.

    Raises:
        ResultError: the dataset is no ensemble.
    """
    return decode(EnsembleInfo, attributes(ensemble))


def layout_of(dataset: xr.Dataset) -> Layout:
    """Where each parameter lies in the `theta` of a run, a solution or an ensemble.

    Raises:
        ResultError: the dataset does not say.
    """
    return decode(_Parameters, attributes(dataset)).layout


@dataclass(frozen=True)
class _Parameters:
    """Anything that has theta."""

    layout: Layout


@dataclass(frozen=True)
class LawInfo:
    """A prediction of charges: the law, and the engine that solved it if one did.

    Attributes:
        with_residual: did the recorded ⟨g, ξ⟩ of a normalisation's ε act?
        beyond: name of a symmetry whose charges it does not predict, which are NaN → why.
        remarks: sentences on what was not looked at.
        rtol, atol: of a method that chooses its steps.
        step: of a fixed-step method, in flow time.
        rhs_evaluations, jvp_evaluations: of the law, and products with its Jacobian.
    """

    law: str
    title: str
    with_residual: bool = False
    engine: str | None = None
    method: str | None = None
    rtol: float | None = None
    atol: float | None = None
    step: float | None = None
    rhs_evaluations: int | None = None
    jvp_evaluations: int | None = None
    beyond: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    status: str = "success"


def law_info(predicted: xr.Dataset) -> LawInfo:
    """Of charges that a law predicts.

    Raises:
        ResultError: the dataset is no prediction.
    """
    return decode(LawInfo, attributes(predicted))


@dataclass(frozen=True)
class ComparisonInfo:
    """A comparison: of which flow or law, and the first step from which on a flow's one-step defects are small.

    `holds_from` is −1 where they never are, and None where they are not known. `average` is over which window the
    run's own time average is taken, None where there is none; `no_average` why not, where it was asked for.
    """

    title: str
    flow: str | None = None
    law: str | None = None
    expected_order: int | None = None
    holds_from: int | None = None
    average: str | None = None
    no_average: str = ""


def comparison_info(comparison: xr.Dataset) -> ComparisonInfo:
    """Of what `compare` gives.

    Raises:
        ResultError: the dataset is none.
    """
    return decode(ComparisonInfo, attributes(comparison))


@dataclass(frozen=True)
class LadderInfo:
    """A ladder of learning rates: the confounders of the fit.

    Attributes:
        kinks: operations whose derivative jumps.
        stateful: has the optimiser a state beyond theta?
        warm_start: did the runs start warm?
        fixed_step: were the flows solved with a step of the user's?
        batch_bias, batch_bias_error: as of `SolveInfo`, where the runs are on minibatches.
    """

    stateful: bool
    warm_start: bool
    fixed_step: bool
    batch_bias: float | None = None
    batch_bias_error: float | None = None
    kinks: tuple[str, ...] = ()
    status: str = "success"


def ladder_info(convergence: xr.Dataset) -> LadderInfo:
    """Of what `convergence` gives.

    Raises:
        ResultError: the dataset is no convergence study.
    """
    return decode(LadderInfo, attributes(convergence))


@dataclass(frozen=True)
class SymmetriesInfo:
    """The symmetries of a model.

    Attributes:
        n_charges: how many charges they have, those of a matrix's diagonal not counted twice.
        remarks: sentences on what was left out, and on what could not be checked.
    """

    n_charges: int
    status: str = "success"
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyInfo:
    """A study: its case, with what it was made, how it ended. The root of the tree.

    Attributes:
        case: the case with all defaults, by key.
        case_text: the file as the user wrote it.
        failures: a sentence for each part that did not go well.
        versions: of Python and the packages.
        code: path → SHA-256 of the user's own code that the case names, and of its data on disk.
    """

    title: str
    case: Mapping[str, Any]
    case_file: str
    case_text: str
    status: Literal["complete", "failed"]
    versions: Mapping[str, Any]
    git_commit: str
    device: str
    dtype: str
    seed: int
    started: str
    ended: str
    parameters: int
    samples: int
    failures: tuple[str, ...] = ()
    code: Mapping[str, Any] = field(default_factory=dict)


def symmetries_info(table: xr.Dataset) -> SymmetriesInfo:
    """Of the table of a model's symmetries.

    Raises:
        ResultError: the dataset is none.
    """
    return decode(SymmetriesInfo, attributes(table))


def study_info(tree: xr.DataTree) -> StudyInfo:
    """Of the tree of a study.

    Raises:
        ResultError: the tree is none.
    """
    return decode(StudyInfo, attributes(tree))
