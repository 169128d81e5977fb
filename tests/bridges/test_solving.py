"""An engine's success is looked at before it is believed."""

from __future__ import annotations

import numpy as np
import pytest

from bridges import Engine, Method, OdeProblem, OdeSolution, Statistics, solve_with
from tests.bridges.equations import Y0, decay

TIMES = np.array([10.0, 11.0, 12.0])


class Telling(Engine):
    """An engine that gives what it was told to, and says success."""

    name, version, methods = "telling", "1", {"any": Method(kind="explicit", order=1)}

    def __init__(self, samples, reached: float = 2.0, evaluates: bool = True) -> None:
        self._samples, self._reached, self._evaluates = samples, reached, evaluates

    def solve(self, problem: OdeProblem, method: str, on_sample) -> OdeSolution:
        if self._evaluates:
            problem.rhs(0.0, Y0, np.empty_like(Y0))
        for index, t, y in self._samples:
            on_sample(index, t, np.asarray(y))
        reached = problem.origin + self._reached
        return OdeSolution("telling", method, "success", "done", reached, 3, Statistics(1, 1, 0, 0.0))


GOOD = [(0, 0.0, Y0), (1, 1.0, Y0), (2, 2.0, Y0)]


@pytest.mark.parametrize(
    ("engine", "status", "message", "samples"),
    [
        (Telling(GOOD), "success", "done", 3),
        (Telling(GOOD[:2]), "step_failure", "2 of 3 samples", 2),
        (Telling([GOOD[0], (1, 1.0, [1.0, np.nan, 0.0])]), "non_finite", "not finite at t = 11", 1),
        (Telling([GOOD[0], (1, 1.0, [1.0, np.inf, 0.0])]), "non_finite", "not finite at t = 11", 1),
        (Telling([GOOD[0], (1, 1.0, [1.0])]), "non_finite", "not finite", 1),
        (Telling([GOOD[0], GOOD[2]]), "step_failure", "sample 2 came where 1 was due", 1),
        (Telling([GOOD[0], (1, 1.5, Y0)]), "step_failure", "not of its own time", 1),
        (Telling(GOOD, reached=1.5), "step_failure", "having reached t = 11.5 alone", 3),
        (Telling(GOOD, evaluates=False), "step_failure", "without having evaluated", 3),
        (Telling([*GOOD, (3, 3.0, Y0)]), "step_failure", "sample 3 came", 3),
    ],
)
def test_what_an_engine_gives_is_looked_at(engine: Engine, status: str, message: str, samples: int) -> None:
    heard = []
    problem = OdeProblem(decay, Y0, TIMES)
    solution = solve_with(engine, problem, "any", lambda index, t, y: heard.append(t))
    assert solution.status == status
    assert message in solution.message
    assert solution.samples == len(heard) == samples
    assert heard == TIMES[:samples].tolist()


def test_what_a_callable_raises_comes_out() -> None:
    def refuses(index, t, y):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        solve_with(Telling(GOOD), OdeProblem(decay, Y0, TIMES), "any", refuses)
