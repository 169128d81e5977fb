"""The README's pictures, from the stores that `make demo` and `nm-ode run digits_bn_sgd orders_adam` wrote."""

from __future__ import annotations

from pathlib import Path

from nm_ode.reporting import PLOTS
from nm_ode.reporting.style import svg
from nm_ode.results import open_store

for case, plot, picture in (
    ("digits_mlp", "error", "digits_mlp"),
    ("orders_adam", "orders", "orders_adam"),
    ("digits_bn_sgd", "charges_by_kind", "digits_bn_charges"),
):
    tree = open_store(Path(f"results/{case}/run.zarr"))
    Path(f"docs/{picture}.svg").write_text(svg(PLOTS[plot].figure(tree)))
