"""What is measured once for a problem, however often it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

from nm_ode.loss.problem import Problem

R = TypeVar("R")


def once_per_problem(measure: Callable[[Problem], R]) -> Callable[[Problem], R]:
    """A function that keeps what it found, as long as the problem lives; of each view (`subset`) anew."""
    found: WeakKeyDictionary[Problem, R] = WeakKeyDictionary()

    @functools.wraps(measure)
    def measured(problem: Problem) -> R:
        if problem not in found:
            found[problem] = measure(problem)
            problem.rest()  # and let go of where it was measured
        return found[problem]

    return measured
