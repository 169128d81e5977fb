"""Do engine, method, step and problem fit together? Asked of each method's properties, never of an engine's name."""

from __future__ import annotations

from bridges.engine import Engine
from bridges.engines import ENGINES, engine_names, engines_with, get_engine
from bridges.errors import EngineError, UnknownEngineError, UnknownMethodError
from bridges.methods import Kind, Method
from bridges.problem import OdeProblem
from bridges.registry import did_you_mean
from bridges.vectors import is_tensor

AUTO = "auto"
"""The name that leaves the choice of an engine, or of an engine's method, to the package."""


def require_options(engine: str, method: str | None, step: float | None) -> None:
    """Raises EngineError if engine, method and step do not fit together, before anything is computed.

    Args:
        engine: a name, or "auto", which goes with no method and no step.
        method: one of the engine's; None or "auto" leaves it to the engine.
        step: of a fixed-step method.
    """
    if engine == AUTO:
        if method is not None or step is not None:
            given = "method" if method is not None else "step"
            raise EngineError(f"{given} goes with a named engine, not with 'auto': name one")
        return
    if engine not in ENGINES:
        known = (*engine_names(), AUTO)
        raise UnknownEngineError(f"no engine is called {engine!r}{did_you_mean(engine, known)}")
    resolve_method(get_engine(engine), method, step)


def require_ready(engine: str) -> None:
    """Raises EngineError, with the remedy, if the engine lacks something to start; "auto" lacks nothing.

    Nothing is started.
    """
    if engine != AUTO:
        get_engine(engine).require_ready()


def require_jumps(engine: str, method: str | None, step: float | None) -> None:
    """Raises EngineError if the steps of this method would cross the times at which a field jumps.

    Or if they do not fit together, see `require_options`. "auto" takes a method that stops at the jumps.
    """
    require_options(engine, method, step)
    if engine != AUTO:
        named = get_engine(engine)
        _require_stops_at_jumps(named, resolve_method(named, method, step))


def resolve_method(engine: Engine, method: str | None, step: float | None) -> str:
    """`method`, or the engine's default for None and "auto".

    Raises:
        UnknownMethodError: the engine has no such method.
        EngineError: the method and the step do not fit together, or a method must be named.
    """
    named = engine.default_method(step) if method in (None, AUTO) else method
    if named is None:
        if step is not None:
            raise EngineError(f"step goes with {_methods_with_a_step(engine)}: name one")
        raise EngineError(f"every method of engine {engine.name!r} has a fixed step: give `step`")
    require_method(engine, named)
    require_step_fits(engine, named, step)
    return named


def require_method(engine: Engine, method: str) -> None:
    """Raises UnknownMethodError, with near names, unless `engine` has `method`."""
    if method not in engine.methods:
        hint = did_you_mean(method, engine.methods)
        raise UnknownMethodError(f"engine {engine.name!r} has no method {method!r}{hint}")


def require_fit(engine: Engine, problem: OdeProblem, method: str) -> Method:
    """The properties of `method`, which fit the problem; what every `Engine.solve` asks first.

    Raises:
        UnknownMethodError: the engine has no such method.
        EngineError: a step for a method that chooses its own, none for one that needs it, or a field that jumps for a
            method whose steps would cross the jumps.
    """
    require_method(engine, method)
    require_step_fits(engine, method, problem.step)
    if is_tensor(problem.y0) and not engine.capabilities.tensors:
        others = " or ".join(map(repr, engines_with("tensors")))
        raise EngineError(
            f"engine {engine.name!r} takes the state as a NumPy array on the host, and no tensor: take engine {others}"
        )
    if problem.restarts is not None:
        _require_stops_at_jumps(engine, method)
    return engine.methods[method]


def require_step_fits(engine: Engine, method: str, step: float | None) -> None:
    """Raises EngineError for a step to a method that chooses its own, or none to one that needs it."""
    use = engine.methods[method].step
    if step is None and use == "required":
        raise EngineError(f"method {method!r} has a fixed step: give `step`")
    if step is not None and use == "none":
        raise EngineError(
            f"method {method!r} chooses its own steps: give tolerances, not `step`; step goes with "
            f"{_methods_with_a_step(engine)}"
        )


def _require_stops_at_jumps(engine: Engine, method: str) -> None:
    if not engine.methods[method].jumps:
        raise EngineError(
            f"method {method!r} steps across the times at which this field jumps: take {_methods_for_jumps()}'auto'"
        )


def _methods_with_a_step(engine: Engine) -> str:
    """A phrase for the engine's methods that take a step; where it has none, for those of the embedded engines."""
    own = {name: method for name, method in engine.methods.items() if method.step != "none"}
    if not own:
        others = map(get_engine, engines_with("embedded"))
        return " or ".join(filter(None, (_and_methods(other, _with_fixed_step(other)) for other in others)))
    kinds = {method.kind for method in own.values()}
    if all((method.kind in kinds) == (name in own) for name, method in engine.methods.items()):
        example = max(_with_fixed_step(engine) or own, key=lambda name: own[name].order)
        kind = " or ".join(_WITH_ARTICLE[kind] for kind in sorted(kinds))
        return f"{kind} method of engine {engine.name!r}, such as {example!r}"
    return _and_methods(engine, tuple(own))


_WITH_ARTICLE: dict[Kind, str] = {
    "explicit": "an explicit",
    "stabilised": "a stabilised",
    "implicit": "an implicit",
}


def _methods_for_jumps() -> str:
    phrases = []
    for name in engines_with("embedded"):
        engine = get_engine(name)
        fit = tuple(name for name, method in engine.methods.items() if method.jumps)
        if fit:
            phrases.append(_and_methods(engine, fit))
    return "".join(f"{phrase} with a step, or " for phrase in phrases)


def _with_fixed_step(engine: Engine) -> tuple[str, ...]:
    return tuple(name for name, method in engine.methods.items() if method.step == "required")


def _and_methods(engine: Engine, names: tuple[str, ...]) -> str:
    if not names:
        return ""
    return f"engine {engine.name!r} and method {' or '.join(map(repr, names))}"
