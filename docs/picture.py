"""The README's pictures, from the stores that `make demo` and `nm-ode run digits_bn_sgd orders_adam` wrote."""

from __future__ import annotations

from pathlib import Path

from nm_ode import open_store, open_study
from nm_ode.reporting import PLOTS
from nm_ode.reporting.style import svg

RESULTS = Path("results")

for tree, plot, picture in (
    (open_store(RESULTS / "digits_mlp/run.zarr"), "error", "digits_mlp"),
    (open_study(RESULTS / "orders_adam/study.zarr"), "orders", "orders_adam"),
    (open_store(RESULTS / "digits_bn_sgd/run.zarr"), "charges_by_kind", "digits_bn_charges"),
):
    Path(f"docs/{picture}.svg").write_text(svg(PLOTS[plot].figure(tree)))
