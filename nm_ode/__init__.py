"""nm_ode: the differential equations that SGD follows, solved beside SGD itself."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nm_ode.charges import predict_charges, solve_charges
    from nm_ode.comparison import compare, compare_ensembles, observed_order
    from nm_ode.ensembles import sgd_ensemble
    from nm_ode.flows import (
        Flow,
        FlowError,
        GradientFlow,
        MinibatchFlow,
        SecondOrderFlow,
        SlowManifoldFlow,
        StochasticModifiedFlow,
        modified_flow,
    )
    from nm_ode.loss import Problem, ProblemError
    from nm_ode.loss.noise import gradient_noise
    from nm_ode.optimizers import SGD, Adam, AdamW
    from nm_ode.optimizers.schedules import Cosine, Drop, Warmup
    from nm_ode.solving import SolveError, solve
    from nm_ode.solving.ensemble import solve_ensemble
    from nm_ode.symmetries import (
        Symmetries,
        Symmetry,
        SymmetryError,
        find_symmetries,
        scan_of,
        scan_symmetries,
        symmetries_of,
    )
    from nm_ode.training import TrainingDiverged, final_state, train

__version__ = "0.1.0"

# Each name is imported when first used, so that `import nm_ode` waits for no library it may not need.
_HOMES = {
    "SGD": "nm_ode.optimizers",
    "Adam": "nm_ode.optimizers",
    "AdamW": "nm_ode.optimizers",
    "Cosine": "nm_ode.optimizers.schedules",
    "Drop": "nm_ode.optimizers.schedules",
    "Flow": "nm_ode.flows",
    "FlowError": "nm_ode.flows",
    "GradientFlow": "nm_ode.flows",
    "modified_flow": "nm_ode.flows",
    "Problem": "nm_ode.loss",
    "ProblemError": "nm_ode.loss",
    "MinibatchFlow": "nm_ode.flows",
    "SecondOrderFlow": "nm_ode.flows",
    "SlowManifoldFlow": "nm_ode.flows",
    "SolveError": "nm_ode.solving",
    "StochasticModifiedFlow": "nm_ode.flows",
    "Symmetries": "nm_ode.symmetries",
    "Symmetry": "nm_ode.symmetries",
    "SymmetryError": "nm_ode.symmetries",
    "TrainingDiverged": "nm_ode.training",
    "Warmup": "nm_ode.optimizers.schedules",
    "compare": "nm_ode.comparison",
    "compare_ensembles": "nm_ode.comparison",
    "final_state": "nm_ode.training",
    "find_symmetries": "nm_ode.symmetries",
    "gradient_noise": "nm_ode.loss.noise",
    "observed_order": "nm_ode.comparison",
    "predict_charges": "nm_ode.charges",
    "scan_of": "nm_ode.symmetries",
    "scan_symmetries": "nm_ode.symmetries",
    "sgd_ensemble": "nm_ode.ensembles",
    "solve": "nm_ode.solving",
    "solve_charges": "nm_ode.charges",
    "solve_ensemble": "nm_ode.solving.ensemble",
    "symmetries_of": "nm_ode.symmetries",
    "train": "nm_ode.training",
}

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Cosine",
    "Drop",
    "Flow",
    "FlowError",
    "GradientFlow",
    "MinibatchFlow",
    "Problem",
    "ProblemError",
    "SecondOrderFlow",
    "SlowManifoldFlow",
    "SolveError",
    "StochasticModifiedFlow",
    "Symmetries",
    "Symmetry",
    "SymmetryError",
    "TrainingDiverged",
    "Warmup",
    "compare",
    "compare_ensembles",
    "final_state",
    "find_symmetries",
    "gradient_noise",
    "modified_flow",
    "observed_order",
    "predict_charges",
    "scan_of",
    "scan_symmetries",
    "sgd_ensemble",
    "solve",
    "solve_charges",
    "solve_ensemble",
    "symmetries_of",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nm_ode' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
