"""The case file: a TOML schema whose mistakes are answered with file, key, value and what is allowed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from bridges import did_you_mean
from nm_ode.schedules import Cosine, Drop, Schedule, Warmup
from nm_ode.studies.networks import ModelTable
from nm_ode.studies.tables import Table
from nm_ode.symmetries import Kind


class CaseError(ValueError):
    """A mistake in a case file or in what it names, told in one sentence a line."""


class DigitsData(Table):
    """scikit-learn's digits."""

    name: Literal["digits"]
    samples: Annotated[int, Field(ge=1)] | None = None


class DiabetesData(Table):
    """scikit-learn's diabetes."""

    name: Literal["diabetes"]
    samples: Annotated[int, Field(ge=1)] | None = None


class NpzData(Table):
    """Arrays x and y of a file, its path relative to the case file."""

    name: Literal["npz"]
    path: str
    samples: Annotated[int, Field(ge=1)] | None = None


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


class SgdOptimizer(Table):
    """torch.optim.SGD."""

    name: Literal["sgd"] = "sgd"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dampening: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    nesterov: bool = False
    schedule: ScheduleTable | None = None

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> SgdOptimizer:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise PydanticCustomError(
                "combination", "nesterov = true needs momentum > 0 and dampening = 0, as in torch.optim.SGD"
            )
        return self


class Training(Table):
    """Length and batches of the discrete run."""

    steps: Annotated[int, Field(ge=1)]
    batch_size: int | Literal["full"] = "full"
    save_every: Annotated[int, Field(ge=1)] = 1

    @field_validator("batch_size", mode="before")
    @classmethod
    def _number_or_full(cls, value: Any) -> Any:
        if value != "full" and not (type(value) is int and value >= 1):
            raise PydanticCustomError("not_allowed", "'full' or a number of samples, at least 1")
        return value


class GradientFlowTable(Table):
    """Gradient flow."""

    kind: Literal["gradient"]


class ModifiedFlowTable(Table):
    """Modified flow of the optimiser."""

    kind: Literal["modified"]
    order: Annotated[int, Field(ge=1)] = 2
    form: Literal["iterated_map", "hessian"] = "iterated_map"

    @model_validator(mode="after")
    def _order_exists(self) -> ModifiedFlowTable:
        if self.form == "hessian" and self.order > 2:
            raise PydanticCustomError(
                "combination", "form = 'hessian' goes up to order = 2; form = 'iterated_map' has every order"
            )
        return self


class Solver(Table):
    """Engine and tolerances for all flows of the case."""

    engine: str = "auto"
    method: str | None = None
    rtol: Annotated[float, Field(gt=0, lt=1)] | None = None
    atol: Annotated[float, Field(gt=0)] | None = None
    step: Annotated[float, Field(gt=0)] | None = None
    max_rhs: Annotated[int, Field(ge=1)] | None = None
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    check: bool = True


class SymmetriesTable(Table):
    """Symmetries to find and verify, whose charges are recorded and predicted."""

    kinds: Annotated[list[Kind], Field(min_length=1)] | None = None
    laws: list[Literal["exact", "first_order", "second_order"]] | None = None

    def laws_for(self, momentum: float) -> list[str]:
        """Those that were asked for; else the exact law and the continuous one that fits."""
        return (
            list(self.laws)
            if self.laws is not None
            else ["exact", "second_order" if momentum else "first_order"]
        )


FlowTable = Annotated[GradientFlowTable | ModifiedFlowTable, Field(discriminator="kind")]


