"""Spectra of the Hessian, or of a Gauss–Newton matrix, along a recorded run."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.style import COLOURS, WIDTH, colour, plain, styled
from nm_ode.results import long_name

_MATRICES = ("hessian", "gauss_newton")
_MOMENTS = 3
_BINS = 60


def eigenvalues_plot(tree: xr.DataTree) -> Figure:
    """The largest eigenvalues at each step at which they were measured."""
    run = tree["discrete"].dataset
    found = _with(run, "eigenvalue")
    with styled():
        figure = Figure(figsize=(WIDTH, 3.2 * len(found)), layout="constrained")
        panels = figure.subplots(len(found), 1, squeeze=False).reshape(-1)
        for axes, name in zip(panels, found, strict=True):
            values = run[f"{name}_eigenvalue"]
            axes.plot(run[f"{name}_step"], values.values, color=COLOURS[0], lw=1.2, marker="o", ms=2.5)
            axes.set_title(plain(long_name(values)))
            axes.set_ylabel("eigenvalue λ")
            axes.set_xlabel("step")
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


def _with(run: xr.Dataset, what: str) -> list[str]:
    return [name for name in _MATRICES if f"{name}_{what}" in run and run[f"{name}_{what}"].size]


EIGENVALUES = Plot(
    "The largest eigenvalues, on the probe batch.",
    eigenvalues_plot,
    lambda tree: bool(_with(tree["discrete"].dataset, "eigenvalue")),
    "spectra",
)
DENSITIES = Plot(
    "Stochastic Lanczos quadrature: the share of all eigenvalues in each bin, mean over the random vectors.",
    densities_plot,
    lambda tree: bool(_with(tree["discrete"].dataset, "node")),
    "spectra",
)
