"""nm_ode: the differential equations that SGD follows, solved beside SGD itself."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nm_ode import plots
    from nm_ode.batch.here import run_study
    from nm_ode.charges import LawError, predict_charges, solve_charges
    from nm_ode.comparison import compare, compare_ensembles, gaussian_window, observed_order
    from nm_ode.comparison.study import study_frame
    from nm_ode.ensembles import sgd_ensemble
    from nm_ode.errors import ArgumentError, NmOdeError
    from nm_ode.flows import (
        CentralFlow,
        Flow,
        FlowError,
        GradientFlow,
        MinibatchFlow,
        SecondOrderFlow,
        SlowManifoldFlow,
        StochasticModifiedFlow,
        modified_flow,
    )
    from nm_ode.loss import Problem, ProblemError, RandomProblem, WithLoss, own_loss
    from nm_ode.loss.noise import gradient_noise
    from nm_ode.observers import (
        Averages,
        Charges,
        Constraints,
        Curvature,
        Every,
        HeldOut,
        Hessian,
        KinkCrossings,
        Observer,
        Scores,
        Sketch,
        Statistics,
        View,
        spectral_density,
    )
    from nm_ode.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop, ScalarRMSprop
    from nm_ode.optimizers.schedules import Cosine, Drop, Warmup
    from nm_ode.recorder import Recorder
    from nm_ode.results import (
        Checkpoint,
        ResultError,
        StoreError,
        Variable,
        comparison_info,
        ensemble_info,
        frame,
        law_info,
        member_run,
        open_run,
        open_store,
        open_study,
        run_info,
        solve_info,
        study_info,
    )
    from nm_ode.solving import SolveError, solve, solve_ensemble
    from nm_ode.symmetries import (
        Symmetries,
        Symmetry,
        SymmetryError,
        find_symmetries,
        scan_of,
        scan_symmetries,
        symmetries_of,
    )
    from nm_ode.together import Members
    from nm_ode.training import TrainingDiverged, final_state, train

__version__ = "0.1.0"

# Each name is imported when first used, so that `import nm_ode` waits for no library it may not need.
_HOMES = {
    "Adam": "nm_ode.optimizers",
    "AdamW": "nm_ode.optimizers",
    "ArgumentError": "nm_ode.errors",
    "Averages": "nm_ode.observers",
    "CentralFlow": "nm_ode.flows",
    "Charges": "nm_ode.observers",
    "Checkpoint": "nm_ode.results",
    "Constraints": "nm_ode.observers",
    "Cosine": "nm_ode.optimizers.schedules",
    "Curvature": "nm_ode.observers",
    "Drop": "nm_ode.optimizers.schedules",
    "Every": "nm_ode.observers",
    "Flow": "nm_ode.flows",
    "FlowError": "nm_ode.flows",
    "GradientFlow": "nm_ode.flows",
    "HeldOut": "nm_ode.observers",
    "Hessian": "nm_ode.observers",
    "KinkCrossings": "nm_ode.observers",
    "LawError": "nm_ode.charges",
    "Members": "nm_ode.together",
    "MinibatchFlow": "nm_ode.flows",
    "NmOdeError": "nm_ode.errors",
    "Noise": "nm_ode.observers",
    "Observer": "nm_ode.observers",
    "Optimizer": "nm_ode.optimizers",
    "Problem": "nm_ode.loss",
    "ProblemError": "nm_ode.loss",
    "RMSprop": "nm_ode.optimizers",
    "RandomProblem": "nm_ode.loss",
    "Recorder": "nm_ode.recorder",
    "ResultError": "nm_ode.results",
    "SGD": "nm_ode.optimizers",
    "ScalarRMSprop": "nm_ode.optimizers",
    "Scores": "nm_ode.observers",
    "SecondOrderFlow": "nm_ode.flows",
    "Sketch": "nm_ode.observers",
    "SlowManifoldFlow": "nm_ode.flows",
    "SolveError": "nm_ode.solving",
    "Statistics": "nm_ode.observers",
    "StochasticModifiedFlow": "nm_ode.flows",
    "StoreError": "nm_ode.results",
    "Symmetries": "nm_ode.symmetries",
    "Symmetry": "nm_ode.symmetries",
    "SymmetryError": "nm_ode.symmetries",
    "TrainingDiverged": "nm_ode.training",
    "Variable": "nm_ode.results",
    "View": "nm_ode.observers",
    "Warmup": "nm_ode.optimizers.schedules",
    "WithLoss": "nm_ode.loss",
    "compare": "nm_ode.comparison",
    "compare_ensembles": "nm_ode.comparison",
    "comparison_info": "nm_ode.results",
    "ensemble_info": "nm_ode.results",
    "final_state": "nm_ode.training",
    "find_symmetries": "nm_ode.symmetries",
    "frame": "nm_ode.results",
    "gaussian_window": "nm_ode.comparison",
    "gradient_noise": "nm_ode.loss.noise",
    "law_info": "nm_ode.results",
    "member_run": "nm_ode.results",
    "modified_flow": "nm_ode.flows",
    "observed_order": "nm_ode.comparison",
    "open_run": "nm_ode.results",
    "open_store": "nm_ode.results",
    "open_study": "nm_ode.results",
    "own_loss": "nm_ode.loss",
    "predict_charges": "nm_ode.charges",
    "run_info": "nm_ode.results",
    "run_study": "nm_ode.batch.here",
    "scan_of": "nm_ode.symmetries",
    "scan_symmetries": "nm_ode.symmetries",
    "sgd_ensemble": "nm_ode.ensembles",
    "solve": "nm_ode.solving",
    "solve_charges": "nm_ode.charges",
    "solve_ensemble": "nm_ode.solving",
    "solve_info": "nm_ode.results",
    "spectral_density": "nm_ode.observers",
    "study_frame": "nm_ode.comparison.study",
    "study_info": "nm_ode.results",
    "symmetries_of": "nm_ode.symmetries",
    "train": "nm_ode.training",
}

_RENAMED = {
    "ModifiedFlow": "modified_flow()",
    "SameBatchFlow": "MinibatchFlow",
    "SecondOrderForm": "SecondOrderFlow",
    "SlowManifold": "SlowManifoldFlow",
}

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "ArgumentError",
    "Averages",
    "CentralFlow",
    "Charges",
    "Checkpoint",
    "Constraints",
    "Cosine",
    "Curvature",
    "Drop",
    "Every",
    "Flow",
    "FlowError",
    "GradientFlow",
    "HeldOut",
    "Hessian",
    "KinkCrossings",
    "LawError",
    "Members",
    "MinibatchFlow",
    "NmOdeError",
    "Noise",
    "Observer",
    "Optimizer",
    "Problem",
    "ProblemError",
    "RMSprop",
    "RandomProblem",
    "Recorder",
    "ResultError",
    "ScalarRMSprop",
    "Scores",
    "SecondOrderFlow",
    "Sketch",
    "SlowManifoldFlow",
    "SolveError",
    "Statistics",
    "StochasticModifiedFlow",
    "StoreError",
    "Symmetries",
    "Symmetry",
    "SymmetryError",
    "TrainingDiverged",
    "Variable",
    "View",
    "Warmup",
    "WithLoss",
    "compare",
    "compare_ensembles",
    "comparison_info",
    "ensemble_info",
    "final_state",
    "find_symmetries",
    "frame",
    "gaussian_window",
    "gradient_noise",
    "law_info",
    "member_run",
    "modified_flow",
    "observed_order",
    "open_run",
    "open_store",
    "open_study",
    "own_loss",
    "plots",
    "predict_charges",
    "run_info",
    "run_study",
    "scan_of",
    "scan_symmetries",
    "sgd_ensemble",
    "solve",
    "solve_charges",
    "solve_ensemble",
    "solve_info",
    "spectral_density",
    "study_frame",
    "study_info",
    "symmetries_of",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "plots":
        return importlib.import_module("nm_ode.plots")
    if name in _RENAMED:
        raise AttributeError(f"nm_ode.{name} is now nm_ode.{_RENAMED[name]}")
    if name not in _HOMES:
        message = f"module 'nm_ode' has no attribute {name!r}"
        raise AttributeError(
            message, name=name, obj=sys.modules[__name__]
        )  # so that Python names one that is near
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
