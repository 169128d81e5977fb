"""The dataset of many members' runs, and each run in it as `train` alone would have given it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from nm_ode.arguments import as_count
from nm_ode.results.codec import ResultError, attributes
from nm_ode.results.run_record import RunInfo, encode_run
from nm_ode.results.schema import annotate

MEMBER = "member"
_STATES = ("initial_state", "final_state")
_RUNS, _ABOUT = "runs", "about_members"


def write_members(
    recorded: xr.Dataset,
    infos: Sequence[RunInfo],
    states: Sequence[int],
    named: Mapping[str, Sequence[Any]],
) -> xr.Dataset:
    """The dataset with all that it says of its members.

    What is recorded of a run that ended before others is followed by NaN (whole numbers by 0).

    Args:
        recorded: dimension `member` first.
        infos: of each member's run.
        states: how many numbers each optimiser's state has; 0 where theta is all of it.
        named: seeds and numbers in which the members differ.
    """
    ended = np.array([info.grid.steps for info in infos])
    about: dict[str, Any] = {
        "member_status": np.array([info.status for info in infos], dtype=object),
        "member_steps": ended,
        **{f"member_{name}": np.asarray(values) for name, values in named.items()},
    }
    words = {"member_status": "how the member's run ended", "member_steps": "steps that the member took"}
    coordinates = {
        name: (
            (MEMBER, *(f"{name}_part" for _ in values.shape[1:])),
            values,
            {"long_name": words.get(name, f"the member's {name.removeprefix('member_')}"), "units": "1"},
        )
        for name, values in about.items()
    }
    records = [{**encode_run(info), "state_size": size} for info, size in zip(infos, states, strict=True)]
    common = {name: one for name, one in records[0].items() if all(r.get(name) == one for r in records)}
    own = [
        json.dumps({name: one for name, one in record.items() if name not in common}) for record in records
    ]
    made = recorded.assign_coords({MEMBER: np.arange(len(infos)), **coordinates})
    return annotate(made).assign_attrs({**common, _RUNS: own, _ABOUT: list(about)})


def member_run(dataset: xr.Dataset, member: int) -> xr.Dataset:
    """One member's run, as `train` would have given it alone.

    Args:
        dataset: of `train(..., members=…)`.
        member: its number, as the coordinate `member` has it.

    Returns:
        A run, without the dimension `member`.

    Raises:
        ResultError: the dataset is of no members, or there is no such member.
        ArgumentError: what is no number of one.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, members = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.Members(lr=[0.1, 0.05])
        >>> runs = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=10, members=members)
        >>> run = nm_ode.member_run(runs, 1)
        >>> nm_ode.run_info(run).optimizer_text, run.loss.shape
        ('SGD, lr = 0.05', (10,))
    """
    attrs = attributes(dataset)
    if _RUNS not in attrs or MEMBER not in dataset.coords:
        raise ResultError("the dataset has no members: it is not one of nm_ode.train(…, members=…)")
    numbers = np.atleast_1d(dataset[MEMBER].values).tolist()
    member = as_count(member, "member", least=0)
    if member not in numbers:
        raise ResultError(f"the dataset has no member {member}; it has {numbers[0]} to {numbers[-1]}")
    run = dataset.isel({MEMBER: numbers.index(member)}) if dataset[MEMBER].ndim else dataset
    record = {name: one for name, one in attrs.items() if name not in (_RUNS, _ABOUT)}
    record |= json.loads(np.atleast_1d(np.asarray(attrs[_RUNS], dtype=object))[member])
    steps, size = int(run["member_steps"]), int(record.pop("state_size"))
    run = run.drop_vars([MEMBER, *np.atleast_1d(np.asarray(attrs[_ABOUT], dtype=object))])
    diverged = record["status"] == "diverged"
    if diverged:
        run = run.isel({dim: run[dim].values < steps for dim in map(str, run.dims) if is_of_steps(dim)})
    absent = _STATES if not size or (diverged and not steps) else _STATES[1:] if diverged else ()
    run = run.drop_vars(absent, errors="ignore")
    if "state_index" in run.dims:
        run = run.isel(state_index=slice(size))
    if not steps:  # of which nobody knows how long a dimension would have been that has no coordinates
        known = {dim for one in run.coords.values() for dim in one.dims}
        run = run.isel({dim: slice(0) for dim in run.dims if dim not in known})
    run.attrs = record
    return run


def of_members(one: xr.Variable, rows: np.ndarray) -> xr.Variable:
    """The variable that a run has, of all members: `member` before its dimensions."""
    return xr.Variable((MEMBER, *one.dims), rows, one.attrs)


def is_of_steps(dim: str) -> bool:
    """Does a dimension run over steps of a run?"""
    return dim == "step" or dim.endswith("_step")
