"""A law at the records of a run whose charges were recorded at some steps alone."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.charges.driven import CHANGED, Driven
from nm_ode.charges.errors import LawError
from nm_ode.charges.law import Law
from nm_ode.charges.summed import response_names

Array = NDArray[np.float64]


def at_records(
    run: xr.Dataset, what: Driven, name: str, law: Law, *, with_residual: bool, from_rest: bool
) -> Array:
    """Q at each record, from what was summed between them (`recursion.py`); shape (records, C).

    Args:
        what: of the run; its drivers are not read.
        name: of the law.

    Raises:
        LawError: what this law needs was not summed, or the run changed in a way that no law describes.
    """
    response, propagator = response_names(name)
    if law.recursion is None or response not in run:
        raise LawError(
            f"the run recorded its charges at some steps alone, and what the {law.title} needs of the steps between "
            f"was not summed: record with Charges(symmetries, every=…, laws=[{name!r}]) or with every=1"
        )
    records = run["charge_step"].values
    if records[0] != 0 or not np.array_equal(np.diff(records), run["summed_steps"].values[1:]):
        raise LawError(
            "records of the charges are missing, or their sums are not of all steps between them: a law begins at step "
            "0 and needs what every step did"
        )
    forced = run[response].values
    if with_residual:
        residual, _ = response_names(name, residual=True)
        if residual not in run:
            raise LawError(
                "what the recorded ⟨g, ξ⟩ did between the records was not summed: record with Charges(symmetries, "
                "every=…, residual=True)"
            )
        forced = forced + run[residual].values
    moves = run[propagator].values
    if not np.isfinite(moves).all():
        raise LawError(CHANGED)
    start = law.recursion.from_rest if from_rest and law.recursion.from_rest else law.recursion.start
    z = start(what)
    size = len(z)  # of all that was summed: charges of another group may remember more
    moves, forced = moves[..., :size, :size], forced[:, :size]
    charges = [law.recursion.charge(z)]
    for by_degree, added in zip(moves[1:], forced[1:], strict=True):
        z = np.where(what.translation, by_degree[0] @ z, by_degree[1] @ z) + added
        charges.append(law.recursion.charge(z))
    return np.stack(charges)
