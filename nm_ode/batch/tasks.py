"""What is sent to whoever runs a member, and what comes back: small, and plain values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nm_ode.errors import NmOdeError

ALLOWED = 3
"""So many processes may die of one member in one batch; it may have been somebody else's fault."""

MANY_PAGES = 100
"""Members above which their pages are drawn if they are asked for."""


class BatchError(NmOdeError, RuntimeError):
    """A batch that cannot go on: no scheduler, workers that cannot run members."""


@dataclass(frozen=True)
class MemberTask:
    """A member of a study, or a case without members.

    Attributes:
        study: the case's name.
        member: "" for a case without members.
        case: the member's own, as it would be read from a file.
        path: of the case file, absolute: its folder is that of the user's code and data.
        out: folder or URL of the results.
        scratch: folder for what is not finished, where `out` is a URL.
        batch: the command that asks; its attempts are counted together, and end together.
        threads: that torch and the libraries of linear algebra take; 0 for as many as the worker has.
        max_seconds: after which the member is given up; None for no limit.
        memory: bytes of a process, above which the member is given up; None for no limit.
        version: of nm_ode where the task was made.
        companions: name and case of other members, whose trainings are taken as one with this member's first.
        vectorise: "auto": if that is faster.
        text: of the case file, of a case without members.
        page: is the member's page drawn when its results are there?
    """

    study: str
    member: str
    case: Mapping[str, Any] = field(repr=False)
    path: str = field(repr=False)
    out: str
    scratch: str | None
    batch: str
    threads: int
    max_seconds: float | None = None
    memory: int | None = None
    version: str = ""
    companions: tuple[tuple[str, Mapping[str, Any]], ...] = field(default=(), repr=False)
    vectorise: Literal["auto", True] = "auto"
    text: str | None = field(default=None, repr=False)
    page: bool = False

    @property
    def all_seconds(self) -> float | None:
        """After which the task is given up, with the training of its companions."""
        parts = 2 + len(self.companions) if self.companions else 1
        return None if self.max_seconds is None else parts * self.max_seconds


Status = Literal["done", "whole", "failed", "mistake", "busy", "stopped"]


@dataclass(frozen=True)
class MemberOutcome:
    """What became of a task.

    Attributes:
        status: done now; whole before; failed, with an entry of its own, or for a mistake of the caller's; busy:
            another command has it; stopped: the batch ended first.
        sentence: why not.
        remarks: a sentence for each part of the results that did not go well, and for what was thrown away.
        seconds: that it took.
        ends_batch: there is no use in trying the others: the disk is full.
    """

    study: str
    member: str
    status: Status
    sentence: str = ""
    remarks: tuple[str, ...] = ()
    seconds: float = 0.0
    ends_batch: bool = False

    @classmethod
    def of(cls, task: MemberTask, status: Status, sentence: str = "", **more: Any) -> MemberOutcome:
        """The outcome of this task."""
        return cls(task.study, task.member, status, sentence, **more)

    @property
    def label(self) -> str:
        """For a reader: "sweep_x: lr=0.1,seed=3"."""
        return f"{self.study}: {self.member}" if self.member else self.study


@dataclass(frozen=True)
class Sure:
    """The outcome of a task, whatever happens from now on: its member is whole, and its page is being drawn."""

    outcome: MemberOutcome
