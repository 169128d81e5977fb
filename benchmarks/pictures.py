"""The pictures in docs/, from the stores that `make picture` wrote, and the numbers that README says of the first.

python benchmarks/pictures.py [--save] [--results FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure
from measuring import report

from nm_ode import open_store, open_study, plots, solve_info
from nm_ode.reporting import PLOTS
from nm_ode.reporting.style import styled, svg

DOCS = Path(__file__).resolve().parents[1] / "docs"
STORES = {
    "digits_mlp": ("digits_mlp/run.zarr", open_store, "error"),
    "orders_adam": ("orders_adam/study.zarr", open_study, "orders"),
    "digits_bn_charges": ("digits_bn_sgd/run.zarr", open_store, "charges_by_kind"),
}
README = "digits_mlp"


def narrow(plot: str, tree: xr.DataTree) -> Figure:
    """The plot, narrow enough for its letters to be read on a phone."""
    with styled():
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        getattr(plots, plot)(tree, ax=figure.subplots())
    return figure


def flows(tree: xr.DataTree) -> dict[str, dict[str, Any]]:
    """Of each flow at the run's end: its distance from the run, and the solver's own error."""
    found = {}
    for name, node in tree["comparison"].children.items():
        last = node.to_dataset().isel(saved_step=-1)
        found[name] = {
            "title": solve_info(tree[f"flows/{name}"].to_dataset()).title,
            "error": float(last.error),
            "relative_error": float(last.relative_error),
            "largest_error": float(node["error"].max()),
            "solver_error": float(last.solver_error),
            "largest_solver_error": float(node["solver_error"].max()),
        }
    return found


def main(arguments: list[str]) -> None:
    results = Path(arguments[arguments.index("--results") + 1] if "--results" in arguments else "results")
    found: dict[str, Any] = {}
    for picture, (store, opened, plot) in STORES.items():
        if not (results / store).exists():
            print(f"{results / store} is not there: docs/{picture}.svg stays", file=sys.stderr)
            continue
        tree = opened(results / store)
        figure = PLOTS[plot].figure(tree)
        if picture == README:
            figure = narrow(plot, tree)
            found[picture] = {"flows": flows(tree)}
        (DOCS / f"{picture}.svg").write_text(svg(figure))
    report("pictures", "flows with the run at its end, as `nm-ode run digits_mlp` stored them", found)


if __name__ == "__main__":
    main(sys.argv[1:])
