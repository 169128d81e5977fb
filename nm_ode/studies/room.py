"""Is there memory for a case? Asked before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from nm_ode.arguments import first_line
from nm_ode.errors import ArgumentError
from nm_ode.loss import Problem
from nm_ode.memory import in_words, require_memory
from nm_ode.observers.room import require_room
from nm_ode.studies.errors import CaseError
from nm_ode.studies.schema import Case

_COPIES = 3  # of the parameters in the case's own dtype, at least: the problem's, theta and its gradient


def built(build: Callable[[], nn.Module], path: Path, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """The network, unless its parameters alone are more than there is memory for.

    Args:
        dtype: in which it is trained; it is made in float64.
        device: where.

    Raises:
        CaseError: they are, or torch cannot make it.
    """
    try:
        # On this device tensors have a shape and no numbers. A network that needs some is tried as it is.
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in build().parameters())
    except Exception:
        count = 0
    try:
        copies = _COPIES if device.type == "cpu" else 0
        require_memory(
            (8 + copies * dtype.itemsize) * count,
            f"a model of {count} parameters, to be trained,",
            "make it smaller",
        )
        return build()
    except ArgumentError:
        raise
    except (RuntimeError, MemoryError, OverflowError, TypeError) as error:
        raise CaseError(f"{path}: model: it cannot be made: {first_line(error)}") from None


def require_case_fits(case: Case, path: Path, problem: Problem) -> None:
    """Raises CaseError for a run or a solution whose numbers are more than there is memory for."""
    training, size, sketch = case.training, problem.layout.size, _sketch_of(case, problem)
    for place, steps, save_every in _runs(case):
        try:
            # A warm start keeps theta itself.
            instead = sketch if place == "training.steps" else None
            require_room(problem, steps, steps // save_every + 1, sketch=instead)
        except ArgumentError as error:
            raise CaseError(f"{path}: {place}: {error}") from None
    if case.flows and sketch is None:
        samples = training.steps // training.save_every + 1
        try:
            require_memory(
                2 * 8 * samples * size,
                f"a run and a solution of {samples} samples and {size} parameters ({in_words(8 * size)} each)",
                "raise save_every",
            )
        except ArgumentError as error:
            raise CaseError(f"{path}: training.save_every: {error}") from None


def _sketch_of(case: Case, problem: Problem) -> int | None:
    """How many numbers are kept in place of each theta; None if theta is."""
    for table in case.observe:
        if table.name == "sketch" and table.looks_at("run"):
            parts = len(problem.layout.layers) if table.options["by_layer"] else 1
            return None if table.options["keep_theta"] else parts * int(table.options["m"])
    return None


def _runs(case: Case) -> Iterator[tuple[str, int, int]]:
    """Key, steps and how often theta is kept, of each run that the case takes."""
    training = case.training
    yield "training.steps", training.steps, training.save_every
    if training.warm_steps:
        yield "training.warm_steps", training.warm_steps, training.warm_steps
