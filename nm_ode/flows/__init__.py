"""Vector fields that a training run is compared with."""

from collections.abc import Callable

from nm_ode.flows.base import Cost, Flow, FlowError
from nm_ode.flows.central import CentralFlow, CentralFlowError
from nm_ode.flows.gradient import GradientFlow
from nm_ode.flows.hessian import HessianFlow
from nm_ode.flows.iterated_map import IteratedMapFlow
from nm_ode.flows.minibatch import MinibatchFlow, beside_a_run, follow_batches
from nm_ode.flows.modified import modified_flow
from nm_ode.flows.momentum import SecondOrderFlow, SlowManifoldFlow
from nm_ode.flows.stochastic import StochasticModifiedFlow
from nm_ode.registry import Registry

FLOWS: Registry[Callable[..., Flow]] = Registry(
    "flow",
    {
        "central": CentralFlow,
        "gradient": GradientFlow,
        "modified": modified_flow,
        "second_order": SecondOrderFlow,
        "slow_manifold": SlowManifoldFlow,
    },
)
"""Kind in a case file → what makes it from (problem, optimizer, options…).

Example:
    >>> import nm_ode
    >>> from nm_ode.flows import FLOWS
    >>> sorted(FLOWS)
    ['central', 'gradient', 'modified', 'second_order', 'slow_manifold']
    >>> FLOWS["gradient"] is nm_ode.GradientFlow
    True
"""

__all__ = [
    "FLOWS",
    "CentralFlow",
    "CentralFlowError",
    "Cost",
    "Flow",
    "FlowError",
    "GradientFlow",
    "HessianFlow",
    "IteratedMapFlow",
    "MinibatchFlow",
    "SecondOrderFlow",
    "SlowManifoldFlow",
    "StochasticModifiedFlow",
    "beside_a_run",
    "follow_batches",
    "modified_flow",
]
