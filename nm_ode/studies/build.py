"""From a valid case to the objects that it names; what they refuse is reported with file and key."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
import xarray as xr
from torch import nn

from bridges import EngineError, require_jumps, require_limits, require_options
from nm_ode.data import DataError, DataSet
from nm_ode.errors import ArgumentError, NmOdeError
from nm_ode.flows import Flow, MinibatchFlow, beside_a_run
from nm_ode.loss import Problem, ProblemError
from nm_ode.observers import Context, Curvature, Observer, Recording
from nm_ode.optimizers import Optimizer, Schedule, factors_of
from nm_ode.planned import always_recorded
from nm_ode.results import Beside, Identity
from nm_ode.studies.charges import require_laws_fit, require_layers_fit
from nm_ode.studies.entries import CodeTable
from nm_ode.studies.errors import CaseError
from nm_ode.studies.fit import in_the_models_shape, of_what, require_targets_fit
from nm_ode.studies.here import device_of, read_data
from nm_ode.studies.identity import data_hash
from nm_ode.studies.load import case_text
from nm_ode.studies.losses import LOSSES
from nm_ode.studies.observing import observers_of, require_sketch_fits
from nm_ode.studies.own_code import OwnCode
from nm_ode.studies.progress import Progress
from nm_ode.studies.room import built, require_case_fits
from nm_ode.studies.schema import Case
from nm_ode.symmetries import Symmetry


@dataclass(frozen=True, eq=False)
class Study:
    """A case and what it names, made.

    Attributes:
        path: of the case file.
        flows: in the case's order, before they know whose samples they take.
        code: the user's own Python, loaded.
        text: of the case file, as it was when the case was built.
        held_out: gives the test split of the data, read once; None if there is none.
        data_hash: place → digest, of data that were read from disk.
    """

    case: Case
    path: Path
    problem: Problem
    optimizer: Optimizer
    schedule: Schedule | None
    flows: tuple[Flow, ...]
    code: OwnCode
    text: str
    held_out: Callable[[], DataSet] | None = None
    data_hash: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> Identity:
        """Of what its results are."""
        return Identity(self.case.model_dump(mode="json"), {**self.code.hashes, **self.data_hash})

    def observers(
        self, along: Literal["run", "flows"], symmetries: Sequence[Symmetry] = ()
    ) -> list[Observer]:
        """What the case observes apart from charges and stability: new ones, for one run or flow."""
        return observers_of(self.case, self.path, self.code, along, symmetries, self.held_out)

    def curvature(self) -> list[Observer]:
        """What measures the stability along the run; none if the case does not ask for it."""
        asked = self.case.stability
        if asked is None or not (asked.required or self.problem.has_hessian):
            return []
        return [Curvature(asked.points)]

    def flows_beside(self, run: xr.Dataset, optimizer: Optimizer) -> tuple[Flow, ...]:
        """The flows of an optimiser, to be solved beside its run."""
        made = flows_of(self.case, self.path, self.problem, optimizer)
        return tuple(
            MinibatchFlow.beside(flow, run) if table.batches == "same" else flow
            for flow, table in zip(made, self.case.flows, strict=True)
        )

    def labels(self, flow: Flow) -> tuple[str, str, Beside | None]:
        """A flow's name in the tree, its title for a reader, and whose samples it takes beside a run on minibatches."""
        return beside_a_run(flow, full_batch=self.case.training.batch_size == "full")


def build_study(case: Case, path: Path, text: str | None = None, progress: Progress | None = None) -> Study:
    """Problem, optimiser, schedule and flows of a case; nothing is trained or solved.

    Args:
        path: the case file, for messages and for what it names by relative path.
        text: of the case file; it is read if not given.
        progress: told of data whose reading takes its time.

    Raises:
        CaseError: what the case names is not there, or does not go together.
    """
    _require_solver(case, path)
    code = OwnCode(path)
    device = device_of(case, path, code)
    read = read_data(case, path, code, progress)
    data_now = data_hash(case, path.parent, read)
    data = in_the_models_shape(case, path, read)
    require_targets_fit(case, path, data)
    problem = _problem(case, path, code, _model(case, path, code, data, device), data, device)
    if isinstance(case.training.batch_size, int) and case.training.batch_size > problem.n_samples:
        raise CaseError(
            f"{path}: training.batch_size: {case.training.batch_size} was given; {of_what(case)} has "
            f"{problem.n_samples} samples: give at most that, or 'full'"
        )
    require_case_fits(case, path, problem)
    optimizer: Optimizer = case.optimizer.make(folder=path.parent)
    require_layers_fit(case, path, problem)
    require_laws_fit(case, path, problem, optimizer)
    schedule = case.optimizer.schedule
    flows = flows_of(case, path, problem, optimizer)
    if schedule is not None:
        _require_schedule_fits(flows, path)
    made_schedule = None if schedule is None else schedule.make(folder=path.parent)
    _require_times_fit(case, path, optimizer, made_schedule)
    text = case_text(path) if text is None else text
    study = Study(
        case, path, problem, optimizer, made_schedule, flows, code, text, _held_out(data, path), data_now
    )
    _require_observers_fit(study)
    require_sketch_fits(case, path, optimizer, study.observers("run"))
    return study


