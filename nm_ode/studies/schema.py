"""The case file as a schema: what it may say, and what goes together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from bridges import AUTO, LIMITS, EngineError, engine_names, require_limits
from nm_ode.charges import LAWS
from nm_ode.required import LARGEST
from nm_ode.studies.entries import CodeTable, DataTable, FlowTable, ModelTable, ObserverTable, OptimizerTable
from nm_ode.studies.losses import LOSSES
from nm_ode.studies.sweep.table import SweepTable
from nm_ode.studies.tables import Table, combination, not_allowed, unknown_name
from nm_ode.symmetries import KINDS


def _known(names: Mapping[str, Any] | tuple[str, ...]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise unknown_name(name, names)
        return name

    return AfterValidator(check)


_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}


def _on_any_system(name: str) -> str:
    """A folder of this name can be made on Windows too."""
    if name.partition(".")[0].lower() in _DEVICES or name.endswith("."):
        raise not_allowed(
            "the name of a folder on any system: no device of Windows, and without a dot at its end"
        )
    return name


def _which(table: Any) -> str:
    python = "python" in table if isinstance(table, Mapping) else isinstance(table, CodeTable)
    return "<own code>" if python else "<entry>"


OwnCode = Annotated[CodeTable, Tag("<own code>")]


class Training(Table):
    """Length and batches of the discrete run.

    Attributes:
        steps: number of updates.
        batch_size: "full", or the number of samples in a minibatch.
        warm_steps: updates that are taken before the run starts, and are no part of it.
        save_every: theta is kept at steps 0, save_every, 2·save_every, … and at the last.
        full_loss: is the loss over all samples recorded?
    """

    steps: Annotated[int, Field(ge=1, le=LARGEST)]
    batch_size: int | Literal["full"] = "full"
    warm_steps: Annotated[int, Field(ge=0, le=LARGEST)] = 0
    save_every: Annotated[int, Field(ge=1, le=LARGEST)] = 1
    full_loss: bool = True

    @field_validator("batch_size", mode="before")
    @classmethod
    def _number_or_full(cls, value: Any) -> Any:
        if value != "full" and not (type(value) is int and value >= 1):
            raise not_allowed("'full' or a number of samples, at least 1")
        return value


class Solver(Table):
    """Engine and tolerances for all flows of the case, as `nm_ode.solve` takes them.

    Attributes:
        engine: "auto", or an engine's name; of a list, the further ones check the first.
        method: one of the engine's; by default its own choice.
        rtol: relative tolerance of the local error; by default from the smoothness of the flow.
        atol: absolute tolerance; by default rtol/1000.
        step: the step of a fixed-step method, in flow time.
        max_step: the longest step of an adaptive one, in flow time.
        max_steps: the most steps of one solve.
        max_rhs: the most right-hand sides, Jacobian products and probes of one solve, together.
        max_seconds: the longest that one solve may take.
        samples: at how many of the run's saved steps a flow is recorded, both ends among them; by default at all.
        check: solve again with finer tolerances, and record the distance as the solver's own error?
    """

    engine: str | list[str] = AUTO
    method: str | None = None
    rtol: Annotated[float, Field(**LIMITS["rtol"].bounds())] | None = None
    atol: Annotated[float, Field(**LIMITS["atol"].bounds())] | None = None
    step: Annotated[float, Field(**LIMITS["step"].bounds())] | None = None
    max_step: Annotated[float, Field(**LIMITS["max_step"].bounds())] | None = None
    max_steps: Annotated[int, Field(**LIMITS["max_steps"].bounds())] | None = None
    max_rhs: Annotated[int, Field(**LIMITS["max_rhs"].bounds())] | None = None
    max_seconds: Annotated[float, Field(**LIMITS["max_seconds"].bounds())] | None = None
    samples: Annotated[int, Field(ge=2, le=LARGEST)] | None = None
    check: bool = True

    @field_validator("engine", mode="before")
    @classmethod
    def _one_or_several(cls, engine: Any) -> Any:
        names = [engine] if isinstance(engine, str) else engine
        if not isinstance(names, list) or not names or len(set(map(str, names))) < len(names):
            raise not_allowed("an engine's name, or a list of different ones")
        known = (AUTO, *engine_names())
        for name in names:
            if name not in known:
                raise unknown_name(str(name), known)
        return engine

    @property
    def values(self) -> dict[str, float | None]:
        """The options that are numbers."""
        return {name: getattr(self, name) for name in LIMITS}

    @property
    def engines(self) -> list[str]:
        """The engine that solves, and those that check it."""
        return [self.engine] if isinstance(self.engine, str) else list(self.engine)

    def options(self) -> dict[str, Any]:
        """For `solve`, by the first engine."""
        return {**self.model_dump(exclude={"check", "samples"}), "engine": self.engines[0]}


class SymmetriesTable(Table):
    """Symmetries to find and verify, whose charges are recorded and predicted.

    Attributes:
        kinds: which to find; by default all.
        layers: record only charges of symmetries in which no other layer takes part.
        laws: by which the charges are predicted; by default those that hold for the optimiser.
        charges_every: from one step at which the charges are recorded to the next.
    """

    kinds: Annotated[list[Annotated[str, _known(KINDS)]], Field(min_length=1)] | None = None
    layers: Annotated[list[str], Field(min_length=1)] | None = None
    laws: list[Annotated[str, _known(LAWS)]] | None = None
    charges_every: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _laws_have_every_step(self) -> SymmetriesTable:
        for law in self.laws or () if self.charges_every > 1 else ():
            if LAWS[law].recursion is None:
                raise combination(
                    f"law {law!r} needs what drives the charges at each step: leave charges_every out, or the law"
                )
        return self


class StabilityTable(Table):
    """Sharpness along the run.

    Attributes:
        points: at how many steps it is measured.
        required: is a model without a second derivative a mistake? If not, it has no sharpness.
    """

    points: Annotated[int, Field(ge=2, le=LARGEST)] = 20
    required: bool = True


def _as_sweep(raw: Mapping[str, Any]) -> str:
    """How a ladder is written as a sweep."""

    def number(table: str, key: str) -> Any:
        found = raw.get(table)
        value = found.get(key) if isinstance(found, Mapping) else None
        return value if isinstance(value, int | float) else None

    ladder, lr = raw["ladder"], number("optimizer", "lr")
    lrs = ladder.get("lr") if isinstance(ladder, Mapping) else None
    kept = [
        f"lr * {key} = {lr * value:g}"
        for key in ("steps", "warm_steps")
        if lr and (value := number("training", key))
    ]
    return (
        f'[sweep] with "optimizer.lr" = {lrs if isinstance(lrs, list) else [0.2, 0.1, 0.05]}, '
        f'constraint = {kept or ["lr * steps = 8"]}, reduce = ["order"]'
    )


class Case(Table):
    """One study: model, data, objective, optimiser, and the flows to compare the run with.

    Attributes:
        name: of the case, and of the folder of its results.
        title: of the report.
        seed: of the model, the order of the samples, and what else is drawn.
        dtype: of parameters and floating-point inputs.
        device: where to compute: "cpu", "cuda", "cuda:1", …
        chunk_size: the most samples in one forward pass; by default all at once.
        ghost_batches: is the loss over more than chunk_size samples the mean over parts of that size, each with its
            own statistics in BatchNorm?
        autocast: the dtype of forward passes, where that is coarser.
        loss: of the model's output and the targets. Either this or `objective`.
        objective: of model and batch, your own code.
        model: a network by its name, or your own code.
        data: a data set by its name, or your own code.
        optimizer: takes the steps.
        training: length and batches of the run.
        flows: to solve beside the run.
        observe: what else is recorded.
        solver: of the flows.
        symmetries: to find, with their charges; by default none are looked for.
        stability: sharpness along the run; by default it is not measured.
        sweep: keys with several values: a study of many members.
    """

    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100), AfterValidator(_on_any_system)
    ]
    title: str = ""
    seed: Annotated[int, Field(ge=0, le=LARGEST)] = 0
    dtype: Literal["float64", "float32"] = "float64"
    device: str = "cpu"
    chunk_size: Annotated[int, Field(ge=1, le=LARGEST)] | None = None
    ghost_batches: bool = False
    autocast: Literal["bfloat16", "float16"] | None = None
    loss: Annotated[str, _known(LOSSES)] | None = None
    objective: CodeTable | None = None
    model: Annotated[Annotated[ModelTable, Tag("<entry>")] | OwnCode, Discriminator(_which)]
    data: Annotated[Annotated[DataTable, Tag("<entry>")] | OwnCode, Discriminator(_which)]
    optimizer: OptimizerTable
    training: Training
    flows: list[FlowTable] = Field(default_factory=list)
    observe: list[ObserverTable] = Field(default_factory=list)
    solver: Solver = Field(default_factory=Solver)
    symmetries: SymmetriesTable | None = None
    stability: StabilityTable | None = None
    sweep: SweepTable | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_ladder(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "ladder" in data:
            raise combination(f"ladder is written as a sweep now: {_as_sweep(data)}")
        return data

    @property
    def code(self) -> dict[str, CodeTable]:
        """The user's own Python, by the key that names it."""
        tables = {"model": self.model, "data": self.data, "objective": self.objective}
        observed = {
            f"observe[{i}].{key}": table
            for i, observer in enumerate(self.observe)
            for key, table in observer.functions.items()
        }
        return {key: table for key, table in tables.items() if isinstance(table, CodeTable)} | observed

    @model_validator(mode="after")
    def _go_together(self) -> Case:
        if (self.loss is None) == (self.objective is None):
            given = "neither" if self.loss is None else "both"
            raise combination(f"loss, or an objective of your own: {given} was given; one must be")
        try:
            require_limits(dtype=self.dtype, rtol=self.solver.rtol)
        except EngineError as error:
            raise combination(f"solver.rtol: {error}") from None
        for i in range(len(self.flows)):
            self._require_flow_fits(i)
        for i, observer in enumerate(self.observe):
            self._require_observer_fits(i, observer)
        return self

    def _require_flow_fits(self, i: int) -> None:
        flow, batches = self.flows[i], self.flows[i].batches
        if flow in self.flows[:i]:
            raise combination(f"flows[{i}] is there twice")
        if flow.follows_average:
            self._require_averages(i)
        if self.training.batch_size == "full" and batches is not None:
            raise combination(
                f"flows[{i}]: batches = '{batches}' is for a run on minibatches; training.batch_size is 'full': leave "
                "it out"
            )
        if self.training.batch_size != "full" and batches is None:
            raise combination(
                f"flows[{i}]: training.batch_size = {self.training.batch_size}: say which samples the flow's loss is "
                "over: batches = 'same' (in step k those of step k: the error is the discretisation's alone) or "
                "batches = 'full' (all: the error holds the batches' noise too)"
            )

    def _require_averages(self, i: int) -> None:
        """Of a flow that is held against the time average of a run on all samples."""
        kind, training = self.flows[i].name, self.training
        if training.batch_size != "full":
            raise combination(
                f"flows[{i}]: {kind!r} is that of steps on all samples; training.batch_size = "
                f"{training.batch_size}: leave it out, or take another flow, such as 'modified'"
            )
        averaged = any(table.name == "averages" and table.looks_at("run") for table in self.observe)
        if training.save_every > 1 and not averaged:
            raise combination(
                f"flows[{i}]: {kind!r} is held against the run's time average, which takes every step; "
                f"training.save_every = {training.save_every}: leave it out, or add 'averages' to observe"
            )

    def _require_observer_fits(self, i: int, observer: ObserverTable) -> None:
        if observer.wants_symmetries and self.symmetries is None:
            raise combination(f"observe[{i}].symmetries: true stands for those of the case: add [symmetries]")
        if observer.along in ("flows", "both") and not self.flows:
            raise combination(f"observe[{i}].along: '{observer.along}' was given, and the case has no flows")
