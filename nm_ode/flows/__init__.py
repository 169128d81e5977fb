"""Vector fields that a training run is compared with."""

from nm_ode.flows.base import Flow, FlowError
from nm_ode.flows.gradient import GradientFlow
from nm_ode.flows.hessian import HessianFlow
from nm_ode.flows.iterated_map import IteratedMapFlow
from nm_ode.flows.minibatch import MinibatchFlow, name_and_title
from nm_ode.flows.modified import modified_flow
from nm_ode.flows.momentum import SecondOrderFlow, SlowManifoldFlow
from nm_ode.flows.stochastic import StochasticModifiedFlow

__all__ = [
    "Flow",
    "FlowError",
    "GradientFlow",
    "HessianFlow",
    "IteratedMapFlow",
    "MinibatchFlow",
    "SecondOrderFlow",
    "SlowManifoldFlow",
    "StochasticModifiedFlow",
    "modified_flow",
    "name_and_title",
]
