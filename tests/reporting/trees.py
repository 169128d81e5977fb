"""Trees of small studies, built from the doors of the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

import nm_ode
from nm_ode.comparison import compare, convergence, symmetry_rows
from nm_ode.data import digits
from nm_ode.models import mlp
from nm_ode.results import LadderInfo, LawInfo, StudyInfo, SymmetriesInfo, annotate, encode, solve_info, write
from nm_ode.symmetries import Symmetries

Flows = Callable[[nm_ode.Problem, Any, xr.Dataset], Sequence[nm_ode.Flow]]


def small_problem(activation: str = "tanh", **options: Any) -> nm_ode.Problem:
    """40 digits, 64-4-10."""
    data = digits(40)
    model = mlp([64, 4, 10], activation, seed=1, **options)
    return nm_ode.Problem(model, nn.functional.cross_entropy, (data.x, data.y))


def info(**changes: Any) -> StudyInfo:
    """What the root of a tree says."""
    told: dict[str, Any] = {
        "title": "A < B & C",
        "case": {},
        "case_file": "tiny.toml",
        "case_text": "name = 'tiny'",
        "status": "complete",
        "versions": {"torch": torch.__version__},
        "git_commit": "abc",
        "device": "cpu",
        "dtype": "float64",
        "seed": 1,
        "started": "2026-01-01T00:00:00",
        "ended": "2026-01-01T00:00:01",
        "parameters": 310,
        "samples": 40,
    }
    return StudyInfo(**(told | changes))


CONSTANTS = ("series_limit", "stability_limit", "growth_momentum", "growth_nesterov")


def study_tree(
    run: xr.Dataset,
    solutions: Sequence[xr.Dataset] = (),
    predictions: dict[str, xr.Dataset] | None = None,
    symmetries: Symmetries | None = None,
    found_orders: xr.Dataset | None = None,
    **changes: Any,
) -> xr.DataTree:
    """The tree of docs/design.md."""
    sharpness = [name for name, values in run.variables.items() if "curvature_step" in values.dims]
    constants = [name for name in CONSTANTS if name in run]
    groups = {"/discrete": run.drop_vars([*sharpness, *constants])}
    if sharpness:
        groups["/discrete/curvature"] = run[[*sharpness, *constants]].drop_attrs(deep=False)
    for solution in solutions:
        name = solve_info(solution).flow
        groups |= {f"/flows/{name}": solution, f"/comparison/{name}": compare(run, solution)}
    for name, predicted in (predictions or {}).items():
        groups |= {f"/laws/{name}": predicted, f"/comparison/{name}": compare(run, predicted)}
    if symmetries is not None:
        groups["/symmetries"] = symmetries_dataset(symmetries)
    if found_orders is not None:
        groups["/convergence"] = found_orders
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = encode(info(**changes))
    return tree


def symmetries_dataset(found: Symmetries) -> xr.Dataset:
    """`/symmetries`."""
    names = (
        "kind",
        "n_charges",
        "within",
        "epsilon",
        "gradient_residual",
        "epsilon_share",
        "unexplained_residual",
    )
    rows = symmetry_rows(found)
    columns = {}
    for name in (*names, "hessian_residual"):
        values = np.array([getattr(row, name) for row in rows])
        columns[name] = ("symmetry", values.astype(object) if values.dtype.kind == "U" else values)
    made = xr.Dataset(columns, coords={"symmetry": np.array([row.name for row in rows], dtype=object)})
    return annotate(write(made, SymmetriesInfo(found.n_charges())))


def ladder_point(
    lr: float, run: xr.Dataset, solutions: Sequence[xr.Dataset], **measured: float
) -> xr.Dataset:
    """One learning rate of a ladder."""
    ends = [compare(run, solution).isel(saved_step=-1) for solution in solutions]
    about = [solve_info(solution) for solution in solutions]

    def texts(values: list[str]) -> tuple[str, np.ndarray]:
        return "flow", np.array(values, dtype=object)

    names = ("error", "relative_error", "solver_error")
    return xr.Dataset(
        {
            **{name: ("flow", np.array([float(end[name]) for end in ends])) for name in names},
            "layer_error": (("flow", "layer"), np.stack([end["layer_error"].values for end in ends])),
            "start_share": ("flow", np.full(len(ends), np.nan)),
            "expected_order": ("flow", np.array([one.expected_order for one in about])),
            "beside": texts([one.beside or "" for one in about]),
            "rounding": ((), 1e-15),
            "largest_normalised_sharpness": ((), measured.get("sharpness", 0.1)),
            "crossing_share": ((), measured.get("crossings", np.nan)),
        },
        coords={
            "lr": lr,
            "flow": np.array([one.flow for one in about], dtype=object),
            "flow_title": texts([one.title for one in about]),
            "layer": run["layer"].values,
        },
    )


def ladder(
    problem: nm_ode.Problem, lrs: Sequence[float], time: float, kinks: tuple[str, ...] = ()
) -> xr.Dataset:
    """Orders of gradient flow and of the second modified flow."""
    points = []
    for lr in lrs:
        optimizer = nm_ode.SGD(lr=lr)
        run = nm_ode.train(problem, optimizer, round(time / lr), save_every=round(time / lr))
        flows = [nm_ode.GradientFlow(problem), nm_ode.modified_flow(problem, optimizer, 2)]
        points.append(
            ladder_point(lr, run, [nm_ode.solve(flow, run, rtol=1e-9) for flow in flows], crossings=0.01)
        )
    return convergence(points, LadderInfo(stateful=False, warm_start=False, fixed_step=False, kinks=kinks))


def predicted(
    run: xr.Dataset, law: str, title: str, error: float, *, with_residual: bool = False
) -> xr.Dataset:
    """A prediction that misses the recorded charges by this share of their motion."""
    charges = run["charge"].values
    missed = charges + error * (charges - charges[:1])
    info = LawInfo(law=law, title=title, with_residual=with_residual)
    return annotate(write(run["charge"].copy(data=missed).to_dataset(name="charge"), info))
