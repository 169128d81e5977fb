"""The values that engines take: one range and one sentence each, for engines, `solve` and case files alike."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridges.errors import EngineError

FINEST_RTOL = 3e-14
"""The smallest relative tolerance of a field that is computed in float64: some hundred roundings."""

FINEST_RTOLS: Mapping[str, float] = MappingProxyType({"float64": FINEST_RTOL, "float32": 1e-6})
"""dtype → the smallest relative tolerance of a field that is computed in it.

Below it what the error control of a method sees is rounding: in float32, steps are ten times too many at 1e-7, and a
thousand times at 1e-9.
"""

MOST = 2**63 - 1
"""The largest count: what 64 bits hold."""

MOST_STEPS = 10**10
"""The most steps of a fixed-step method: weeks of work on the cheapest field."""


@dataclass(frozen=True)
class Limit:
    """A range, with or without its ends; of whole numbers, or of finite numbers.

    Attributes:
        ge, gt, le, lt: as pydantic's Field takes them; None for no such end.
        whole: only whole numbers.
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    whole: bool = False

    def bounds(self) -> dict[str, Any]:
        """Keyword arguments of a pydantic Field of this range."""
        ends = {name: getattr(self, name) for name in ("ge", "gt", "le", "lt")}
        found: dict[str, Any] = {name: end for name, end in ends.items() if end is not None}
        return found if self.whole else {**found, "allow_inf_nan": False}

    def holds(self, value: float) -> bool:
        """Is the value in the range?"""
        return (
            (self.whole or math.isfinite(value))
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def words(self) -> str:
        """ "a number, at least 1e-100, at most 1e+100"."""
        ends = (("at least", self.ge), ("above", self.gt), ("at most", self.le), ("below", self.lt))
        return ", ".join(
            ["a whole number" if self.whole else "a finite number"]
            + [f"{how} {_number(end)}" for how, end in ends if end is not None]
        )


LIMITS: Mapping[str, Limit] = MappingProxyType(
    {
        "rtol": Limit(ge=FINEST_RTOL, lt=1.0),
        # Squares of values over atol must not overflow.
        "atol": Limit(ge=1e-100, le=1e100),
        "step": Limit(gt=0.0),
        "max_step": Limit(gt=0.0),
        "max_steps": Limit(ge=1, le=MOST, whole=True),
        "max_rhs": Limit(ge=1, le=MOST, whole=True),
        "max_seconds": Limit(gt=0.0),
    }
)
"""Option of a solve → the values that engines take."""


def finest_rtol(dtype: str) -> float:
    """The smallest relative tolerance of a field that is computed in "float64" or "float32"."""
    return FINEST_RTOLS[dtype]


def require_limits(*, dtype: str = "float64", span: float | None = None, **values: Any) -> None:
    """Are these values of a solve's options ones that an engine can work with? Asked before anything is computed.

    Args:
        dtype: "float64" or "float32", in which the field is computed.
        span: from the first time to the last, if it is known, for the number of steps.
        values: `rtol`, `atol`, `step`, `max_step`, `max_steps`, `max_rhs`, `max_seconds`, any of them; None for one
            that was not given.

    Raises:
        EngineError: a value out of its range, of a kind that is no number, or a step that would be taken more than
            `MOST_STEPS` times; names the option, what was given and what is allowed.
    """
    for name, value in values.items():
        if value is not None:
            _require(name, value, dtype)
    for name in ("step", "max_step"):
        if span is not None and values.get(name) is not None:
            _require_coarse(name, values[name], span)
    longest, most = values.get("max_step"), values.get("max_steps")
    if span is not None and longest is not None and most is not None and longest * most < span * (1 - 1e-9):
        raise EngineError(
            f"max_steps = {most} steps of at most max_step = {longest:g} do not reach the last time, {span:g} after "
            "the first: raise one of them"
        )


def require_times(times: Any) -> NDArray[np.float64]:
    """Sample times in float64, of which the first is the start; one alone asks for the start.

    Raises:
        EngineError: no vector of finite numbers, none at all, times that do not increase strictly in float64, or whose
            span overflows; names the first that is wrong.
    """
    found = np.asarray(times, dtype=np.float64)
    if found.ndim != 1 or not found.size:
        raise EngineError(
            f"sample times must be a non-empty vector of finite numbers; shape {found.shape} was given"
        )
    wrong = np.flatnonzero(~np.isfinite(found))
    if wrong.size:
        raise EngineError(
            f"sample times must be a non-empty vector of finite numbers; times[{wrong[0]}] = {found[wrong[0]]}"
        )
    if np.abs(found).max() > 1e100:
        raise EngineError("sample times must lie between -1e100 and 1e100")
    back = np.flatnonzero(np.diff(found) <= 0)
    if back.size:
        before, after = found[back[0] : back[0] + 2].tolist()
        raise EngineError(
            f"sample times must increase strictly, the first being the start; times[{back[0]}] = {before!r} is "
            f"followed by {after!r}"
        )
    if found.size > 1 and not found[-1] - found[0] >= 1e-100:
        raise EngineError(f"sample times must span 1e-100 at least; they span {found[-1] - found[0]:g}")
    if (np.diff(found - found[0]) <= 0).any():
        raise EngineError(
            "sample times must increase strictly from the start too: so far from it, some cannot be told apart"
        )
    return found


def _require(name: str, given: Any, dtype: str) -> None:
    limit = LIMITS[name]
    if isinstance(given, bool | np.bool_) or not isinstance(given, numbers.Real):
        raise EngineError(f"{name} = {given!r}: it must be {limit.words()}")
    value = _as_float(given)
    if not value > 0 or (not limit.whole and math.isinf(value)):
        shown = _number(given) if isinstance(given, numbers.Integral) else given
        raise EngineError(f"{name} must be a positive number; {shown} was given")
    if name == "rtol" and value < finest_rtol(dtype):
        remedy = "" if dtype == "float64" else ", or compute in float64"
        raise EngineError(
            f"rtol = {value:g} is below what {dtype} holds: give at least {finest_rtol(dtype):g}{remedy}"
        )
    exact: Any = given if limit.whole else value  # in float32, NumPy warns at our ends
    if not limit.holds(exact) or (limit.whole and exact % 1):
        raise EngineError(f"{name} = {_number(given)}: it must be {limit.words()}")


def _require_coarse(name: str, step: float, span: float) -> None:
    if span / step > MOST_STEPS:
        raise EngineError(
            f"{name} = {step:g} is too small: over the time {span:g} that is {span / step:.1e} steps, and at most "
            f"{MOST_STEPS:.0e} are taken"
        )


def _as_float(number: Any) -> float:
    """A whole number beyond all floats is infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _number(value: Any) -> str:
    """Counts in full as far as they can be read; numbers in six figures."""
    if isinstance(value, numbers.Integral) and abs(int(value)) < 1e6:
        return str(int(value))
    return "2^63 - 1" if value == MOST else f"{_as_float(value):g}"
