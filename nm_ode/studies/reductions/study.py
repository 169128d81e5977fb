"""The reductions of a study, from the members that are whole into its store."""

from __future__ import annotations

import xarray as xr

from nm_ode.errors import NmOdeError
from nm_ode.results import StoreError, open_store
from nm_ode.results.study import StudyStore
from nm_ode.studies.reductions import REDUCTIONS
from nm_ode.studies.sweep.expand import Sweep


def reduce_study(sweep: Sweep, store: StudyStore) -> list[str]:
    """Make what the case asks for of its members, or make it anew.

    Returns:
        A sentence for each reduction that cannot be made.

    Raises:
        WriteError: no room, or no access.
    """

    def members(name: str) -> xr.DataTree | None:
        try:
            return open_store(store.place(name))
        except StoreError:  # not whole, which whoever reads the study is told
            return None

    told = []
    for name in sweep.table.reduce:
        try:
            made = REDUCTIONS[name].reduce(sweep.record, members, sweep.path)
        except StoreError:
            raise
        except NmOdeError as error:
            told.append(f"{REDUCTIONS[name].title}: {error}")
            continue
        for group, dataset in made.items():
            store.write_reduction(group, dataset)
    return told
