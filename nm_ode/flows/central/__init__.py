"""The central flow: what descent follows on average at the edge of stability."""

from nm_ode.flows.central.flow import CentralFlow, CentralFlowError

__all__ = ["CentralFlow", "CentralFlowError"]
