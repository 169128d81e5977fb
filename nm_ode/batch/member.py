"""One member, from its claim to its place in the study: what a worker runs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import nm_ode
from nm_ode.batch.attempts import Attempts
from nm_ode.batch.failing import failure, failure_of
from nm_ode.batch.said import end_of, said_to
from nm_ode.batch.surroundings import same_surroundings
from nm_ode.batch.tasks import ALLOWED, MemberOutcome, MemberTask
from nm_ode.batch.watch import Cancelled, TimeUp, TooLarge, Watch, is_given_up
from nm_ode.results import StoreError
from nm_ode.results.root import read_root
from nm_ode.results.study import Busy, Failure, StudyStore
from nm_ode.studies import Case, run_case, run_case_into
from nm_ode.studies.identity import data_place, identity_now
from nm_ode.studies.together import Companion, train_companions
from nm_ode.studies.written import as_toml, with_code_found

_LOG = "log.txt"


def run_member(task: MemberTask, *, whole_process: bool = False) -> MemberOutcome:
    """Compute a member, or find it whole; what goes wrong is an outcome.

    Args:
        whole_process: is this process the member's alone? Then all that it prints goes to the log.
    """
    began = time.monotonic()
    if is_given_up(task.batch):
        return MemberOutcome.of(task, "stopped")
    if task.version and task.version != nm_ode.__version__:
        return MemberOutcome.of(
            task,
            "mistake",
            f"this worker has nm_ode {nm_ode.__version__}, and the command {task.version}: install the same in "
            "both places",
            ends_batch=True,
        )
    outcome = _Running(task, whole_process).outcome()
    return replace(outcome, seconds=time.monotonic() - began)


def case_of(task: MemberTask) -> Case:
    """The member's case, as every process has it."""
    return Case.model_validate(task.case, context={"folder": Path(task.path).parent})


def store_of(task: MemberTask) -> StudyStore:
    """The store of the member's study."""
    return StudyStore.at(task.out, task.study, None if task.scratch is None else Path(task.scratch))


def is_whole(store: StudyStore, member: str, case: Case, path: Path) -> bool:
    """Are the member's results there?

    Raises:
        StoreError: they are of another case or other code, or cannot be read.
    """
    known: Mapping[str, str] = {}
    if case.code or data_place(case):
        # What it imports, and of what data it is, is known to its results alone.
        with contextlib.suppress(StoreError):
            known = read_root(store.study.below(member))[0].identity.code
    return store.is_whole(member, identity_now(case, known, path.parent))


def text_of(task: MemberTask) -> str:
    """A case file of the member alone, which can be run from any folder."""
    raw = with_code_found(dict(task.case), Path(task.path).parent)
    name = f"{task.study}_{task.member}".translate(str.maketrans("=,", "--"))[:100].rstrip(".")
    return as_toml({"name": name, **{key: value for key, value in raw.items() if key != "name"}})


def keep_failure(store: StudyStore, task: MemberTask, found: Failure) -> str:
    """Keep why a member has no results; the sentence, with why that could not be kept."""
    log = store.working(task.member).parent / _LOG
    try:
        store.fail(task.member, replace(found, case_text=text_of(task), log=end_of(log)))
    except (StoreError, OSError) as error:
        if found.kind != "disk":
            return f"{found.sentence} (which cannot be kept: {error})"
    return found.sentence


