"""TRANSITION: the checks of options, until bridges has them by capability."""

from __future__ import annotations

from bridges import EngineError, get_engine, require_method
from bridges.julia.methods import METHODS


def require_options(engine: str, method: str | None, step: float | None) -> None:
    """Raises EngineError if engine, method and step do not go together, before anything is computed."""
    if engine == "auto":
        if method is not None or step is not None:
            given = "method" if method is not None else "step"
            raise EngineError(f"{given} goes with a named engine, not with 'auto': name one")
        return
    named = get_engine(engine)
    if engine == "diffeq" and method == "auto":
        method = None
    if method is not None:
        require_method(named, method)
    if engine == "diffeq":
        if step is not None and (method is None or METHODS[method].kind != "explicit"):
            raise EngineError("step goes with an explicit method of engine 'diffeq': name one, such as 'RK4'")
        if method in named.fixed_step_methods and step is None:
            raise EngineError(f"method {method!r} has a fixed step: give `step`")
        return
    fixed = named.fixed_step_methods
    if step is not None and (not fixed or method not in (None, *fixed)):
        raise EngineError(
            "step goes with engine 'scipy' and method 'Midpoint' or 'RK8'; the others choose their own"
        )
    if method in fixed and step is None:
        raise EngineError(f"method {method!r} has a fixed step: give `step`")


def require_ready(engine: str) -> None:
    """Raises EngineError, with the remedy, if the engine lacks something to start; starts nothing."""
    if engine != "auto":
        get_engine(engine).require_ready()
