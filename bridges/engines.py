"""The registry of engines: one entry an engine, and nothing else names them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

from bridges.engine import Engine
from bridges.errors import UnknownEngineError
from bridges.registry import Registry, did_you_mean

Capability: TypeAlias = Literal["embedded", "recommends", "laws", "noise", "tensors"]

ENGINES: Registry[Callable[[], Engine]] = Registry(
    "engine",
    {
        "diffeq": "bridges.julia.engine:DiffeqEngine",
        "scipy": "bridges.scipy_ivp:ScipyEngine",
        "sundials": "bridges.sundials:SundialsEngine",
        "torch": "bridges.torch_engine:TorchEngine",
    },
)
"""name → class, or "module:Class", which is imported at first use. A new engine is `ENGINES.register(name, entry)`.

Example:
    >>> from bridges import ENGINES, get_engine
    >>> sorted(ENGINES)
    ['diffeq', 'scipy', 'sundials', 'torch']
    >>> sorted(get_engine("scipy").methods)
    ['DOP853', 'Midpoint', 'RK23', 'RK8']
"""


def engine_names() -> tuple[str, ...]:
    """Names that `get_engine` takes."""
    return tuple(sorted(ENGINES))


def get_engine(name: str) -> Engine:
    """The engine of that name; its module is imported here and not before.

    Raises:
        UnknownEngineError: no engine has this name.
        ImportError: its module cannot be imported.
    """
    if name not in ENGINES:
        raise UnknownEngineError(f"no engine is called {name!r}{did_you_mean(name, engine_names())}")
    return ENGINES[name]()


def engines_with(capability: Capability) -> tuple[str, ...]:
    """Names of the engines that have a capability; those whose module cannot be imported are left out."""
    return tuple(engine.name for engine in _importable() if getattr(engine.capabilities, capability))


def _importable() -> Iterator[Engine]:
    for name in engine_names():
        try:
            yield get_engine(name)
        except ImportError:  # asked for by name, it says so; a list of alternatives goes on without it
            continue