class Case(Table):
    """One study: model, data, optimiser, and the flows to compare the run with."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    title: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    dtype: Literal["float64", "float32"] = "float64"
    device: str = "cpu"
    chunk_size: Annotated[int, Field(ge=1)] | None = None
    loss: Literal["cross_entropy", "mse"]
    model: ModelTable
    data: Annotated[DigitsData | DiabetesData | NpzData, Field(discriminator="name")]
    optimizer: SgdOptimizer
    training: Training
    flows: list[FlowTable] = Field(default_factory=list)
    solver: Solver = Field(default_factory=Solver)
    symmetries: SymmetriesTable | None = None

    @field_validator("flows", mode="before")
    @classmethod
    def _names_are_tables(cls, flows: Any) -> Any:
        if not isinstance(flows, list):
            return flows
        return [{"kind": flow} if isinstance(flow, str) else flow for flow in flows]

    @model_validator(mode="after")
    def _go_together(self) -> Case:
        for i, flow in enumerate(self.flows):
            if self.optimizer.momentum and (flow.kind == "gradient" or flow.form == "hessian"):
                raise PydanticCustomError(
                    "combination",
                    "flows[{i}]: optimizer.momentum = {momentum} does not go with {what}, which is that of plain "
                    "descent; set momentum = 0, or take kind = 'modified', form = 'iterated_map'",
                    {
                        "i": i,
                        "momentum": self.optimizer.momentum,
                        "what": "gradient flow" if flow.kind == "gradient" else "form = 'hessian'",
                    },
                )
        if self.optimizer.schedule is not None and any(flow.kind == "modified" for flow in self.flows):
            raise PydanticCustomError(
                "combination",
                "optimizer.schedule does not go with a modified flow, whose lr is constant; use 'gradient', or leave "
                "the schedule out",
            )
        laws = self.symmetries.laws if self.symmetries is not None else None
        if laws and "first_order" in laws and self.optimizer.momentum:
            raise PydanticCustomError(
                "combination",
                "symmetries.laws: 'first_order' is for momentum = 0; this case has {momentum}: use 'second_order'",
                {"momentum": self.optimizer.momentum},
            )
        for i, flow in enumerate(self.flows):
            if flow in self.flows[:i]:
                raise PydanticCustomError("combination", "flows[{i}] is there twice", {"i": i})
        return self


def load_case(path: Path, *, engine: str | None = None) -> Case:
    """Read and validate a case file; `engine` takes the place of the file's `solver.engine`.

    Raises:
        CaseError: no such file, not TOML, or a mistake in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CaseError(f"no case file {path}; `nm-ode cases` lists those that there are") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(f"{path} cannot be read: {error}") from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CaseError(f"{path} is not valid TOML: {error}") from None
    if engine is not None:
        raw["solver"] = {**raw.get("solver", {}), "engine": engine}
    try:
        return Case.model_validate(raw)
    except ValidationError as error:
        raise CaseError("\n".join(_sentence(path, raw, item) for item in error.errors())) from None


def _sentence(path: Path, raw: Any, error: Any) -> str:
    """file: key: what was given; what is allowed."""
    kind, context = error["type"], error.get("ctx", {})
    key, given = _place(raw, error["loc"], missing=kind == "missing")
    where = f"{path}: {key}" if key else f"{path}"
    if kind == "missing":
        return f"{where}: is missing; every case must have it"
    if kind in ("unknown_key", "combination"):
        return f"{where}: {error['msg']}"
    if kind == "union_tag_invalid":
        discriminator, tag = context["discriminator"].strip("'"), context["tag"]
        allowed = [name.strip().strip("'") for name in context["expected_tags"].split(",")]
        return f"{where}.{discriminator}: {tag!r} was given{did_you_mean(tag, allowed)}"
    if kind == "union_tag_not_found":
        return f"{where}.{context['discriminator'].strip(chr(39))}: is missing; it says which kind is meant"
    if kind == "literal_error" and isinstance(given, str):
        allowed = [name.strip("' ") for name in context["expected"].replace(" or ", ", ").split(",")]
        reason = (
            "; float16 and bfloat16 are too coarse for a flow" if given in ("float16", "bfloat16") else ""
        )
        return f"{where}: {given!r} was given{did_you_mean(given, allowed)}{reason}"
    if kind == "string_pattern_mismatch":
        return f"{where}: {given!r} was given; it must be a file name of letters, digits, '_', '-' and '.'"
    message = error["msg"].removeprefix("Input ").removeprefix("should ")
    if kind == "not_allowed":
        message = f"be {message}"
    return f"{where}: {given!r} was given" + (message if kind == "unknown_name" else f"; it must {message}")


def _place(raw: Any, loc: tuple[int | str, ...], *, missing: bool) -> tuple[str, Any]:
    """The key as written in the file and its value; pydantic's own names of union members are left out."""
    key, value = "", raw
    for i, part in enumerate(loc):
        if isinstance(value, Mapping) and part in value:
            key, value = f"{key}.{part}" if key else str(part), value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            key, value = f"{key}[{part}]", value[part]
        elif missing and i == len(loc) - 1:
            key, value = f"{key}.{part}" if key else str(part), None
    return key, value


def shipped_cases() -> list[Path]:
    """The cases that come with nm_ode: in the wheel beside the package, in a checkout at its top."""
    package = Path(__file__).resolve().parents[1]
    folders = (package / "cases", package.parent / "cases")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return sorted(folder.glob("*.toml")) if folder is not None else []


def find_case(name: str) -> Path:
    """A path as it is; a bare name as the case of that name that ships with nm_ode.

    Raises:
        CaseError: neither; with near names.
    """
    path = Path(name)
    if path.exists() or path.suffix == ".toml" or len(path.parts) > 1:
        return path
    shipped = {case.stem: case for case in shipped_cases()}
    if name in shipped:
        return shipped[name]
    raise CaseError(f"no case file and no shipped case is called {name!r}{did_you_mean(name, shipped)}")
