"""The README's pictures, from the stores that `make demo` and `nm-ode run digits_bn_sgd orders_adam` wrote."""

from __future__ import annotations

from pathlib import Path

from nm_ode.comparison import summary, symmetry_summary
from nm_ode.reporting.charge_plots import kind_panels
from nm_ode.reporting.order_plots import order_plot
from nm_ode.reporting.plots import error_plot
from nm_ode.studies import open_store

flows = open_store(Path("results/digits_mlp/run.zarr"))
Path("docs/digits_mlp.svg").write_text(error_plot(flows, summary(flows)))

orders = open_store(Path("results/orders_adam/run.zarr"))
Path("docs/orders_adam.svg").write_text(order_plot(orders["convergence"].dataset))

charges = open_store(Path("results/digits_bn_sgd/run.zarr"))
panels = kind_panels(charges, symmetry_summary(charges))
assert panels is not None
Path("docs/digits_bn_charges.svg").write_text(panels)
