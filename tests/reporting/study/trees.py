"""Trees of studies of many members as `nm_ode.open_study` gives them, made by hand from known laws."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

FLOWS = {"gradient": ("gradient flow", 1), "modified_2_hessian": ("modified flow, order 2, Hessian form", 2)}
TIME = 8.0


def study_tree(
    axes: Mapping[str, list],
    states: Mapping[tuple[int, ...], tuple[str, str]] | None = None,
    flows: Mapping[str, tuple[str, int]] = FLOWS,
    constant: Mapping[str, float] | None = None,
    saved: int = 9,
) -> xr.DataTree:
    """A study whose errors are c · (1 + momentum)² · lr^order exactly.

    Args:
        axes: name → values; "lr" must be among them for orders.
        states: index → status and reason, of members that are not whole.
        constant: flow → c.
    """
    names, shape = tuple(axes), tuple(len(values) for values in axes.values())
    grid = xr.Dataset(coords={name: np.array(values) for name, values in axes.items()})
    whole = np.ones(shape, dtype=bool)
    status, failure, ends = (np.full(shape, text, dtype=object) for text in ("complete", "", "success"))
    for at, (state, reason) in (states or {}).items():
        status[at] = {"diverged": "failed", "stopped": "failed", "failed": "memory"}.get(state, state)
        failure[at], whole[at] = reason, state in ("diverged", "stopped")
        ends[at] = {"diverged": "diverged", "stopped": "success"}.get(state, "")
    lr = _along(axes, "lr", 0.1)
    momentum = _along(axes, "momentum", 0.0)
    seed = _along(axes, "seed", 0.0)
    there, complete = whole, status == "complete"
    times = np.linspace(0, TIME, saved)
    decay = 2.3 * np.exp(-0.2 * times * (1 + momentum[..., None])) * (1 + 0.02 * seed[..., None]) + 0.05
    decay = np.where(there[..., None], decay, np.nan)
    decay[ends == "diverged", saved // 2 :] = np.nan
    steps = int(TIME / lr.min())
    counted = np.arange(steps) < np.round(TIME / lr)[..., None]
    root = grid.assign(
        status=(names, status),
        failure=(names, failure),
        member_title=(names, np.full(shape, "member", dtype=object)),
        member=(names, _members(axes)),
        whole=(names, whole),
        parameters=(names, np.where(there, 2410.0, np.nan)),
        wall_seconds=(names, np.where(there, 4.0 + lr, np.nan)),
    )
    run = grid.assign(
        full_loss=((*names, "saved_step"), decay),
        lr_of_step=((*names, "step"), np.where(counted & there[..., None], lr[..., None], np.nan)),
    ).assign_coords(saved_time=("saved_step", times))
    run["status"] = (names, ends)
    sharp = np.where(there, 4 * lr / (1 + momentum), np.nan)
    curvature = grid.assign(
        normalised_sharpness=(
            (*names, "curvature_step"),
            np.stack([0.5 * sharp, sharp], axis=-1),
        ),
        stability_limit=((), 2.0),
        series_limit=((), 0.6),
    )
    groups = {"/": root, "/discrete": run, "/discrete/curvature": curvature}
    for name, (title, order) in flows.items():
        c = (constant or {}).get(name, 0.3)
        end = np.where(complete, c * (1 + momentum) ** 2 * lr**order, np.nan)
        along = end[..., None] * (times / TIME)
        comparison = grid.assign(
            error=((*names, "saved_step"), along),
            relative_error=((*names, "saved_step"), along / 5),
            loss_gap=((*names, "saved_step"), -along / 7),
            solver_error=((*names, "saved_step"), np.full_like(along, 1e-9)),
        ).assign_coords(saved_time=("saved_step", times))
        groups[f"/comparison/{name}"] = comparison.assign_attrs(title=title)
        groups[f"/flows/{name}"] = xr.Dataset(attrs={"title": title, "expected_order": order})
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {
        "name": "sweep",
        "title": "A < B & sweep",
        "case_file": "sweep.toml",
        "case_text": "name = 'sweep'",
    }
    return tree


def _along(axes: Mapping[str, list], name: str, otherwise: float) -> np.ndarray:
    shape = tuple(len(values) for values in axes.values())
    if name not in axes:
        return np.full(shape, otherwise)
    at = list(axes).index(name)
    line = np.array(axes[name], dtype=float).reshape([-1 if k == at else 1 for k in range(len(shape))])
    return np.broadcast_to(line, shape).copy()


def _members(axes: Mapping[str, list]) -> np.ndarray:
    shape = tuple(len(values) for values in axes.values())
    found = np.empty(shape, dtype=object)
    for at in np.ndindex(shape):
        found[at] = ",".join(
            f"{name}={_text(values[k])}" for (name, values), k in zip(axes.items(), at, strict=True)
        )
    return found


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
