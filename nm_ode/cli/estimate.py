"""nm-ode run --dry-run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nm_ode.cli.batch import Where, clock, planned
from nm_ode.cli.console import complain, err, print_dim, print_line
from nm_ode.cli.stopping import DONE, FAILED, MISTAKE

if TYPE_CHECKING:
    from nm_ode.studies import Loaded


def tell_estimate(cases: Sequence[tuple[Loaded, Path]], where: Where) -> int:
    """Say what a run would do and take; nothing is written but in a folder that goes. The exit code."""
    from nm_ode.batch.estimate import measured
    from nm_ode.batch.machine import workers_for
    from nm_ode.errors import NmOdeError
    from nm_ode.memory import in_words

    plans = planned(cases, where)
    if plans is None:
        return MISTAKE
    code = DONE
    for plan in plans:
        missing = len(plan.tasks)
        print_line(
            plan.case.name, f"{missing + plan.whole} members, {plan.whole} of them whole, {missing} to run"
        )
        if not missing:
            continue
        place = workers_for(missing, [plan.case.device], where.workers, where.threads)
        try:
            with err.status("measuring a short member"):
                found = measured(plan.tasks[0], place.threads)
        except NmOdeError as error:
            complain(f"{plan.case.name}: its time cannot be estimated: {error}")
            code = FAILED
            continue
        workers = max(1, place.count)
        processes = "one process" if workers == 1 else f"{workers} processes"
        if where.scheduler is None:
            rounds = -(-missing // workers)
            print_line("time  ", f"about {clock(rounds * found.seconds)} in {processes} of this machine")
        else:
            print_line("time  ", f"about {clock(missing * found.seconds)}, divided by the number of workers")
        print_line("disk  ", f"about {in_words(missing * found.size)}")
        print_dim(found.how)
    return code
