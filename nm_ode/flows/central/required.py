"""What a central flow takes, and what must be found at the edge of stability for it to go on."""

from __future__ import annotations

from typing import Protocol

from nm_ode.flows.base import FlowError, UpdateMap
from nm_ode.flows.central.metrics import Metric
from nm_ode.flows.central.search import MOST_PRODUCTS
from nm_ode.loss import Problem
from nm_ode.loss.critical import CriticalSpace
from nm_ode.loss.nonsmooth import kinks

_FAR = 3.0  # times the edge: there an oscillation does not wait for curvature to fall, nor is it small


class CentralFlowError(FlowError):
    """There is no central flow at this place, or it is not known well enough to go on."""


class Central(Protocol):
    """A central flow's options."""

    @property
    def problem(self) -> Problem: ...
    @property
    def optimizer(self) -> UpdateMap: ...
    @property
    def followed(self) -> float: ...
    @property
    def most(self) -> int: ...
    @property
    def title(self) -> str: ...
    @property
    def noise(self) -> float: ...


def require_smooth(flow: Central) -> None:
    """Raises FlowError where the loss has kinks."""
    if found := kinks(flow.problem):
        raise FlowError(
            f"{flow.title}: at the edge of stability it takes third derivatives, which a loss with kinks "
            f"({', '.join(found)}) has not: take a smooth network (tanh or GELU, average pooling), or the modified "
            "flow of order 2, which is the same below the edge"
        )


def require_space(flow: Central, space: CriticalSpace, metric: Metric) -> None:
    """Raises CentralFlowError where what was found is too far from the edge, too much, or not found well enough."""
    k, beyond = len(space.values), space.largest / metric.edge
    if metric.remembers and not beyond < _FAR:
        raise CentralFlowError(
            f"{flow.title}: the largest eigenvalue is {beyond:.3g} times that of the edge of stability, as where "
            f"{type(flow.optimizer).__name__} has no memory of its gradients yet: start warm (state0 of train, "
            "warm_steps of a case), or take a smaller lr"
        )
    if k > flow.most:
        raise CentralFlowError(
            f"{flow.title}: {k} directions are at the edge of stability (ηλ above {flow.followed:g}), more than "
            f"most = {flow.most}: raise most, or take a smaller lr"
        )
    if not space.converged:
        raise CentralFlowError(
            f"{flow.title}: the eigenvectors at the edge of stability were not found to {flow.noise:.0e} in "
            f"{MOST_PRODUCTS} Hessian products: lower `followed`, so that there is a gap below it"
        )
