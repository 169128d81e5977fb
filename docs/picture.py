"""The README's picture: the error plot of cases/digits_mlp.toml, from the store that `make demo` wrote."""

from __future__ import annotations

from pathlib import Path

from nm_ode.comparison import summary
from nm_ode.reporting.plots import error_plot
from nm_ode.studies import open_store

tree = open_store(Path("results/digits_mlp/run.zarr"))
Path("docs/digits_mlp.svg").write_text(error_plot(tree, summary(tree)))
