"""The entries of `flows`: one class a form of flow, each knows how to build it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from nm_ode.flows import Flow, GradientFlow, SecondOrderFlow, SlowManifoldFlow, modified_flow
from nm_ode.flows.base import require_sgd
from nm_ode.loss import Problem
from nm_ode.optimizers import Optimizer
from nm_ode.studies.tables import Table


class FlowTable(Table):
    """A flow; beside a run on minibatches also over which samples its loss is."""

    batches: Literal["same", "full"] | None = None


class GradientFlowTable(FlowTable):
    """Gradient flow."""

    kind: Literal["gradient"]

    def build(self, problem: Problem, optimizer: Optimizer) -> Flow:
        """The flow; FlowError for an optimiser that it is not of."""
        return GradientFlow(problem, require_sgd(optimizer, "gradient flow"))


class ModifiedFlowTable(FlowTable):
    """Modified flow of the optimiser."""

    kind: Literal["modified"]
    order: Annotated[int, Field(ge=1)] = 2
    form: Literal["iterated_map", "hessian"] = "iterated_map"

    @model_validator(mode="after")
    def _order_exists(self) -> ModifiedFlowTable:
        if self.form == "hessian" and self.order > 3:
            raise PydanticCustomError(
                "combination", "form = 'hessian' goes up to order = 3; form = 'iterated_map' has every order"
            )
        return self

    def build(self, problem: Problem, optimizer: Optimizer) -> Flow:
        """The flow; FlowError for an optimiser that it is not of."""
        return modified_flow(problem, optimizer, self.order, self.form)


class SecondOrderTable(FlowTable):
    """The second-order-in-time form of SGD with momentum."""

    kind: Literal["second_order"]

    def build(self, problem: Problem, optimizer: Optimizer) -> Flow:
        """The flow; FlowError for an optimiser that it is not of."""
        return SecondOrderFlow(problem, require_sgd(optimizer, "second-order form"))


class SlowManifoldTable(FlowTable):
    """The flow on the slow manifold of SGD with momentum."""

    kind: Literal["slow_manifold"]
    order: Literal[1, 2] = 2

    def build(self, problem: Problem, optimizer: Optimizer) -> Flow:
        """The flow; FlowError for an optimiser that it is not of."""
        return SlowManifoldFlow(problem, require_sgd(optimizer, "slow-manifold flow"), self.order)


AnyFlow: TypeAlias = Annotated[
    GradientFlowTable | ModifiedFlowTable | SecondOrderTable | SlowManifoldTable, Field(discriminator="kind")
]