class _Running:
    """One attempt at a task.

    Args:
        task, whole_process: as of `run_member`.
    """

    def __init__(self, task: MemberTask, whole_process: bool) -> None:
        self._task, self._path, self._whole_process = task, Path(task.path), whole_process
        self._case = case_of(task)
        self._remarks: list[str] = []

    def outcome(self) -> MemberOutcome:
        """What became of it."""
        if not self._task.member:
            return self._alone()
        store = store_of(self._task)
        try:
            if is_whole(store, self._task.member, self._case, self._path):
                return self._came_to("whole")
            with store.claim(self._task.member):
                if is_whole(store, self._task.member, self._case, self._path):
                    return self._came_to("whole")
                return self._claimed(store)
        except Busy as busy:
            return self._came_to("busy", str(busy))
        except StoreError as error:  # what is there is another's, or nothing can be written at all
            found = failure_of(error, self._task)
            return self._came_to("mistake", str(error), ends_batch=found.kind == "disk")

    def _alone(self) -> MemberOutcome:
        """A case without members, as it is run alone."""
        task = self._task
        try:
            with self._watched() as watch:
                done = run_case(self._case, self._path, Path(task.out), watch.progress, self._say, task.text)
        except Cancelled:
            return self._came_to("stopped")
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            found = failure_of(error, task)
            return self._came_to("failed", found.sentence, ends_batch=found.kind == "disk")
        return self._came_to("whole" if done.reused else "done", remarks=(*done.discarded, *done.failures))

    def _claimed(self, store: StudyStore) -> MemberOutcome:
        task, folder = self._task, store.working(self._task.member).parent
        attempts = Attempts.of(folder, task.batch)
        if attempts.deaths >= ALLOWED:
            found = failure("memory" if attempts.of_memory else "killed", attempts.sentence())
            keep_failure(store, task, found)
            attempts.end()
            return self._came_to("failed", attempts.sentence())
        try:
            attempts.begin(task.memory)
            with said_to(folder / _LOG, whole_process=self._whole_process):
                self._compute(store, attempts)
            store.commit(task.member)
        except Cancelled:
            return self._came_to("stopped")
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            found = failure_of(error, task)
            told = keep_failure(store, task, found)
            return self._came_to("failed", told, ends_batch=found.kind == "disk")
        finally:
            _without_errors(attempts.end)
        _without_errors(lambda: (folder / _LOG).unlink(missing_ok=True))
        return self._came_to("done", remarks=tuple(self._remarks))

    def _compute(self, store: StudyStore, attempts: Attempts) -> None:
        task, working = self._task, store.working(self._task.member)
        if _is_ready(store, task.member, self._case, self._path):
            return
        if task.companions and attempts.deaths < ALLOWED - 1:
            self._train_with_companions(store, attempts)
        with self._watched(attempts) as watch:
            written = run_case_into(
                self._case, self._path, working, watch.progress, self._say, text=text_of(task)
            )
        self._remarks += [*written.discarded, *written.failures]

    def _train_with_companions(self, store: StudyStore, attempts: Attempts) -> None:
        """Train several members as one; each of them finds its run. What goes wrong is left to each."""
        task = self._task
        members = [Companion(self._case, store.working(task.member), text_of(task))]
        with contextlib.ExitStack() as claims:
            for name, raw in task.companions:
                one = replace(task, member=name, case=raw, companions=())
                case, working = case_of(one), store.working(name)
                with contextlib.suppress(StoreError):  # somebody else has it, or it is another's
                    claims.enter_context(store.claim(name))
                    if not is_whole(store, name, case, self._path) and not os.path.lexists(working):
                        members.append(Companion(case, working, text_of(one)))
            with contextlib.suppress(TimeUp, TooLarge), self._watched(attempts, len(members)) as watch:
                train_companions(
                    members,
                    self._path,
                    task.vectorise,
                    watch.progress,
                    self._say,
                    lambda seed: same_surroundings(seed, task.threads),
                )

    @contextlib.contextmanager
    def _watched(self, attempts: Attempts | None = None, members: int = 1) -> Iterator[Watch]:
        task = self._task

        def grown(held: int) -> None:
            if attempts is not None:
                _without_errors(lambda: attempts.grown(held))

        limit = None if task.max_seconds is None else task.max_seconds * members
        watch = Watch(task.batch, limit, task.memory, on_growth=grown)
        with same_surroundings(self._case.seed, task.threads), watch:
            yield watch

    def _say(self, sentence: str) -> None:
        if self._task.member:
            print(sentence, flush=True)

    def _came_to(self, status: str, sentence: str = "", **more: object) -> MemberOutcome:
        return MemberOutcome.of(self._task, status, sentence, **more)  # type: ignore[arg-type]


def _is_ready(store: StudyStore, member: str, case: Case, path: Path) -> bool:
    """Was it computed, and not yet put in its place?"""
    working = store.working(member)
    if not os.path.lexists(working):
        return False
    root, _ = read_root(working)
    return store.is_ready(member, identity_now(case, root.identity.code, path.parent))


def _without_errors(action: Callable[[], object]) -> None:
    with contextlib.suppress(OSError, StoreError):
        action()
