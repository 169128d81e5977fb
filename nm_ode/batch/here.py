"""A case file run from Python: its tree, and nothing drawn or printed."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import xarray as xr

from nm_ode.arguments import as_count
from nm_ode.required import as_path

if TYPE_CHECKING:
    from nm_ode.studies import Sweep


def run_study(
    case: str | os.PathLike[str], out: str | os.PathLike[str] = "results", *, workers: int = 0
) -> xr.DataTree:
    """Run a case file, or go on with it, or find it done: what `nm-ode run` does, without its pages.

    Args:
        case: path of the file, or name of a shipped case.
        out: folder of the results, the command's too: each finds what the other did. A sweep may go to a URL.
        workers: processes for the members of a sweep; 0 for this one alone. A script that asks for some must have its
            own code below `if __name__ == "__main__":`.

    Returns:
        Of a sweep the tree of `open_study`, members along its axes; of another case that of `open_store`.

    Raises:
        CaseError: a mistake in the file, or what it names is not there.
        StoreError: results of another case are there, or none can be written.
        BatchError: a part of it failed; the rest is there, and the same call tries that part again.

    Example:
        >>> from pathlib import Path
        >>> import nm_ode
        >>> _ = Path("small.toml").write_text('''
        ... name = "small"
        ... loss = "mse"
        ... model = { name = "linear", inputs = 10, outputs = 1 }
        ... data = { name = "diabetes" }
        ... optimizer = { name = "sgd", lr = 0.05 }
        ... training = { steps = 8 }
        ... flows = ["gradient"]''')
        >>> tree = nm_ode.run_study("small.toml", out="results")
        >>> nm_ode.study_info(tree).status, tree["discrete"].loss.shape
        ('complete', (8,))
    """
    # Here, since dask and matplotlib come with them.
    from nm_ode.batch.tasks import BatchError
    from nm_ode.studies import find_case, load, run_case

    path, workers = find_case(os.fspath(case)), as_count(workers, "workers", least=0)
    loaded = load(path)
    if loaded.sweep is not None:
        tree, failures = _members(loaded.sweep, os.fspath(out), workers)
    else:
        done = run_case(loaded.case, path, as_path(out, "out"), text=loaded.text)
        tree, failures = done.tree, list(done.failures)
    if failures:
        more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        raise BatchError(f"{path}: {failures[0]}{more}")
    return tree


def _members(sweep: Sweep, out: str, workers: int) -> tuple[xr.DataTree, list[str]]:
    """The study's tree, and a sentence for each member that failed."""
    from nm_ode.batch.machine import workers_for
    from nm_ode.batch.plan import new_batch, plan_sweep
    from nm_ode.batch.reduce import reduce_study
    from nm_ode.batch.run import run_batch
    from nm_ode.batch.standing import Standing
    from nm_ode.results import open_study

    plan = plan_sweep(sweep, out, None, new_batch())
    plan = replace(plan, tasks=tuple(replace(task, page=False) for task in plan.tasks))
    assert plan.store is not None
    plan.store.begin(sweep.record)
    threads = None if workers else torch.get_num_threads()  # this process keeps those that it has
    where = workers_for(len(plan.tasks), [sweep.case.device], workers, threads)
    standing = Standing(total=len(plan.tasks) + plan.whole, whole=plan.whole)
    failures = [
        f"{one.label}: {one.sentence or one.status}"
        for one in run_batch([plan], where, standing, lambda now: None)
        if one.status not in ("done", "whole")
    ]
    failures += reduce_study(plan)
    return open_study(plan.store.study.name), failures
