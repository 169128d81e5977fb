"""nm-ode run for many members: what is told while they run, and what at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from nm_ode.cli.console import complain, print_dim, print_line
from nm_ode.cli.results import present
from nm_ode.cli.stopping import DONE, FAILED, MISTAKE, heed

if TYPE_CHECKING:
    from nm_ode.batch.plan import Plan
    from nm_ode.batch.standing import Standing
    from nm_ode.batch.tasks import MemberOutcome
    from nm_ode.studies import Loaded


@dataclass(frozen=True)
class Where:
    """What the command's options say of the processes that compute.

    Attributes:
        workers, threads, scheduler: None where it is not said.
        scratch: for what is not finished.
        members: by name; all if there are none.
        out: folder or URL.
    """

    out: str
    workers: int | None = None
    threads: int | None = None
    scheduler: str | None = None
    scratch: str | None = None
    members: tuple[str, ...] = ()


def run_all(cases: Sequence[tuple[Loaded, Path]], where: Where) -> int:
    """Run cases and members of sweeps; the exit code."""
    plans = planned(cases, where)
    if plans is None:
        return MISTAKE
    for plan in plans:
        if plan.sweep is not None and plan.store is not None:
            for sentence in plan.store.begin(plan.sweep.record):
                print_dim(f"{plan.case.name}: {sentence}")
    outcomes = _run(plans, where)
    heed()
    return max([_told_of(plan, outcomes) for plan in plans], default=DONE)


def planned(cases: Sequence[tuple[Loaded, Path]], where: Where) -> list[Plan] | None:
    """What is missing of each; None if there is a mistake in any, which is told."""
    from nm_ode.batch.plan import new_batch, plan_case, plan_sweep
    from nm_ode.errors import NmOdeError
    from nm_ode.studies import CaseError

    batch, plans, wrong = new_batch(), [], 0
    for one, path in cases:
        try:
            if one.sweep is not None:
                plans.append(plan_sweep(one.sweep, where.out, where.scratch, batch, where.members))
                continue
            if where.members:
                raise CaseError(f"{path} has no [sweep], and so no member {where.members[0]!r}")
            if "://" in where.out:
                raise CaseError(f"{path} has no [sweep]: a case alone is written to a folder, not to a URL")
            plans.append(plan_case(one.case, path, one.text, where.out, batch))
        except NmOdeError as error:
            complain(str(error))
            wrong += 1
    return None if wrong else plans


def _run(plans: Sequence[Plan], where: Where) -> list[MemberOutcome]:
    from nm_ode.batch.machine import workers_for
    from nm_ode.batch.run import run_batch
    from nm_ode.batch.standing import Standing
    from nm_ode.batch.tasks import BatchError

    tasks = [task for plan in plans for task in plan.tasks]
    if not tasks:
        return []
    devices = [plan.case.device for plan in plans]
    place = where.scheduler or workers_for(len(tasks), devices, where.workers, where.threads)
    whole = sum(plan.whole for plan in plans)
    standing = Standing(total=len(tasks) + whole, whole=whole)
    outcomes: list[MemberOutcome] = []
    # The streams that are there now: while a member runs in this process, what it prints goes to its log.
    screen = Console(file=sys.stderr)
    with Live(_line(standing), console=screen, transient=True, auto_refresh=False) as live:

        def told(now: Standing) -> None:
            heed()
            live.update(_line(now), refresh=True)

        try:
            with closing(run_batch(plans, place, standing, told)) as running:
                for outcome in running:
                    outcomes.append(outcome)
                    _tell(outcome, screen)
        except BatchError as error:
            complain(str(error))
    return outcomes


def _tell(outcome: MemberOutcome, screen: Console) -> None:
    if outcome.status in ("failed", "mistake"):
        screen.print(
            Text.assemble(("failed:", "red"), f" {outcome.label}: {outcome.sentence}"), soft_wrap=True
        )
    for remark in outcome.remarks:
        screen.print(Text(f"{outcome.label}: {remark}", style="yellow"), soft_wrap=True)


def _line(standing: Standing) -> Text:
    """ "12 of 48 done, 2 running, 1 failed, 1:20 left"."""
    parts = [f"{standing.over} of {standing.total} members over", f"{standing.running} running"]
    if standing.busy:
        parts.append(f"{standing.busy} with another command")
    if standing.failed:
        parts.append(f"{standing.failed} failed")
    left = standing.seconds_left
    parts.append(f"{clock(time.monotonic() - standing.began)} so far")
    if left is not None:
        parts.append(f"about {clock(left)} left")
    return Text(", ".join(parts), style="dim")


def clock(seconds: float) -> str:
    """ "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _told_of(plan: Plan, outcomes: Sequence[MemberOutcome]) -> int:
    """Says what became of a case; its exit code."""
    own = [outcome for outcome in outcomes if outcome.study == plan.case.name]
    if plan.sweep is None:
        return _told_of_case(plan, own)
    over = {outcome.member for outcome in own if outcome.status in ("done", "whole")}
    failed = [outcome for outcome in own if outcome.status in ("failed", "mistake")]
    whole, members = plan.whole + len(over), plan.whole + len(plan.tasks)
    how = "done before" if not plan.tasks else f"{len(over)} of them now" if plan.whole else ""
    print_line(plan.case.name, f"{whole} of {members} members whole" + (f", {how}" if how else ""))
    assert plan.store is not None
    if failed:
        print_line(
            "failed",
            f"{len(failed)}; why, and what is needed to run each alone: {plan.store.folder.place('failed')}",
        )
    left = len(plan.tasks) - len(over) - len(failed)
    if left:
        print_line("not run", f"{left}: run the same command again")
    # The page of a study that was broken off is made when it is finished.
    broken_off = left or any(outcome.ends_batch for outcome in own)
    presented = _presented(plan) if whole and not broken_off else True
    print_line("study", plan.store.study.name)
    return DONE if whole == members and presented else FAILED


def _presented(plan: Plan) -> bool:
    """Makes the reductions and the page of a study; did all go well?"""
    from nm_ode.batch.reduce import reduce_study
    from nm_ode.cli.study import present_study
    from nm_ode.results import StoreError, open_study

    assert plan.store is not None
    unmade = reduce_study(plan)
    for sentence in unmade:
        complain(f"{plan.case.name}: {sentence}")
    try:
        tree = open_study(plan.store.study.name)
    except StoreError as error:
        complain(str(error))
        return False
    return present_study(tree, plan.store.folder) and not unmade


def _told_of_case(plan: Plan, outcomes: Sequence[MemberOutcome]) -> int:
    from nm_ode.studies import StoreError, open_store

    outcome = next(iter(outcomes), None)
    if outcome is None or outcome.status not in ("done", "whole"):
        return FAILED
    store = Path(plan.tasks[0].out) / plan.case.name / "run.zarr"
    try:
        tree = open_store(store)
    except StoreError as error:
        complain(str(error))
        return FAILED
    presented = present(tree, store)
    print_line("store ", str(store))
    return DONE if presented and not outcome.remarks else FAILED
