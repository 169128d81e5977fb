"""One learning rate of a ladder, read off a member's tree: what the fit of the orders needs of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from nm_ode.comparison import share_at_start
from nm_ode.results import LadderInfo, RunInfo, SolveInfo, run_info, solve_info, study_info

_ROUNDINGS = 10.0


@dataclass(frozen=True, eq=False)
class FlowSeen:
    """A flow after the last step; NaN where it did not come so far.

    Attributes:
        layer_error: in the order of the rung's layers.
        start_share: of the one-step defects in the first tenth.
    """

    info: SolveInfo
    layer_error: NDArray[np.float64]
    error: float = math.nan
    relative_error: float = math.nan
    solver_error: float = math.nan
    start_share: float = math.nan


@dataclass(frozen=True, eq=False)
class Rung:
    """A member at one learning rate; one that is not there has neither a run nor flows.

    Attributes:
        rounding: the error below which it is the run's own.
        sharpness: the largest lr · λ_max along the run.
        crossing_share: of units that cross a kink in one step, mean over some steps.
        flows: by name in the tree, those that were tried. A run that diverged has none.
    """

    lr: float
    run: RunInfo | None = None
    layers: tuple[str, ...] = ()
    rounding: float = math.nan
    sharpness: float = math.nan
    crossing_share: float = math.nan
    flows: Mapping[str, FlowSeen] = field(default_factory=dict)


def rung(lr: float, tree: xr.DataTree | None) -> Rung:
    """What is seen in a member's tree; None of a member that is not there."""
    if tree is None:
        return Rung(lr)
    discrete = tree["discrete"].dataset
    run = run_info(discrete)
    tried = tree["flows"].children if "flows" in tree.children else {}
    compared = tree["comparison"].children if "comparison" in tree.children else {}
    return Rung(
        lr,
        run,
        tuple(discrete["layer"].values.tolist()),
        _rounding(tree, run),
        _largest_sharpness(tree),
        _mean(discrete, "crossing_share"),
        {name: _seen(solve_info(node.dataset), run, compared.get(name)) for name, node in tried.items()},
    )


def confounders(rungs: Sequence[Rung], *, fixed_step: bool) -> LadderInfo:
    """What, apart from the flow, may change the observed order.

    Args:
        fixed_step: were the flows solved with a step of the user's?
    """
    runs = [one.run for one in rungs if one.run is not None]
    solved = [seen.info for one in rungs for seen in one.flows.values()]
    biased = next((info for info in solved if info.batch_bias is not None), None)
    return LadderInfo(
        stateful=any(run.stateful for run in runs),
        warm_start=all(run.warm_start for run in runs),
        fixed_step=fixed_step,
        batch_bias=None if biased is None else biased.batch_bias,
        batch_bias_error=None if biased is None else biased.batch_bias_error,
        kinks=tuple(dict.fromkeys(kink for info in solved for kink in info.kinks)),
    )


def point(one: Rung, flows: Mapping[str, SolveInfo], layers: Sequence[str]) -> xr.Dataset:
    """What `nm_ode.comparison.convergence` takes of one learning rate.

    Args:
        flows, layers: those of all learning rates.

    Returns:
        Dimensions `flow`, `layer`; scalar coordinate `lr`. NaN for what this one has not got.
    """
    found = [one.flows.get(name) for name in flows]
    errors = np.full((len(flows), len(layers)), math.nan)
    for i, seen in enumerate(found):
        for j, layer in enumerate(one.layers if seen is not None else ()):
            errors[i, layers.index(layer)] = seen.layer_error[j] if seen is not None else math.nan
    return xr.Dataset(
        {
            "expected_order": ("flow", [info.expected_order for info in flows.values()]),
            **{
                name: (
                    "flow",
                    np.array([math.nan if seen is None else getattr(seen, name) for seen in found]),
                )
                for name in ("error", "relative_error", "solver_error", "start_share")
            },
            "layer_error": (("flow", "layer"), errors),
            "rounding": ((), one.rounding),
            "largest_normalised_sharpness": ((), one.sharpness),
            "crossing_share": ((), one.crossing_share),
        },
        coords={
            "lr": one.lr,
            "flow": np.array(list(flows), dtype=object),
            "flow_title": ("flow", np.array([info.title for info in flows.values()], dtype=object)),
            "beside": ("flow", np.array([info.beside or "" for info in flows.values()], dtype=object)),
            "layer": np.array(layers, dtype=object),
        },
    )


def _seen(info: SolveInfo, run: RunInfo, compared: xr.DataTree | None) -> FlowSeen:
    nothing = FlowSeen(info, np.full(len(run.layout.layers), math.nan))
    if compared is None:
        return nothing
    found = compared.dataset
    share = share_at_start(found["defect"].values, run.grid.steps // 10) if "defect" in found else math.nan
    if info.status != "success" or "error" not in found:
        return FlowSeen(info, nothing.layer_error, start_share=share)
    last = found.isel(saved_step=-1)
    return FlowSeen(
        info,
        last["layer_error"].values if "layer_error" in last else nothing.layer_error,
        float(last["error"]),
        float(last["relative_error"]),
        float(last["solver_error"]) if "solver_error" in last else math.nan,
        share,
    )


def _rounding(tree: xr.DataTree, run: RunInfo) -> float:
    """A random walk of so many roundings of theta, and of the updates where gradients are coarser."""
    found = tree["discrete"].dataset
    if "theta" not in found and "theta_norm" in found:
        size = float(found["theta_norm"][-1])
    else:  # of a sketch it is an estimate, to a few percent
        size = float(np.linalg.norm(found["theta" if "theta" in found else "theta_sketch"][-1].values))
    walk = float(np.finfo(study_info(tree).dtype).eps) * size * math.sqrt(run.grid.steps)
    if run.autocast:
        eps = torch.finfo(getattr(torch, run.autocast)).eps
        walk += eps * float(np.linalg.norm(found["update_norm"].values))
    return _ROUNDINGS * walk


def _largest_sharpness(tree: xr.DataTree) -> float:
    if "curvature" not in tree["discrete"].children:
        return math.nan
    values = tree["discrete/curvature"].dataset["normalised_sharpness"].values
    return float(values.max()) if values.size else math.nan


def _mean(dataset: xr.Dataset, name: str) -> float:
    known = dataset[name].values if name in dataset else np.array([])
    return float(np.nanmean(known)) if np.isfinite(known).any() else math.nan
