"""The `[optimizer]` table: one class an optimiser, and the schedules of its learning rate."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from nm_ode.optimizers import SGD, Adam, AdamW, Optimizer
from nm_ode.optimizers.schedules import Cosine, Drop, Schedule, Warmup
from nm_ode.studies.tables import Table


class DropTable(Table):
    """lr times `factor` from each of the steps `at` on."""

    name: Literal["drop"]
    at: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1

    @field_validator("at")
    @classmethod
    def _increase(cls, at: list[int]) -> list[int]:
        if at != sorted(set(at)):
            raise PydanticCustomError("not_allowed", "steps that increase")
        return at

    def build(self) -> Schedule:
        """The schedule."""
        return Drop(tuple(self.at), self.factor)


class WarmupTable(Table):
    """Linear over the first `steps` steps."""

    name: Literal["warmup"]
    steps: Annotated[int, Field(ge=1)]

    def build(self) -> Schedule:
        """The schedule."""
        return Warmup(self.steps)


class CosineTable(Table):
    """Down to `final` times lr at the end of the run, after a linear warm-up."""

    name: Literal["cosine"]
    final: Annotated[float, Field(gt=0, le=1)] = 0.01
    warmup: Annotated[int, Field(ge=0)] = 0

    def build(self) -> Schedule:
        """The schedule."""
        return Cosine(self.final, self.warmup)


ScheduleTable = Annotated[DropTable | WarmupTable | CosineTable, Field(discriminator="name")]

Lr: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decay: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Beta: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


class SgdOptimizer(Table):
    """torch.optim.SGD."""

    name: Literal["sgd"] = "sgd"
    lr: Lr
    momentum: Beta = 0.0
    dampening: Beta = 0.0
    weight_decay: Decay = 0.0
    nesterov: bool = False
    schedule: ScheduleTable | None = None

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> SgdOptimizer:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise PydanticCustomError(
                "combination", "nesterov = true needs momentum > 0 and dampening = 0, as in torch.optim.SGD"
            )
        return self

    def build(self, lr: float | None = None) -> Optimizer:
        """The optimiser, at another learning rate if one is given."""
        options = self.model_dump(exclude={"name", "schedule"})
        return SGD(**options | ({} if lr is None else {"lr": lr}))


class AdamOptimizer(Table):
    """torch.optim.Adam, and AdamW."""

    name: Literal["adam", "adamw"]
    lr: Lr
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-8
    weight_decay: Decay | None = None
    schedule: ScheduleTable | None = None

    @field_validator("betas", mode="before")
    @classmethod
    def _two(cls, betas: object) -> object:
        return tuple(betas) if isinstance(betas, list) else betas

    def build(self, lr: float | None = None) -> Optimizer:
        """The optimiser, at another learning rate if one is given; torch's own weight decay if none is."""
        options = self.model_dump(exclude={"name", "schedule"}, exclude_none=True)
        made = Adam if self.name == "adam" else AdamW
        return made(**options | ({} if lr is None else {"lr": lr}))


OptimizerTable: TypeAlias = Annotated[SgdOptimizer | AdamOptimizer, Field(discriminator="name")]
