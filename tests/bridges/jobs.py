"""Jobs for a worker that has SciPy in Julia's place."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bridges.julia.conversation import Callbacks
from bridges.julia.session import WorkerSession

STAND_IN = "tests.bridges.stand_in:StandIn"
ROOT = Path(__file__).resolve().parents[2]


def patient_session() -> WorkerSession:
    """One that waits for its worker as long as a busy machine may need."""
    return WorkerSession(STAND_IN, give_up_seconds=120)


def job(method: str = "Vern9", times=(0.0, 1.0), **changes):
    return {
        "method": method,
        "kind": "explicit",
        "times": list(times),
        "rtol": 1e-10,
        "atol": 1e-12,
        "step": None,
        "max_step": None,
        "jvp": False,
        "sharpness": False,
        "max_steps": 10**6,
        **changes,
    }


def decay(t, y, dy) -> None:
    dy[:] = -y


def solve(session: WorkerSession, rhs=decay, y0=(1.0, 2.0), on_sample=None, **changes):
    samples: list[np.ndarray] = []

    def keep(index: int, state: np.ndarray) -> None:
        samples.append(state.copy())
        if on_sample is not None:
            on_sample(index, state)

    ending = session.solve(job(**changes), np.asarray(y0, float), None, Callbacks(rhs, keep))
    return np.array(samples), ending
