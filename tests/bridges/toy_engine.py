"""An engine of one file: the classical Runge–Kutta method. With its registration it is all that a new engine takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from bridges import ENGINES, Method, OdeProblem
from bridges.fixed_step import FixedStep, Tableau
from bridges.problem import Rhs
from bridges.stepping import SteppedEngine, Stepper

RK4 = Tableau(
    a=np.array([[0.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]),
    b=np.array([1.0, 2.0, 2.0, 1.0]) / 6,
    c=np.array([0.0, 0.5, 0.5, 1.0]),
)


class ToyEngine(SteppedEngine):
    name = "toy"
    methods = {"RK4": Method(kind="explicit", order=4, step="required", jumps=True)}  # noqa: RUF012
    version = "toy 1.0"
    remedy = "look into tests/bridges/toy_engine.py"

    def stepper(self, problem: OdeProblem, method: str, rhs: Rhs) -> Stepper:
        return FixedStep(RK4, problem, rhs)


@contextmanager
def toy_registered() -> Iterator[None]:
    """The registration, taken back at the end."""
    ENGINES.register("toy", "tests.bridges.toy_engine:ToyEngine")
    try:
        yield
    finally:
        ENGINES.unregister("toy")