def flows_of(case: Case, path: Path, problem: Problem, optimizer: Optimizer) -> tuple[Flow, ...]:
    """The case's flows of an optimiser.

    Raises:
        CaseError: a flow that does not exist for this optimiser, or two of one name.
    """
    made: list[Flow] = []
    for i, table in enumerate(case.flows):
        try:
            made.append(table.make(problem, optimizer, folder=path.parent))
        except (NmOdeError, ValueError) as error:
            raise CaseError(f"{path}: flows[{i}]: {error}") from None
        for j in range(i):
            if made[j].name == made[i].name and case.flows[j].batches == table.batches:
                alike = made[j] == made[i]
                raise CaseError(
                    f"{path}: flows[{i}] is {made[i].title}, as is flows[{j}]: "
                    + (
                        ""
                        if alike
                        else f"both have the name {made[i].name!r}, under which a study keeps a flow: "
                    )
                    + "leave one of them out"
                    + (
                        ""
                        if alike
                        else f", or let `name` of {type(made[i]).__name__} say in which options they differ"
                    )
                )
    return tuple(made)


def _require_observers_fit(study: Study) -> None:
    """Raises CaseError for observers whose variables have one name: before anything is computed."""
    steps, problem = study.case.training.steps, study.problem
    context = Context(problem, study.optimizer, steps, (0, steps), problem.device)
    try:
        Recording([*always_recorded(None), *study.curvature(), *study.observers("run")], context)
    except (ArgumentError, ProblemError) as error:
        raise CaseError(f"{study.path}: observe: {str(error).removeprefix('observe: ')}") from None


def _require_solver(case: Case, path: Path) -> None:
    """Options that go together; methods that stop where the field of a same-batch flow jumps."""
    solver = case.solver
    jumping = next((i for i, flow in enumerate(case.flows) if flow.batches == "same"), None)
    for i, engine in enumerate(solver.engines):
        # Method and step are the first engine's; those that check it take their own.
        method, step = (solver.method, solver.step) if i == 0 else (None, None)
        try:
            require_options(engine, method, step)
        except EngineError as error:
            raise CaseError(f"{path}: solver: {error}") from None
        if jumping is None:
            continue
        try:
            require_jumps(engine, method, step)
        except EngineError as error:
            raise CaseError(
                f"{path}: flows[{jumping}]: batches = 'same' makes the field jump each step, and engine = {engine!r} "
                f"would step across: {error}"
            ) from None


def _require_times_fit(case: Case, path: Path, optimizer: Optimizer, schedule: Schedule | None) -> None:
    """Learning rates that are positive numbers, and a solver whose steps can reach the end of the run."""
    try:
        factors = factors_of(schedule, optimizer.lr, case.training.steps)
    except ArgumentError as error:
        raise CaseError(f"{path}: optimizer.{error}") from None
    span = float(optimizer.time_per_step) * float(factors.sum())
    try:
        if not math.isfinite(span):
            raise EngineError(
                f"optimizer.lr: {case.training.steps} steps of {optimizer.lr:g} end at no finite time"
            )
        if case.flows:
            require_limits(dtype=case.dtype, span=span, **case.solver.values)
    except EngineError as error:
        raise CaseError(f"{path}: solver: {error}") from None


def _model(case: Case, path: Path, code: OwnCode, data: Any, device: torch.device) -> nn.Module:
    if isinstance(case.model, CodeTable):
        model = code.call("model", case.model, seed=case.seed)
        if not isinstance(model, nn.Module):
            raise CaseError(
                f"{path}: model.python: {case.model.python} gave {type(model).__name__}, not a torch.nn.Module"
            )
        return model
    image = data.image if case.model.network.takes_images else None
    shape = {} if image is None else {"image": image.side, "channels": image.channels}
    build = partial(case.model.build, folder=path.parent, seed=case.seed, **shape)
    try:
        return built(build, path, getattr(torch, case.dtype), device)
    except CaseError:
        raise
    except (NmOdeError, ValueError) as error:
        raise CaseError(f"{path}: model: {error}") from None


def _problem(
    case: Case, path: Path, code: OwnCode, model: nn.Module, data: Any, device: torch.device
) -> Problem:
    options: dict[str, Any] = {
        "dtype": getattr(torch, case.dtype),
        "device": device,
        "chunk_size": case.chunk_size,
        "ghost_batches": case.ghost_batches,
        "autocast": case.autocast,
    }
    try:
        with code.explained():
            if case.objective is None:
                assert case.loss is not None
                return Problem(model, LOSSES[case.loss].function, data, **options)
            objective = code.function("objective", case.objective)
            more = code.arguments("objective", case.objective, objective, positional=2)
            if more:
                objective = partial(objective, **more)
            return Problem.from_objective(model, objective, data, **options)
    except CaseError:
        raise
    except NmOdeError as error:
        raise CaseError(f"{path}: {error}") from None
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        if not case.code:
            raise
        message = " ".join(str(error).split())
        raise CaseError(f"{path}: model, data and loss do not go together: {message}") from error


def _held_out(data: Any, path: Path) -> Callable[[], DataSet] | None:
    """Gives the test split, read when it is first asked for."""
    if not isinstance(data, DataSet) or data.test is None:
        return None

    @cache
    def read() -> DataSet:
        try:
            found = data.held_out()
        except DataError as error:
            raise CaseError(f"{path}: data: {error}") from None
        assert found is not None
        return found

    return read


def _require_schedule_fits(flows: tuple[Flow, ...], path: Path) -> None:
    for i, flow in enumerate(flows):
        if flow.depends_on_lr:
            raise CaseError(
                f"{path}: flows[{i}]: {flow.title} is that of a constant lr, and optimizer.schedule changes it: take "
                "a flow that does not depend on lr, such as 'gradient', or leave the schedule out"
            )
