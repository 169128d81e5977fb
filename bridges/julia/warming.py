"""A small job before the one that is timed: the first use of a method compiles it (docs/bridge.md rule 16)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from bridges.julia import protocol
from bridges.problem import Array

Kind: TypeAlias = tuple[tuple[str, Any], ...]


def kind_of(job: Mapping[str, Any]) -> Kind:
    """What of a job decides on what is compiled for it: names and flags, and which of its options are given."""
    return tuple(
        (name, value if isinstance(value, str | bool) else value is None)
        for name, value in sorted(job.items())
        if not isinstance(value, list | dict)
    )


def options_of(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job without its lists, which are long and decide on nothing."""
    return {name: value for name, value in job.items() if not isinstance(value, list | dict)}


class SmallJob:
    """A job of the kind of `job` that is done in no time, with nobody to ask.

    Attributes:
        job: as `worker.Backend` takes it.
        rows, arrays: what goes with it.
    """

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.rows: Array = np.ones((3, 2))
        self.arrays: dict[str, Array] = {}
        changes: dict[str, Any] = {}
        if job["do"] == "solve":
            changes = {"times": [0.0, 0.5, 1.0], "rtol": 1e-3, "max_steps": 10_000}
            changes |= {name: 0.25 for name in ("step", "max_step") if job[name] is not None}
            if job["atol"] is None:
                self.rows[protocol.RATE] = 1e-3
            else:
                changes["atol"] = 1e-3
        elif job["do"] == "noisy":
            changes = {"time": 1.0, "step": 0.5, "seeds": [1, 2]}
            self.arrays = {"factor": np.ones(2) if job["diagonal"] else np.ones((1, 2))}
        else:
            changes = {"rtol": 1e-3, "atol": 1e-3}
            if job["step"] is not None:
                changes["step"] = 0.25
            driver = np.ones((2, 1))
            start, times = np.full(job["order"], 2.0), np.array([0.0, 0.5, 1.0])
            self.arrays = {"m": driver, "b": driver, "force": driver}
            self.arrays |= {"kappa": np.ones(1), "y0": start, "times": times}
        self.job = {**job, **changes}

    def ask(self, operation: bytes, number: float) -> float:
        """As the caller would answer whose field is a decay; the spectral radius is 1."""
        if operation == protocol.RHS:
            np.negative(self.rows[protocol.STATE], out=self.rows[protocol.RATE])
        elif operation == protocol.JVP:
            np.negative(self.rows[protocol.DIRECTION], out=self.rows[protocol.RATE])
        return 1.0
