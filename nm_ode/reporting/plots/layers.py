"""How far each layer of a flow is from the run's."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, NullLocator

from nm_ode.comparison import Row
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.plots.flows import compared, positive
from nm_ode.reporting.style import colour, logarithmic, panel, plain, styled


def layer_plot(tree: xr.DataTree, axes: Axes | None = None) -> Axes:
    """Relative error of each layer at the last compared step."""
    layers = [str(name) for name in tree["discrete"].dataset["layer"].values]
    height = max(3.2, 0.5 * len(layers) + 1.4)
    with styled():
        axes = panel("Error of each layer at the last step", height, given=axes)
        rows, places = _by_layer(tree), np.arange(len(layers))[::-1]
        for i, row in enumerate(rows):
            last = tree[f"comparison/{row.name}"].dataset.isel(saved_step=-1)
            shift = 0.5 * (0.5 - (i + 0.5) / len(rows))
            axes.plot(
                positive(last["layer_relative_error"]),
                places + shift,
                marker="os^Dvp"[i % 6],
                ms=8,
                lw=0,
                color=colour(i),
                label=plain(row.title),
            )
        logarithmic(axes, "x")
        axes.set_yticks(places, [plain(str(layer)) for layer in layers])
        axes.set_ylim(-0.6, len(layers) - 0.4)
        axes.yaxis.set_minor_locator(NullLocator())
        low, high = axes.get_xlim()
        if low > 0 and high < 30 * low:  # a decade or two to stand on, so that ticks have labels
            axes.set_xlim(low / 5, high * 5)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(
            r"error over the layer's motion  $\|\theta(t_k) - \theta_k\| \,/\, \|\theta_k - \theta_0\|$"
            "  (dimensionless)"
        )
        axes.set_ylabel("layer")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22 * 3.6 / height), ncols=2)
        return axes


def _by_layer(tree: xr.DataTree) -> list[Row]:
    """Flows of which each layer was compared: of sketches there may be one of all layers alone."""
    return [row for row in compared(tree) if "layer_relative_error" in tree[f"comparison/{row.name}"].dataset]


LAYERS = Plot(
    "Each layer's distance, relative to how far the layer has moved.",
    layer_plot,
    lambda tree: bool(_by_layer(tree)),
)
