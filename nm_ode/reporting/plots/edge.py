"""Past the edge of stability: what the central flow predicts, beside the run and its own time average."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nm_ode.comparison import edge, predicts_variance, summary
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.style import (
    COLOURS,
    DASHES,
    DISCRETE,
    colour,
    dash,
    logarithmic,
    panel,
    plain,
    styled,
    time_label,
)
from nm_ode.results import run_info, solve_info

_EDGE = 2.0  # of lr · λ for plain descent
_BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 3}


def critical_plot(tree: xr.DataTree, axes: Axes | None = None) -> Axes:
    """lr · λ_i of the directions that a central flow follows against the edge, and the run's own where measured."""
    with styled():
        axes = panel("Sharpness against the edge of stability", 3.8, given=axes)
        curvature = _curvature(tree)
        limit = _limit(curvature)
        for i, (title, flow) in enumerate(central_flows(tree)):
            scale = limit / _edge_of(flow, tree)
            if "largest_eigenvalue" in flow:
                label = plain(title) + r": largest"
                axes.plot(
                    flow["time"],
                    flow["largest_eigenvalue"] * scale,
                    color=DISCRETE,
                    lw=1,
                    alpha=0.6,
                    ls=dash(i),
                    label=label,
                )
            values = flow["critical_eigenvalue"].values * scale
            for j in np.flatnonzero(np.isfinite(values).any(axis=0)).tolist():
                label = plain(title) + rf": $\lambda_{{{j + 1}}}$"
                axes.plot(flow["time"], values[:, j], color=colour(j), ls=dash(i), lw=1.4, label=label)
        if curvature is not None:
            axes.plot(
                curvature["curvature_time"],
                curvature["normalised_sharpness"],
                color=DISCRETE,
                lw=0,
                marker="o",
                ms=3.2,
                label=r"the run's own $\lambda_{\max}$, measured",
            )
        axes.axhline(limit, color=DISCRETE, lw=1, ls=(0, (1, 2)), label=f"edge of stability, {limit:.3g}")
        _finish(axes, tree, r"lr · $\lambda$  (dimensionless)")
        return axes


def variance_plot(tree: xr.DataTree, axes: Axes | None = None) -> Axes:
    """tr Σ as each central flow predicts it, and the run's variance about its own average."""
    with styled():
        axes = panel("Size of the oscillation", 3.8, given=axes)
        compared = _longest(tree, "measured_variance")
        if compared is not None:
            axes.plot(
                compared["saved_time"],
                _positive(compared["measured_variance"]),
                color=DISCRETE,
                lw=0.9,
                alpha=0.75,
                label="measured about the run's own average",
            )
        for i, (title, flow) in enumerate(central_flows(tree)):
            axes.plot(
                flow["time"],
                _positive(flow["oscillation_trace"]),
                color=COLOURS[1],
                ls=dash(i),
                label=plain(f"predicted by {title}"),
            )
        logarithmic(axes, "y")
        _above_rounding(axes, tree)
        _finish(axes, tree, r"tr $\Sigma$  (units of θ²)")
        return axes


def average_loss_plot(tree: xr.DataTree, axes: Axes | None = None) -> Axes:
    """The run's loss and its time average, and each central flow's loss with and without the oscillation's part."""
    with styled():
        axes = panel("Loss and its time average", 3.8, given=axes)
        run = tree["discrete"].dataset
        if run_info(run).grid.is_full_batch:
            axes.plot(run["time"], run["loss"], color=DISCRETE, lw=0.6, alpha=0.35, label="run, every step")
        compared = _longest(tree, "averaged_loss")
        if compared is not None:
            axes.plot(
                compared["saved_time"],
                compared["averaged_loss"],
                color=DISCRETE,
                lw=1.6,
                label="run, averaged",
            )
        for i, (title, flow) in enumerate(central_flows(tree)):
            for name, style, what in (
                ("predicted_loss", {"ls": DASHES[1]}, "predicted average"),
                ("loss", {"ls": DASHES[4], "lw": 1.2}, "loss on its path"),
            ):
                if name in flow:
                    axes.plot(
                        flow["time"],
                        flow[name],
                        color=COLOURS[1 + i % 5],
                        label=plain(f"{title}: {what}"),
                        **style,
                    )
        drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
        drawn = drawn[np.isfinite(drawn)]
        if drawn.size and drawn.min() > 0 and drawn.max() > 20 * drawn.min():
            axes.set_yscale("log")
        _finish(axes, tree, "loss over all samples")
        return axes


