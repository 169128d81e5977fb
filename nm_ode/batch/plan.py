"""What there is to do for the members of a sweep."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nm_ode
from nm_ode.batch.member import is_whole
from nm_ode.batch.tasks import MANY_PAGES, MemberTask
from nm_ode.registry import did_you_mean
from nm_ode.results import StoreError
from nm_ode.results.study import StudyStore
from nm_ode.studies import Case, CaseError, Member, Sweep
from nm_ode.studies.together import alike

_TOLD = 3  # members that cannot be gone on with
_AT_ONCE = 16  # roots of members that are read at once
_AS_ONE = 64  # members that are trained as one: more gain little, and all lose when it is killed


@dataclass(frozen=True)
class Plan:
    """One case of a batch.

    Attributes:
        case, path: and its file.
        sweep, store: of a case with members.
        tasks: what is missing.
        whole: how many members are there.
        alike: names of members that can be trained as one.
    """

    case: Case
    path: Path
    tasks: tuple[MemberTask, ...]
    whole: int = 0
    sweep: Sweep | None = None
    store: StudyStore | None = None
    alike: tuple[tuple[str, ...], ...] = ()

    def sized(self, threads: int, memory: int | None, workers: int = 1) -> Plan:
        """With so many threads and bytes for each member, and members that are trained as one shared among workers."""
        tasks = {task.member: replace(task, threads=threads, memory=memory) for task in self.tasks}
        leaders = {}
        for group in self.alike:
            for first, *others in _parts(group, workers):
                companions = tuple((name, tasks[name].case) for name in others)
                leaders[first] = replace(tasks[first], companions=companions)
        # They come first: their companions wait for them.
        return replace(self, tasks=tuple({**leaders, **tasks, **leaders}.values()))


def new_batch() -> str:
    """A name for a batch, which no other has."""
    return secrets.token_hex(6)


def plan_case(case: Case, path: Path, text: str, out: str, batch: str) -> Plan:
    """A case without members: one task.

    Args:
        text: of the case file, or of one that says the same.
    """
    raw = case.model_dump(mode="json", exclude_none=True)
    task = _task(case, "", raw, path, out, None, batch)
    return Plan(case, path, (replace(task, text=text),))


def plan_sweep(sweep: Sweep, out: str, scratch: str | None, batch: str, chosen: Sequence[str] = ()) -> Plan:
    """The members that are not there; nothing is written.

    Args:
        chosen: names of members; all if there are none.

    Raises:
        CaseError: a name that no member has.
        StoreError: members that are there are of another case or other code: all that are, in sentences.
    """
    members = _chosen(sweep, chosen)
    store = StudyStore.at(out, sweep.case.name, None if scratch is None else Path(scratch))

    def look(member: Member) -> bool | str:
        try:
            return is_whole(store, member.name, member.case, sweep.path)
        except StoreError as error:
            return str(error)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(look, members))
    wrong = [sentence for sentence in found if isinstance(sentence, str)]
    if wrong:
        more = [f"{len(wrong) - _TOLD} more members are so"] if len(wrong) > _TOLD else []
        raise StoreError("\n".join([*wrong[:_TOLD], *more]))
    missing = [member for member, there in zip(members, found, strict=True) if not there]
    limit, vectorise = sweep.table.max_seconds, sweep.table.vectorise
    tasks = tuple(
        replace(
            _task(sweep.case, member.name, dict(member.raw), sweep.path, out, scratch, batch),
            max_seconds=limit,
            vectorise=vectorise or "auto",
            page=len(members) <= MANY_PAGES,
        )
        for member in missing
    )
    # What is not finished lies on one machine, where the study does not.
    apart = not vectorise or store.is_remote
    groups = [] if apart else alike({member.name: member.case for member in missing})
    whole = len(members) - len(tasks)
    return Plan(sweep.case, sweep.path, tasks, whole, sweep, store, tuple(map(tuple, groups)))


def _parts(group: Sequence[str], workers: int) -> list[Sequence[str]]:
    """A part for each worker, none larger than is of use and none of one member."""
    count = max(min(workers, len(group) // 2), -(-len(group) // _AS_ONE), 1)
    bounds = [round(i * len(group) / count) for i in range(count + 1)]
    return [group[start:end] for start, end in pairwise(bounds)]


def _task(
    case: Case, member: str, raw: dict[str, Any], path: Path, out: str, scratch: str | None, batch: str
) -> MemberTask:
    local = out if "://" in out else str(Path(out).absolute())
    return MemberTask(
        case.name,
        member,
        raw,
        str(path.absolute()),
        local,
        scratch,
        batch,
        threads=1,
        version=nm_ode.__version__,
    )


def _chosen(sweep: Sweep, names: Sequence[str]) -> list[Member]:
    known = {member.name: member for member in sweep.members}
    for name in names:
        if name not in known:
            raise CaseError(f"{sweep.path}: no member is called {name!r}{did_you_mean(name, known)}")
    return [known[name] for name in dict.fromkeys(names)] or list(known.values())
