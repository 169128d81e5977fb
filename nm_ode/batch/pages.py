"""The page of a member, drawn where it was computed: many are drawn at once, and the command need not wait for them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

from nm_ode.batch.member import store_of
from nm_ode.batch.tasks import MemberOutcome, MemberTask
from nm_ode.errors import NmOdeError


def is_to_be_drawn(task: MemberTask, outcome: MemberOutcome) -> bool:
    """Has the member results since now, and is its page asked for?"""
    return task.page and outcome.status == "done"


def with_page(task: MemberTask, outcome: MemberOutcome) -> MemberOutcome:
    """Draw the page of a member that is to have one; the outcome, with the time that this took.

    A page that cannot be drawn, or is cut off, is missing: the command tries again at its end, and says what is wrong.
    """
    if not is_to_be_drawn(task, outcome):
        return outcome
    from nm_ode.reporting.study.members import draw_page

    began = time.monotonic()
    with contextlib.suppress(NmOdeError, OSError, MemoryError, RecursionError):
        draw_page(store_of(task).folder, task.member)
    return replace(outcome, seconds=outcome.seconds + time.monotonic() - began)
