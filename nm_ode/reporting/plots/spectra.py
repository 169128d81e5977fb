"""Spectra of the Hessian, or of a Gauss–Newton matrix, along a recorded run."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.style import COLOURS, DISCRETE, WIDTH, colour, dash, plain, styled, time_label
from nm_ode.results import long_name, solve_info

_MATRICES = ("hessian", "gauss_newton")
_MOMENTS = 3
_BINS = 60


def eigenvalues_plot(tree: xr.DataTree) -> Figure:
    """The largest eigenvalues at each step at which they were measured; of a study along its flows too."""
    run, *flows = _datasets(tree)
    found = [name for name in _MATRICES if any(_has(one, name, "eigenvalue") for one in (run, *flows))]
    with styled():
        figure = Figure(figsize=(WIDTH, 3.2 * len(found)), layout="constrained")
        panels = figure.subplots(len(found), 1, squeeze=False).reshape(-1)
        for axes, name in zip(panels, found, strict=True):
            values = next(one for one in (run, *flows) if _has(one, name, "eigenvalue"))[f"{name}_eigenvalue"]
            if _has(run, name, "eigenvalue"):
                at = run[f"{name}_time" if flows else f"{name}_step"]
                of_run = run[f"{name}_eigenvalue"].values
                style = {"color": DISCRETE if flows else COLOURS[0], "lw": 0 if flows else 1.2}
                lines = axes.plot(at, of_run, marker="o", ms=2.5, **style)
                lines[0].set_label("discrete run")
            for i, flow in enumerate(flows):
                if _has(flow, name, "eigenvalue"):
                    of_flow = flow[f"{name}_eigenvalue"].values
                    lines = axes.plot(flow["time"], of_flow, color=colour(i), ls=dash(i), lw=1.2)
                    lines[0].set_label(plain(solve_info(flow).title))
            if flows:
                axes.legend()
            axes.set_title(plain(long_name(values)))
            axes.set_ylabel("eigenvalue λ")
            axes.set_xlabel(time_label(tree) if flows else "step")
        return figure


def densities_plot(tree: xr.DataTree) -> Figure:
    """How the eigenvalues are spread, at the first, a middle and the last measurement."""
    run = tree["discrete"].dataset
    found = _with(run, "node")
    with styled():
        figure = Figure(figsize=(WIDTH, 3.2 * len(found)), layout="constrained")
        panels = figure.subplots(len(found), 1, squeeze=False).reshape(-1)
        for axes, name in zip(panels, found, strict=True):
            steps = run[f"{name}_step"].values
            chosen = sorted(set(np.linspace(0, len(steps) - 1, _MOMENTS).round().astype(int).tolist()))
            nodes = run[f"{name}_node"].isel({f"{name}_step": chosen}).values
            weights = run[f"{name}_weight"].isel({f"{name}_step": chosen}).values
            finite = nodes[np.isfinite(nodes)]
            edges = np.linspace(finite.min(initial=0.0), finite.max(initial=1e-12), _BINS + 1)
            for i, place in enumerate(chosen):
                shares = _shares(nodes[i], weights[i], edges)
                axes.stairs(shares, edges, color=colour(i), label=f"step {steps[place]}")
            axes.set_yscale("log")
            axes.set_title(f"Spectrum ({plain(name.replace('_', '-'))})")
            axes.set_xlabel("eigenvalue λ")
            axes.set_ylabel("share of the eigenvalues")
            axes.legend()
        return figure


def _shares(nodes: np.ndarray, weights: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean over the random vectors of each bin's weight."""
    kept = np.isfinite(nodes)
    found, _ = np.histogram(nodes[kept], edges, weights=weights[kept])
    return np.asarray(found / len(nodes))


def _has(dataset: xr.Dataset, name: str, what: str) -> bool:
    return f"{name}_{what}" in dataset and bool(dataset[f"{name}_{what}"].size)


def _with(run: xr.Dataset, what: str) -> list[str]:
    return [name for name in _MATRICES if _has(run, name, what)]


def _datasets(tree: xr.DataTree) -> list[xr.Dataset]:
    """The run's, and those of the flows."""
    flows = tree["flows"].children.values() if "flows" in tree.children else ()
    return [tree["discrete"].to_dataset(), *(node.to_dataset() for node in flows)]


EIGENVALUES = Plot(
    "The largest eigenvalues, on the probe batch.",
    eigenvalues_plot,
    lambda tree: any(bool(_with(one, "eigenvalue")) for one in _datasets(tree)),
    "spectra",
)
DENSITIES = Plot(
    "Stochastic Lanczos quadrature: the share of all eigenvalues in each bin, mean over the random vectors.",
    densities_plot,
    lambda tree: bool(_with(tree["discrete"].dataset, "node")),
    "spectra",
)
