"""From a valid case to the objects that it names, with the checks that need the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import xarray as xr
from torch import nn

from bridges import EngineError
from nm_ode.data import DataError, DataSet, diabetes, digits, npz
from nm_ode.flows import Flow, MinibatchFlow
from nm_ode.loss import LossFunction, Problem, ProblemError
from nm_ode.optimizers import Optimizer
from nm_ode.optimizers.schedules import Schedule
from nm_ode.solving import require_options
from nm_ode.studies.case import Case, CaseError, NpzData
from nm_ode.studies.networks import ImageModel

_LOSSES: dict[str, LossFunction] = {
    "cross_entropy": nn.functional.cross_entropy,
    "mse": nn.functional.mse_loss,
}


@dataclass(frozen=True)
class Prepared:
    """What a case names, made."""

    problem: Problem
    optimizer: Optimizer
    schedule: Schedule | None


def prepare(case: Case, path: Path) -> Prepared:
    """Problem, optimiser and schedule of a case.

    Args:
        path: the case file, for messages and for what it names by relative path.

    Raises:
        CaseError: what the case names is not there, or does not fit together.
    """
    try:
        for i, engine in enumerate(case.solver.engines):
            own = i == 0  # method and step are the first engine's; those that check it take their own
            require_options(engine, case.solver.method if own else None, case.solver.step if own else None)
    except EngineError as error:
        raise CaseError(f"{path}: solver: {error}") from None
    data = _data(case, path)
    _require_fit(case, data, path)
    try:
        if isinstance(case.model, ImageModel):
            assert data.image is not None
            model = case.model.build(case.seed, data.image)
        else:
            model = case.model.build(case.seed)
    except ValueError as error:
        raise CaseError(f"{path}: model: {error}") from None
    try:
        problem = Problem(
            model,
            _LOSSES[case.loss],
            (data.x, data.y),
            dtype=getattr(torch, case.dtype),
            device=_device(case, path),
            chunk_size=case.chunk_size,
        )
    except ProblemError as error:
        raise CaseError(f"{path}: {error}") from None
    table = case.optimizer.schedule
    return Prepared(problem, case.optimizer.build(), table.build() if table is not None else None)


def flows_beside(case: Case, problem: Problem, optimizer: Optimizer, run: xr.Dataset) -> tuple[Flow, ...]:
    """The case's flows, to be solved beside a run of this optimiser."""
    built = [(table, table.build(problem, optimizer)) for table in case.flows]
    return tuple(
        MinibatchFlow.beside(flow, run) if table.batches == "same" else flow for table, flow in built
    )


def _data(case: Case, path: Path) -> DataSet:
    try:
        if isinstance(case.data, NpzData):
            data = npz(path.parent / case.data.path, case.data.samples)
        else:
            data = {"digits": digits, "diabetes": diabetes}[case.data.name](case.data.samples)
        return data.as_images() if case.model.takes_images else data
    except DataError as error:
        raise CaseError(f"{path}: data: {error}") from None


def _device(case: Case, path: Path) -> torch.device:
    try:
        device = torch.device(case.device)
    except RuntimeError:
        raise CaseError(f"{path}: device: {case.device!r} was given; it must be 'cpu' or 'cuda'") from None
    if device.type not in ("cpu", "cuda"):
        raise CaseError(f"{path}: device: {case.device!r} was given; it must be 'cpu' or 'cuda'")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CaseError(f"{path}: device: {case.device!r} was given, and torch sees no GPU here; use 'cpu'")
    return device


def _require_fit(case: Case, data: DataSet, path: Path) -> None:
    """Shapes, labels and loss go together; each mistake is named with its key."""
    last = case.model.output()
    if not isinstance(case.model, ImageModel):
        first, features = case.model.input(), data.x[0].numel()
        if data.x.ndim != 2 or first[1] != features:
            raise CaseError(
                f"{path}: {first[0]}: {first[1]} was given; data {case.data.name!r} has inputs of shape "
                f"{tuple(data.x.shape[1:])}, so it must be {features}"
            )
    if case.loss == "cross_entropy":
        if not data.is_classification:
            raise CaseError(
                f"{path}: loss: 'cross_entropy' was given; data {case.data.name!r} has values, not classes: "
                "use 'mse'"
            )
        low, high = int(data.y.min()), int(data.y.max())
        if data.y.ndim != 1 or low < 0 or high >= last[1]:
            raise CaseError(
                f"{path}: {last[0]}: {last[1]} was given; the labels of data {case.data.name!r} run from "
                f"{low} to {high}, and must lie in 0 … {last[1] - 1}: give {last[0]} = {high + 1}, "
                "or correct the labels"
            )
    else:
        if data.is_classification:
            raise CaseError(
                f"{path}: loss: 'mse' was given; data {case.data.name!r} has classes: use 'cross_entropy'"
            )
        if tuple(data.y.shape[1:]) != (last[1],):
            raise CaseError(
                f"{path}: {last[0]}: {last[1]} was given; data {case.data.name!r} has targets of shape "
                f"{tuple(data.y.shape[1:])}"
            )
    if isinstance(case.training.batch_size, int) and case.training.batch_size > len(data.x):
        raise CaseError(
            f"{path}: training.batch_size: {case.training.batch_size} was given; data {case.data.name!r} has "
            f"{len(data.x)} samples: give at most that, or 'full'"
        )
