"""The record of a loop's run: its optimiser as one of nm_ode's, or as torch has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nm_ode.optimizers import Optimizer, describe, hyperparameters
from nm_ode.recorder.known import plain_hyperparameters
from nm_ode.recorder.taken import Taken
from nm_ode.results import RunInfo, TimeGrid

_PART_OF_LOSS = "the loss is that of the first of {} processes, and the gradient that of all"

_NO_RATE = "the optimiser has no learning rate: lr is 1, and time is counted in steps"


def coarsest(parameters: Sequence[Tensor]) -> str:
    """The dtype of the parameters that rounds most."""
    found = max((one.dtype for one in parameters), key=lambda dtype: torch.finfo(dtype).eps)
    return str(found).removeprefix("torch.")


def described(
    optimizer: torch.optim.Optimizer,
    known: Optimizer | None,
    taken: Taken,
    *,
    full_batch: bool,
    processes: int,
    ended: str,
    groups_differ: str,
    **more: Any,
) -> RunInfo:
    """What a run says of itself so far; its grid has the steps that are kept, and the time after the last.

    Args:
        known: the same map as the optimiser, where there is one.
        processes: that train together, of which the first records.
        ended: why the recording ended before its time; empty if it did not.
        groups_differ: in what, in one sentence; empty if they do not.
        more: the record's other fields.
    """
    if known is not None and taken.steps and not taken.met:
        # Never the one from which a scheduler started: the first that moved anything.
        changed: Any = known  # a dataclass
        known = replace(changed, lr=known.lr if taken.moving is None else taken.moving)
    times = np.array(taken.times if taken.kept else [taken.time])
    remarks = [groups_differ] if groups_differ else []
    if processes > 1:
        remarks.append(_PART_OF_LOSS.format(processes))
    if any(group.get("lr") is None for group in optimizer.param_groups):
        remarks.append(_NO_RATE)
    return RunInfo(
        optimizer=type(optimizer if known is None else known).__name__,
        hyperparameters=plain_hyperparameters(optimizer.param_groups[0])
        if known is None
        else hyperparameters(known),
        optimizer_text=type(optimizer).__name__ if known is None else describe(known),
        time_per_step=max(taken.first, 0.0) if known is None else known.time_per_step,
        stateful=known is None or known.stateful,
        grid=TimeGrid(np.array(taken.lrs), times, "full" if full_batch else "unknown", 0, 0),
        remarks=tuple(remarks),
        status="unfinished" if ended else "success",
        message=ended,
        **more,
    )
