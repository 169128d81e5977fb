"""Vector fields that a training run is compared with."""

from nm_ode.flows.base import Flow, FlowError
from nm_ode.flows.batches import SameBatchFlow, name_and_title
from nm_ode.flows.gradient import GradientFlow
from nm_ode.flows.hessian import HessianForm
from nm_ode.flows.iterated_map import IteratedMapForm
from nm_ode.flows.modified import ModifiedFlow
from nm_ode.flows.momentum import SecondOrderForm, SlowManifold
from nm_ode.flows.stochastic import StochasticModifiedFlow

__all__ = [
    "Flow",
    "FlowError",
    "GradientFlow",
    "HessianForm",
    "IteratedMapForm",
    "ModifiedFlow",
    "SameBatchFlow",
    "SecondOrderForm",
    "SlowManifold",
    "StochasticModifiedFlow",
    "name_and_title",
]
