"""The case file: a TOML schema whose mistakes are answered with file, key, value and what is allowed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from nm_ode.errors import NmOdeError
from nm_ode.optimizers import SGD, Optimizer
from nm_ode.registry import did_you_mean
from nm_ode.studies.flows import AnyFlow
from nm_ode.studies.networks import ModelTable
from nm_ode.studies.optimizers import OptimizerTable, SgdOptimizer
from nm_ode.studies.tables import Table
from nm_ode.symmetries import Kind


class CaseError(NmOdeError, ValueError):
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


class Training(Table):
    """Length and batches of the discrete run; `warm_steps` are taken before it starts, and are not part of it."""

    steps: Annotated[int, Field(ge=1)]
    batch_size: int | Literal["full"] = "full"
    warm_steps: Annotated[int, Field(ge=0)] = 0
    save_every: Annotated[int, Field(ge=1)] = 1

    @field_validator("batch_size", mode="before")
    @classmethod
    def _number_or_full(cls, value: Any) -> Any:
        if value != "full" and not (type(value) is int and value >= 1):
            raise PydanticCustomError("not_allowed", "'full' or a number of samples, at least 1")
        return value


class Solver(Table):
    """Engine and tolerances for all flows of the case; further engines check the first."""

    engine: str | list[str] = "auto"
    method: str | None = None
    rtol: Annotated[float, Field(gt=0, lt=1)] | None = None
    atol: Annotated[float, Field(gt=0)] | None = None
    step: Annotated[float, Field(gt=0)] | None = None
    max_step: Annotated[float, Field(gt=0)] | None = None
    max_steps: Annotated[int, Field(ge=1)] | None = None
    max_rhs: Annotated[int, Field(ge=1)] | None = None
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    check: bool = True

    @field_validator("engine", mode="before")
    @classmethod
    def _one_or_several(cls, engine: Any) -> Any:
        if isinstance(engine, list) and (not engine or len(set(map(str, engine))) < len(engine)):
            raise PydanticCustomError("not_allowed", "an engine's name, or a list of different ones")
        if not isinstance(engine, str | list):
            raise PydanticCustomError("not_allowed", "an engine's name, or a list of different ones")
        return engine

    @property
    def engines(self) -> list[str]:
        """The engine that solves, and those that check it."""
        return [self.engine] if isinstance(self.engine, str) else list(self.engine)

    def options(self) -> dict[str, Any]:
        """For `solve`, by the first engine."""
        return {**self.model_dump(exclude={"check"}), "engine": self.engines[0]}


class SymmetriesTable(Table):
    """Symmetries to find and verify, whose charges are recorded and predicted."""

    kinds: Annotated[list[Kind], Field(min_length=1)] | None = None
    laws: list[Literal["exact", "first_order", "second_order"]] | None = None

    def laws_for(self, optimizer: Optimizer) -> list[str]:
        """Those that were asked for; else the exact law and the continuous one that fits; none but for SGD."""
        if self.laws is not None:
            return list(self.laws)
        if not isinstance(optimizer, SGD):
            return []
        return ["exact", "second_order" if optimizer.momentum else "first_order"]


class StabilityTable(Table):
    """Sharpness along the run."""

    points: Annotated[int, Field(ge=2)] = 20


class LadderTable(Table):
    """Learning rates at which the whole study is repeated, to the same final time, for the order of each flow."""

    lr: Annotated[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=2)]

    @field_validator("lr")
    @classmethod
    def _distinct(cls, lr: list[float]) -> list[float]:
        if len(set(lr)) < len(lr):
            raise PydanticCustomError("not_allowed", "learning rates that are all different")
        return sorted(lr, reverse=True)


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
    optimizer: OptimizerTable
    training: Training
    flows: list[AnyFlow] = Field(default_factory=list)
    solver: Solver = Field(default_factory=Solver)
    symmetries: SymmetriesTable | None = None
    stability: StabilityTable | None = None
    ladder: LadderTable | None = None

    @field_validator("optimizer", mode="before")
    @classmethod
    def _sgd_unless_named(cls, table: Any) -> Any:
        return {"name": "sgd", **table} if isinstance(table, dict) else table

    @field_validator("flows", mode="before")
    @classmethod
    def _names_are_tables(cls, flows: Any) -> Any:
        if not isinstance(flows, list):
            return flows
        return [{"kind": flow} if isinstance(flow, str) else flow for flow in flows]

    @model_validator(mode="after")
    def _go_together(self) -> Case:
        for i in range(len(self.flows)):
            self._require_flow_fits(i)
        if self.optimizer.schedule is not None:
            if any(flow.kind != "gradient" for flow in self.flows):
                raise _combination(
                    "optimizer.schedule does not go with a modified flow, whose lr is constant; use 'gradient', or "
                    "leave the schedule out"
                )
            if self.ladder is not None:
                raise _combination("optimizer.schedule does not go with a ladder, whose lr is constant")
        self._require_laws_fit()
        self._require_ladder_fits()
        return self

    def _require_flow_fits(self, i: int) -> None:
        flow, optimizer, batches = self.flows[i], self.optimizer, self.flows[i].batches
        if flow in self.flows[:i]:
            raise _combination(f"flows[{i}] is there twice")
        what = {
            "gradient": "gradient flow",
            "modified": "form = 'hessian'",
            "second_order": "kind = 'second_order'",
            "slow_manifold": "kind = 'slow_manifold'",
        }[flow.kind]
        if flow.kind != "modified" or flow.form == "hessian":
            remedy = "take kind = 'modified', form = 'iterated_map'"
            if not isinstance(optimizer, SgdOptimizer):
                raise _combination(
                    f"flows[{i}]: optimizer.name = '{optimizer.name}' does not go with {what}, which is SGD's; {remedy}"
                )
            if optimizer.momentum and flow.kind in ("gradient", "modified"):
                raise _combination(
                    f"flows[{i}]: optimizer.momentum = {optimizer.momentum} does not go with {what}, which is that of "
                    f"plain descent; set momentum = 0, or {remedy}"
                )
        if self.training.batch_size == "full" and batches is not None:
            raise _combination(
                f"flows[{i}]: batches = '{batches}' is for a run on minibatches; training.batch_size is 'full': leave "
                "it out"
            )
        if self.training.batch_size != "full" and batches is None:
            raise _combination(
                f"flows[{i}]: training.batch_size = {self.training.batch_size}: say which samples the flow's loss is "
                "over: batches = 'same' (in step k those of step k: the error is the discretisation's alone) or "
                "batches = 'full' (all: the error holds the batches' noise too)"
            )
        engines = self.solver.engines
        stops_at_jumps = engines == ["auto"] or (engines == ["scipy"] and self.solver.step is not None)
        if batches == "same" and not stops_at_jumps:
            raise _combination(
                f"flows[{i}]: batches = 'same' makes the field jump each step, and engine = "
                f"'{', '.join(engines)}' would step across: use engine = 'auto', or 'scipy' with method = 'RK8' "
                "and a step"
            )

    def _require_laws_fit(self) -> None:
        laws = self.symmetries.laws if self.symmetries is not None else None
        if not laws:
            return
        if not isinstance(self.optimizer, SgdOptimizer):
            raise _combination(
                f"symmetries.laws: the laws of the charges are SGD's; optimizer.name is '{self.optimizer.name}': leave "
                "laws out, and the charges are recorded"
            )
        if "first_order" in laws and self.optimizer.momentum:
            raise _combination(
                "symmetries.laws: 'first_order' is for momentum = 0; this case has "
                f"{self.optimizer.momentum}: use 'second_order'"
            )

    def _require_ladder_fits(self) -> None:
        if self.ladder is None:
            return
        if not self.flows:
            raise _combination("ladder: there is no flow whose order it could show; name some in flows")
        for lr in self.ladder.lr:
            for key, steps in (("steps", self.training.steps), ("warm_steps", self.training.warm_steps)):
                exact = steps * self.optimizer.lr / lr
                if abs(round(exact) - exact) > 1e-6 * max(exact, 1):
                    raise _combination(
                        f"ladder.lr: {lr:g} was given; training.{key} = {steps} steps of {self.optimizer.lr:g} are "
                        f"{exact:g} of its steps, and must be a whole number for all rungs to end at the same time"
                    )


def _combination(sentence: str) -> PydanticCustomError:
    return PydanticCustomError("combination", "{sentence}", {"sentence": sentence})


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
