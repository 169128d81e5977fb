"""nm_ode: the differential equations that SGD follows, solved beside SGD itself."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nm_ode.comparison import compare, observed_order
    from nm_ode.flows import Flow, FlowError, GradientFlow, ModifiedFlow
    from nm_ode.optimizers import SGD
    from nm_ode.problem import Problem, ProblemError
    from nm_ode.solving import SolveError, solve
    from nm_ode.training import TrainingDiverged, train

__version__ = "0.1.0"

# Each name is imported when first used, so that `import nm_ode` waits for no library it may not need.
_HOMES = {
    "SGD": "nm_ode.optimizers",
    "Flow": "nm_ode.flows",
    "FlowError": "nm_ode.flows",
    "GradientFlow": "nm_ode.flows",
    "ModifiedFlow": "nm_ode.flows",
    "Problem": "nm_ode.problem",
    "ProblemError": "nm_ode.problem",
    "SolveError": "nm_ode.solving",
    "TrainingDiverged": "nm_ode.training",
    "compare": "nm_ode.comparison",
    "observed_order": "nm_ode.comparison",
    "solve": "nm_ode.solving",
    "train": "nm_ode.training",
}

__all__ = [
    "SGD",
    "Flow",
    "FlowError",
    "GradientFlow",
    "ModifiedFlow",
    "Problem",
    "ProblemError",
    "SolveError",
    "TrainingDiverged",
    "compare",
    "observed_order",
    "solve",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nm_ode' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
