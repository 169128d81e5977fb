"""What is made of all members, when they are done."""

from __future__ import annotations

import xarray as xr

from nm_ode.batch.plan import Plan
from nm_ode.errors import NmOdeError
from nm_ode.results import StoreError, open_store
from nm_ode.studies import REDUCTIONS


def reduce_study(plan: Plan) -> list[str]:
    """Make the reductions that a sweep asks for, of the members that there are, and write them beside these.

    Returns:
        A sentence for each that could not be made.
    """
    if plan.sweep is None or plan.store is None:
        return []
    store, failures = plan.store, []

    def member(name: str) -> xr.DataTree | None:
        try:
            return open_store(store.place(name))
        except StoreError:
            return None

    for name in plan.sweep.table.reduce:
        reduction = REDUCTIONS[name]
        try:
            made = reduction.reduce(plan.sweep.record, member, plan.path)
            for group, dataset in made.items():
                store.write_reduction(group, dataset)
        except NmOdeError as error:
            failures.append(f"{reduction.title}: {error}")
    return failures
