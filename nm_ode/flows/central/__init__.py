"""The central flow: what descent follows on average at the edge of stability."""

from nm_ode.flows.central.flow import CentralFlow
from nm_ode.flows.central.required import CentralFlowError

__all__ = ["CentralFlow", "CentralFlowError"]
