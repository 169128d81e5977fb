"""The options of a solve as the caller gave them: converted where the meaning is plain, else refused in a sentence."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch

from bridges import AUTO, EngineError, engine_names, require_limits, require_options
from nm_ode.arguments import as_count, as_number, dtype_name, said
from nm_ode.errors import ArgumentError
from nm_ode.flows import Flow, StochasticModifiedFlow


@dataclass(frozen=True)
class Options:
    """Engine, method, tolerances, step and limits, as in `solve`."""

    engine: str = AUTO
    method: str | None = None
    rtol: float | None = None
    atol: float | None = None
    step: float | None = None
    max_step: float | None = None
    max_steps: int | None = None
    max_rhs: int | None = None
    max_seconds: float | None = None

    def require(self, dtype: torch.dtype, span: float | None = None) -> None:
        """Raises EngineError for a value that no engine could work with on a field computed in `dtype`.

        Args:
            span: from the first time to the last, once it is known.
        """
        values = {name: getattr(self, name) for name in (*_NUMBERS, *_COUNTS)}
        require_limits(dtype=dtype_name(dtype), span=span, **values)

    def within(self, **changes: Any) -> Options:
        """The same but for these."""
        return replace(self, **changes)


_NUMBERS = ("rtol", "atol", "step", "max_step", "max_seconds")
_COUNTS = ("max_steps", "max_rhs")


def options(engine: Any, method: Any, **numbers: Any) -> Options:
    """From what a caller gave: numbers of any kind, None for what was left out (as engine too: "auto").

    Raises:
        EngineError: unknown names, what is no name or number, and what does not go together.
    """
    engine = AUTO if engine is None else engine
    for what, given in (("engine", engine), ("method", method)):
        if given is not None and not isinstance(given, str):
            names = ", ".join(map(repr, (AUTO, *engine_names())))
            known = f"one of {names}" if what == "engine" else "the name of one of the engine's methods"
            raise EngineError(f"{what} must be {known}; {said(given)} was given")
    converted: dict[str, Any] = {}
    for name, value in numbers.items():
        converted[name] = None if value is None else _number(name, value)
    require_options(engine, method, converted.get("step"))
    return Options(engine, method, **converted)


def _number(name: str, value: Any) -> float | int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value  # its range is looked at with the others'
    if name in _COUNTS:
        return as_count(value, name, error=EngineError)
    return as_number(value, name, error=EngineError)


def require_flow(flow: Any) -> None:
    """Raises ArgumentError for what is no flow, with where to find one."""
    if isinstance(flow, Flow):
        return
    if isinstance(flow, StochasticModifiedFlow):
        raise ArgumentError("a stochastic flow has paths, not one solution: use nm_ode.solve_ensemble")
    raise ArgumentError(
        f"the first argument must be a flow, such as nm_ode.GradientFlow(problem); {said(flow)} was given"
    )


def names(given: Any, name: str, known: Collection[str]) -> tuple[str, ...]:
    """A list of names; one alone may be given as a text.

    Raises:
        ArgumentError: another kind, or a name that is not known.
    """
    listed = [given] if isinstance(given, str) else given
    try:
        found = tuple(listed)
    except TypeError:
        raise ArgumentError(f"{name} must be a list of names; {said(given)} was given") from None
    unknown = [one for one in found if one not in known]
    if unknown:
        shown = ", ".join(sorted(one if isinstance(one, str) else said(one) for one in unknown))
        raise ArgumentError(f"{name}: unknown {shown}; known are {', '.join(known)}")
    return found
