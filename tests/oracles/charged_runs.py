"""Runs on minibatches with the charges of all symmetries recorded."""

from __future__ import annotations

import xarray as xr

import nm_ode
from nm_ode.observers import Charges
from nm_ode.optimizers import Schedule
from nm_ode.symmetries import symmetries_of


def trained(
    problem: nm_ode.Problem, steps: int, schedule: Schedule | None = None, **sgd: object
) -> xr.Dataset:
    """`steps` of SGD on batches of 64."""
    return nm_ode.train(
        problem,
        nm_ode.SGD(**sgd),
        steps,
        batch_size=64,
        schedule=schedule,
        observe=[Charges(symmetries_of(problem))],
        save_every=steps,
    )
