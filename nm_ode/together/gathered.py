"""The dataset of all members: from what was recorded of them together, or from the run of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from nm_ode.observers.track import time_of
from nm_ode.planned import PlannedRun
from nm_ode.results import run_info
from nm_ode.results.members import MEMBER, is_of_steps, of_members, write_members
from nm_ode.together.members import Members


def of_recording(
    recorded: xr.Dataset,
    plans: Sequence[PlannedRun],
    ends: Sequence[tuple[int, str]],
    members: Members,
    more: Mapping[str, Any],
    states: Mapping[str, np.ndarray],
) -> xr.Dataset:
    """Of M members that were recorded together.

    Args:
        recorded: dimension `member` after that of steps.
        ends: how many steps each member took, and why no more: "" if these are all.
        more: variables beside.
        states: the optimisers' whole states, shape (M, S).
    """
    infos = [plan.info(done, why) for plan, (done, why) in zip(plans, ends, strict=True)]
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {}
    for name, one in recorded.variables.items():
        if name == MEMBER or name in recorded.coords:
            coordinates[str(name)] = one
        else:
            variables[str(name)] = one.transpose(MEMBER, ...) if MEMBER in one.dims else one
    for dim in filter(is_of_steps, map(str, recorded.dims)):
        steps = recorded[dim].values
        times = np.stack([plan.grid.times[steps] for plan in plans])
        coordinates[time_of(dim)] = of_members(recorded.variables[time_of(dim)], times)
        if dim == "step":
            rates = np.stack([plan.grid.lr[: len(steps)] for plan in plans])
            variables["lr"] = xr.Variable((MEMBER, dim), rates)
        for one in (*variables.values(), coordinates[time_of(dim)]):
            if one.dims[:2] == (MEMBER, dim) and one.dtype.kind == "f":
                for i, (done, why) in enumerate(ends):
                    if why:
                        one.values[i, steps >= done] = np.nan
    sizes = _sizes(plans)
    for name, rows in states.items():
        for row, size, (done, why) in zip(rows, sizes, ends, strict=True):
            if not size or (why and (name == "final_state" or not done)):
                row[:] = np.nan
        variables[name] = xr.Variable((MEMBER, "state_index"), rows)
    return write_members(xr.Dataset({**variables, **more}, coords=coordinates), infos, sizes, members.named)


def of_runs(runs: Sequence[xr.Dataset], plans: Sequence[PlannedRun], members: Members) -> xr.Dataset:
    """Of M members that were trained one after another."""
    names = {str(name): one for run in runs for name, one in run.variables.items()}
    shared = {str(dim) for run in runs for dim in run.dims}
    sizes = {dim: max(run.sizes.get(dim, 0) for run in runs) for dim in shared}
    found: dict[str, Any] = {}
    for name, like in names.items():
        if name in shared or not (like.dims or name not in runs[0].coords):
            longest = max(runs, key=lambda run: run.sizes.get(name, 0))
            found[name] = longest.variables[name]
        elif name in runs[0].coords and not any(is_of_steps(str(dim)) for dim in like.dims):
            found[name] = like
        else:
            found[name] = _stacked([run.variables.get(name) for run in runs], like, sizes)
    coordinates = [name for name in found if any(name in run.coords for run in runs)]
    made = xr.Dataset(found).set_coords(coordinates)
    return write_members(made, [run_info(run) for run in runs], _sizes(plans), members.named)


def _stacked(each: Sequence[xr.Variable | None], like: xr.Variable, sizes: Mapping[str, int]) -> xr.Variable:
    shape = (len(each), *(sizes[str(dim)] for dim in like.dims))
    rows = np.full(shape, np.nan if like.dtype.kind == "f" else 0, dtype=like.dtype)
    for i, one in enumerate(each):
        if one is not None:
            place: Any = (i, *map(slice, one.shape))
            rows[place] = one.values
    return of_members(like, rows)


def _sizes(plans: Sequence[PlannedRun]) -> list[int]:
    """Numbers of each optimiser's state; 0 where theta is all of it."""
    return [
        plan.optimizer.state_layout(plan.problem.layout.size).size if plan.optimizer.stateful else 0
        for plan in plans
    ]
