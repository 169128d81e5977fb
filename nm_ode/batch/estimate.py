"""What a member will take, from one that is made short."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nm_ode.batch.member import case_of, text_of
from nm_ode.batch.surroundings import same_surroundings
from nm_ode.batch.tasks import MemberTask
from nm_ode.memory import in_words
from nm_ode.studies import CaseError, run_case_into

_ENOUGH = 3.0  # seconds of a measured member
_FIRST = 8  # steps of the shortest


@dataclass(frozen=True)
class Estimate:
    """Of one member.

    Attributes:
        seconds, size: that it takes, in bytes.
        how: this was found, for a reader.
    """

    seconds: float
    size: int
    how: str


def measured(task: MemberTask, threads: int) -> Estimate:
    """Run the member with fewer steps, and with more until it takes a few seconds; in proportion to the steps.

    Raises:
        CaseError: it cannot be run, or not with fewer steps.
    """
    steps = int(task.case["training"]["steps"])
    short, before = min(_FIRST, steps), None
    _run(task, short, threads)  # what is imported and compiled is so once, and not in each member
    while True:
        seconds, size = _run(task, short, threads)
        if short == steps or (seconds > _ENOUGH and before is not None):
            break
        before = short, seconds, size
        short = min(steps, max(2 * short, short * math.floor(_ENOUGH / max(seconds, 0.1))))
    name = task.member or task.study
    if short == steps or before is None:
        how = f"measured: {name} took {seconds:.2g} s and {in_words(size)}"
        return Estimate(seconds, size, how)
    slope = max(0.0, seconds - before[1]) / (short - before[0])
    growth = max(0, size - before[2]) / (short - before[0])
    found = Estimate(seconds + slope * (steps - short), round(size + growth * (steps - short)), "")
    took = f"{before[1]:.2g} s and {seconds:.2g} s"
    each = f"{found.seconds:.3g} s and {in_words(found.size)}"
    how = (
        f"measured: {before[0]} and {short} of the {steps} steps of {name} took {took}; the rest in proportion, {each} "
        "for each member; others may take more or less"
    )
    return replace(found, how=how)


def _run(task: MemberTask, steps: int, threads: int) -> tuple[float, int]:
    """Seconds and bytes."""
    training: Mapping[str, Any] = {**task.case["training"], "steps": steps}
    short = replace(task, case={**task.case, "training": training})
    try:
        case = case_of(short)
    except ValueError as error:
        raise CaseError(f"with {steps} steps it is no case: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        began, store = time.monotonic(), Path(folder) / "run.zarr"
        with same_surroundings(case.seed, threads):
            run_case_into(case, Path(task.path), store, text=text_of(short))
        seconds = time.monotonic() - began
        return seconds, sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
