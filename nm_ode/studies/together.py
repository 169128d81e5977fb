"""Members of a sweep that differ in seeds and numbers of the optimiser: trained as one, each run into its own store."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from nm_ode.errors import NmOdeError
from nm_ode.loss import Problem, problem_identity
from nm_ode.loss.batching import A_FEW, spread_samples
from nm_ode.optimizers import Optimizer
from nm_ode.results import member_run, run_info
from nm_ode.results.store import StoreWriter
from nm_ode.studies.build import Study, build_study
from nm_ode.studies.charges import wanted_symmetries
from nm_ode.studies.entries import CodeTable
from nm_ode.studies.keeping import Checkpoints
from nm_ode.studies.member import keep_run, known_run, training_options
from nm_ode.studies.progress import Progress, silent, unheard
from nm_ode.studies.schema import Case
from nm_ode.together import Members, worthwhile
from nm_ode.training import final_state, train

_WORTH_MEASURING = 50  # steps

Surroundings: TypeAlias = Callable[[int], AbstractContextManager[None]]
"""Within it a member with this seed finds what it finds when it is run."""


def alike(cases: Mapping[str, Case]) -> list[list[str]]:
    """Members whose trainings differ in seeds and numbers of the optimiser alone, by name; none that is the only one.

    Numbers that are 0 for one and not for another are another kind of optimiser.
    """
    groups: dict[str, list[str]] = {}
    for name, case in cases.items():
        if not case.training.full_loss:  # of rows it is always recorded
            continue
        groups.setdefault(json.dumps(_kind(case), sort_keys=True, default=str), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


@dataclass(frozen=True)
class Companion:
    """A member that is trained with others.

    Attributes:
        case: its own.
        store: path of its store, when it is finished.
        text: of its case file.
    """

    case: Case
    store: Path
    text: str


def train_companions(
    companions: Iterable[Companion],
    path: Path,
    vectorise: Literal["auto", True],
    progress: Progress | None = None,
    say: Callable[[str], None] = unheard,
    surroundings: Surroundings = lambda seed: nullcontext(),
) -> int:
    """Train members as one, and write each one's run into its store, where it is found when the member is run.

    What cannot be trained so, what diverges, and with "auto" what is not faster so, is left to the members.

    Args:
        companions: as `alike` gives them; nobody else may be writing their stores.
        path: of the case file.
        surroundings: of a member with this seed, while what its case names is made.

    Returns:
        How many runs were written.
    """
    try:
        return _trained(list(companions), path, vectorise, progress or silent, say, surroundings)
    except (NmOdeError, MemoryError) as error:
        say(f"the members are trained one after another: {error}")
        return 0


@dataclass(frozen=True, eq=False)
class _Lacking:
    """A member whose run is not there: what of it is not as in the first one."""

    seed: int
    optimizer: Optimizer
    theta0: Tensor
    writer: StoreWriter


def _trained(
    companions: Sequence[Companion],
    path: Path,
    vectorise: Literal["auto", True],
    progress: Progress,
    say: Callable[[str], None],
    surroundings: Surroundings,
) -> int:
    first, members = _lacking(companions, path, vectorise, surroundings)
    if first is None or len(members) < 2:
        return 0
    problem, optimizer, case = first.problem, first.optimizer, first.case
    wanted = wanted_symmetries(case, problem, optimizer)
    options = training_options(first, () if wanted is None else wanted.chosen)
    kept = Checkpoints(members[0].writer, "discrete", say)
    states: list[Tensor] | None = None
    if case.training.warm_steps:
        steps = case.training.warm_steps
        warm = {"batch_size": options["batch_size"], "save_every": steps}
        warmed = train(
            problem, optimizer, steps, members=_members(members), checkpoint=kept("warm members"), **warm
        )
        runs = {one: member_run(warmed, i) for i, one in enumerate(members)}
        members = [one for one in members if run_info(runs[one]).status == "success"]
        states = [final_state(runs[one]) for one in members]
    if len(members) < 2:
        return 0
    differing = _members(members, states)
    if vectorise == "auto" and not worthwhile(problem, optimizer, members=differing, **options).is_faster:
        return 0
    made = train(
        problem,
        optimizer,
        members=differing,
        on_step=progress(f"training of {len(members)} members", options["steps"]),
        checkpoint=kept("members"),
        **options,
    )
    written = 0
    for i, one in enumerate(members):
        run = member_run(made, i)
        if run_info(run).status == "success":
            keep_run(one.writer, run)
            written += 1
    kept.forget()
    return written


def _lacking(
    companions: Sequence[Companion],
    path: Path,
    vectorise: Literal["auto", True],
    surroundings: Surroundings,
) -> tuple[Study | None, list[_Lacking]]:
    """The first member whose run is not there, and all of them whose loss is the same; their problems are let go.

    None at all where many cannot be faster, or do not fit into memory.
    """
    first: Study | None = None
    found: list[_Lacking] = []
    for companion in companions:
        # What is wrong with a member is told when it is run.
        with contextlib.suppress(NmOdeError), surroundings(companion.case.seed):
            study = build_study(companion.case, path, companion.text)
            writer = StoreWriter(companion.store, study.identity)
            if known_run(study, writer) is not None:
                continue
            if first is None:
                first = study
                if vectorise == "auto" and not _may_gain(study):
                    return None, []
            elif not _same(first.problem, study.problem):
                continue
            found.append(_Lacking(companion.case.seed, study.optimizer, study.problem.theta0, writer))
    return first, found


def _may_gain(study: Study) -> bool:
    """Can it be faster, and is there enough of it that this is worth measuring?"""
    training = study.case.training
    width = study.problem.n_samples if training.batch_size == "full" else training.batch_size
    return training.steps >= _WORTH_MEASURING and study.problem.many_are_faster(width)


def _members(members: Sequence[_Lacking], states: Sequence[Tensor] | None = None) -> Members:
    """What they differ in: where each starts, its seed, and numbers of its optimiser."""
    optimizers = [one.optimizer for one in members]
    differing: dict[str, Any] = {}
    for field in fields(optimizers[0]):  # type: ignore[arg-type]
        values = [getattr(one, field.name) for one in optimizers]
        if any(value != values[0] for value in values):
            differing[field.name] = values
    starts = torch.stack([one.theta0 for one in members]) if states is None else None
    return Members(seed=[one.seed for one in members], theta0=starts, state0=states, **differing)


def _same(one: Problem, other: Problem) -> bool:
    """Is it one loss, apart from where it starts? The same data, and the same numbers at the other's start."""
    if problem_identity(one) != problem_identity(other):
        return False
    samples = spread_samples(one.n_samples, min(A_FEW, one.chunk_size or A_FEW))
    (loss, gradient), (its, own) = (found.loss_and_grad(other.theta0, samples) for found in (one, other))
    return bool(torch.allclose(loss, its, rtol=1e-9)) and bool(torch.allclose(gradient, own, rtol=1e-9))


def _kind(case: Case) -> dict[str, Any]:
    """The case without what members that are trained as one may differ in."""
    table = case.model_dump(mode="json", exclude={"name", "title", "sweep", "seed"})
    if isinstance(case.data, CodeTable):  # which may be given the seed
        table["seed"] = case.seed
    table["optimizer"] = {name: _pattern(value) for name, value in table["optimizer"].items()}
    return table


def _pattern(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_pattern(part) for part in value]
    return value != 0 if isinstance(value, float) else value
