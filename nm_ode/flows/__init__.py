"""Vector fields that a training run is compared with."""

from nm_ode.flows.base import Flow, FlowError
from nm_ode.flows.gradient import GradientFlow
from nm_ode.flows.modified import HessianForm, IteratedMapForm, ModifiedFlow

__all__ = ["Flow", "FlowError", "GradientFlow", "HessianForm", "IteratedMapForm", "ModifiedFlow"]
