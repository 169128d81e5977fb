"""One learning rate of a ladder, read off a member's tree: what the fit of the orders needs of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nm_ode.comparison import share_at_start
from nm_ode.results import LadderInfo, RunInfo, SolveInfo, run_info, solve_info, study_info

_ROUNDINGS = 10.0


@dataclass(frozen=True, eq=False)
class Rung:
    """A member at one learning rate.

    Attributes:
        run: what is known of it; a run that diverged has no flows.
        flows: name in the tree → what the solution says of itself, of those that were tried.
    """

    lr: float
    tree: xr.DataTree
    run: RunInfo
    flows: Mapping[str, SolveInfo]


def rung(lr: float, tree: xr.DataTree) -> Rung:
    """A member's tree at its learning rate."""
    flows = tree["flows"].children if "flows" in tree.children else {}
    return Rung(
        lr,
        tree,
        run_info(tree["discrete"].dataset),
        {name: solve_info(node.dataset) for name, node in flows.items()},
    )


def confounders(rungs: Sequence[Rung], *, fixed_step: bool) -> LadderInfo:
    """What, apart from the flow, may change the observed order.

    Args:
        fixed_step: were the flows solved with a step of the user's?
    """
    solved = [info for one in rungs for info in one.flows.values()]
    biased = next((info for info in solved if info.batch_bias is not None), None)
    return LadderInfo(
        stateful=any(one.run.stateful for one in rungs),
        warm_start=all(one.run.warm_start for one in rungs),
        fixed_step=fixed_step,
        batch_bias=None if biased is None else biased.batch_bias,
        batch_bias_error=None if biased is None else biased.batch_bias_error,
        kinks=tuple(dict.fromkeys(kink for info in solved for kink in info.kinks)),
    )


def point(one: Rung, flows: Mapping[str, SolveInfo]) -> xr.Dataset:
    """What `nm_ode.comparison.convergence` takes of one learning rate.

    Args:
        flows: of all learning rates.

    Returns:
        Dimensions `flow`, `layer`; scalar coordinate `lr`. `error`, `relative_error`, `layer_error` at the end,
        `solver_error`, NaN for a flow that was not solved to the end; `rounding`, below which an error is the run's
        own; `largest_normalised_sharpness`, `crossing_share` (mean over some steps), `start_share` of the one-step
        defects in the first tenth.
    """
    discrete = one.tree["discrete"].dataset
    layers = discrete["layer"].values
    last = [_at_the_end(one, name) for name in flows]
    return xr.Dataset(
        {
            "expected_order": ("flow", [info.expected_order for info in flows.values()]),
            **{
                name: ("flow", np.array([_number(found, name) for found in last]))
                for name in ("error", "relative_error", "solver_error")
            },
            "start_share": ("flow", np.array([_start_share(one, name) for name in flows])),
            "layer_error": (
                ("flow", "layer"),
                np.stack(
                    [
                        np.full(len(layers), math.nan) if found is None else found["layer_error"].values
                        for found in last
                    ]
                ),
            ),
            "rounding": ((), _rounding(one)),
            "largest_normalised_sharpness": ((), _largest_sharpness(one.tree)),
            "crossing_share": ((), _mean(discrete, "crossing_share")),
        },
        coords={
            "lr": one.lr,
            "flow": np.array(list(flows), dtype=object),
            "flow_title": ("flow", np.array([info.title for info in flows.values()], dtype=object)),
            "beside": ("flow", np.array([info.beside or "" for info in flows.values()], dtype=object)),
            "layer": layers,
        },
    )


def _at_the_end(one: Rung, name: str) -> xr.Dataset | None:
    """The comparison after the last step; None of a flow that did not come so far."""
    info = one.flows.get(name)
    if info is None or info.status != "success" or one.run.status != "success":
        return None
    return one.tree[f"comparison/{name}"].dataset.isel(saved_step=-1)


def _number(found: xr.Dataset | None, name: str) -> float:
    return math.nan if found is None or name not in found else float(found[name])


def _start_share(one: Rung, name: str) -> float:
    compared = one.tree["comparison"].children if "comparison" in one.tree.children else {}
    if name not in compared or "defect" not in compared[name].dataset:
        return math.nan
    return share_at_start(compared[name].dataset["defect"].values, one.run.grid.steps // 10)


def _rounding(one: Rung) -> float:
    """A random walk of so many roundings of theta."""
    run = one.tree["discrete"].dataset
    size = float(np.linalg.norm(run["theta"][-1].values) if "theta" in run else run["theta_norm"][-1])
    eps = float(np.finfo(study_info(one.tree).dtype).eps)
    return _ROUNDINGS * eps * size * math.sqrt(one.run.grid.steps)


def _largest_sharpness(tree: xr.DataTree) -> float:
    if "curvature" not in tree["discrete"].children:
        return math.nan
    values = tree["discrete/curvature"].dataset["normalised_sharpness"].values
    return float(values.max()) if values.size else math.nan


def _mean(dataset: xr.Dataset, name: str) -> float:
    known = dataset[name].values if name in dataset else np.array([])
    return float(np.nanmean(known)) if np.isfinite(known).any() else math.nan