def distance_plot(tree: xr.DataTree, axes: Axes | None = None) -> Axes:
    """How far each flow is from the run's own time average, over the run's motion, and how far the run itself is."""
    with styled():
        axes = panel("Distance to the run's own time average", 4.2, given=axes)
        for i, (title, compared) in enumerate(_compared(tree, "relative_error_to_average")):
            axes.plot(
                compared["saved_time"],
                _positive(compared["relative_error_to_average"]),
                color=colour(i),
                ls=dash(i),
                label=plain(title),
            )
        own = _longest(tree, "run_to_average")
        if own is not None:
            axes.plot(
                own["saved_time"],
                _positive(own["run_to_average"] / own["motion"].where(own["motion"] > 0)),
                color=DISCRETE,
                lw=0.9,
                alpha=0.75,
                label="the run itself",
            )
        logarithmic(axes, "y")
        _finish(axes, tree, r"$\|\theta(t_k) - \bar\theta_k\|$ over the motion")
        return axes


def central_flows(tree: xr.DataTree) -> list[tuple[str, xr.Dataset]]:
    """Title and solution of each flow that predicts an oscillation, and came to a sample at all."""
    if "flows" not in tree.children:
        return []
    found = [node.to_dataset() for node in tree["flows"].children.values()]
    return [
        (solve_info(flow).title, flow) for flow in found if predicts_variance(flow) and flow.sizes["time"]
    ]


def _compared(tree: xr.DataTree, name: str) -> Iterator[tuple[str, xr.Dataset]]:
    """Title and comparison of each flow that was compared with the run's average, in the order of the table."""
    for row in summary(tree):
        if "comparison" in tree.children and row.name in tree["comparison"].children:
            compared = tree[f"comparison/{row.name}"].to_dataset()
            if name in compared:
                yield row.title, compared


def _longest(tree: xr.DataTree, name: str) -> xr.Dataset | None:
    """Of what is the run's own, and the same in all comparisons: that which goes farthest."""
    found = [compared for _, compared in _compared(tree, name)]
    return max(found, key=lambda one: one.sizes["saved_step"]) if found else None


def _curvature(tree: xr.DataTree) -> xr.Dataset | None:
    found = tree["discrete"].children.get("curvature")
    return None if found is None or "normalised_sharpness" not in found.dataset else found.to_dataset()


def _limit(curvature: xr.Dataset | None) -> float:
    """Of lr · λ, in the optimiser's own terms."""
    if curvature is None or "stability_limit" not in curvature:
        return _EDGE
    return float(curvature["stability_limit"])


def _edge_of(flow: xr.Dataset, tree: xr.DataTree) -> float:
    """The eigenvalue at which the flow's directions are at the edge."""
    if "critical_edge" in flow:
        return float(flow["critical_edge"])
    lr = solve_info(flow).lr
    return _EDGE / (float(run_info(tree["discrete"].to_dataset()).grid.lr[0]) if lr is None else lr)


def _positive(values: xr.DataArray) -> xr.DataArray:
    return values.where(values > 0)


def _above_rounding(axes: Axes, tree: xr.DataTree) -> None:
    """Where the axis ends below: a hundred-thousandth of the largest prediction, not the rounding before the edge."""
    largest = max((float(flow["oscillation_trace"].max()) for _, flow in central_flows(tree)), default=0.0)
    if largest > 0:
        axes.set_ylim(bottom=1e-5 * largest)


def _finish(axes: Axes, tree: xr.DataTree, label: str) -> None:
    seen = edge(tree)
    if seen is not None and seen.time is not None:
        axes.axvline(seen.time, color=DISCRETE, lw=0.8, alpha=0.5, ls=(0, (4, 3)))
        if seen.settled is not None:
            times = run_info(tree["discrete"].to_dataset()).grid.times
            axes.axvline(float(times[seen.settled]), color=DISCRETE, lw=0.8, alpha=0.5, ls=(0, (1, 2)))
    axes.set_xlabel(time_label(tree))
    axes.set_ylabel(label)
    axes.legend(**_BELOW)


def _has(name: str) -> Callable[[xr.DataTree], bool]:
    return lambda tree: any(name in flow for _, flow in central_flows(tree))


def _has_compared(name: str) -> Callable[[xr.DataTree], bool]:
    return lambda tree: bool(central_flows(tree)) and any(True for _ in _compared(tree, name))


CRITICAL = Plot(
    "Curvature in the directions that the central flow follows, times the learning rate: held at the edge from the "
    "dashed line on. From the dotted one on the run oscillates with half of the predicted mean variance or more. Dots: "
    "λ_max on the run's own path, which oscillates about the flow's.",
    critical_plot,
    _has("critical_eigenvalue"),
    "edge",
)
VARIANCE = Plot(
    "Variance of the oscillation about the slow path, as the flow predicts it and as it is about the run's own time "
    "average. The flow has it from the edge on; in the run it must first grow from rounding.",
    variance_plot,
    _has("oscillation_trace"),
    "edge",
)
AVERAGE_LOSS = Plot(
    "The loss that the flow predicts on average is that on its path and what the oscillation adds, tr Σ over the "
    "learning rate.",
    average_loss_plot,
    _has("predicted_loss"),
    "edge",
)
DISTANCE = Plot(
    "Distance between each flow and the run's own time average; the run itself is the oscillation away from that.",
    distance_plot,
    _has_compared("relative_error_to_average"),
    "edge",
)
