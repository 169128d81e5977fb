"""What a case observes beside charges and stability, along the run and along its flows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from nm_ode.observers.track import time_of
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.plots.given import Grid, Panels, figure_of
from nm_ode.reporting.plots.recorded import BOOKKEEPING, draw_error, draw_series, numbers_of, small_panels
from nm_ode.reporting.style import DISCRETE, colour, dash, plain, styled, time_label
from nm_ode.results import SolveInfo, long_name, solve_info

_ALWAYS = {
    *("loss", "lr", "grad_norm", "update_norm", "theta", "full_loss", "solver_error"),
    *("test_loss", "test_accuracy", "summed_steps"),
}
"""What every run or flow has, or what other plots show."""


def observed_plot(tree: xr.DataTree, given: Panels = None) -> Grid:
    """A small panel for each number that was asked for, over flow time: the run, and the flows that have it."""
    run, flows = tree["discrete"].dataset, list(_flows(tree))
    names, datasets = observed(tree), [run, *(flow for flow, _ in flows)]
    with styled():
        known = [next(one[name] for one in datasets if name in one) for name in names]
        numbers = [(name, long_name(one)) for name, one in zip(names, known, strict=True)]
        panels = small_panels(numbers, given, of="observed_numbers")
        for axes, name in zip(panels, names, strict=True):
            if name in run:
                times = run[time_of(str(run[name].dims[0]))]
                draw_series(axes, run[name], DISCRETE, at=times.values, label="discrete run")
                if f"{name}_error" in run:
                    draw_error(axes, times.values, run[name].values, run[f"{name}_error"].values)
            for i, (flow, info) in enumerate(flows):
                if name not in flow:
                    continue
                at, values = flow["time"].values, flow[name].values
                axes.plot(at, values, color=colour(i), ls=dash(i), lw=1.2, label=plain(info.title))
                if f"{name}_error" in flow:
                    draw_error(axes, at, values, flow[f"{name}_error"].values, colour(i))
        lines = {
            label: line
            for axes in panels
            for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if given is None:
            figure = figure_of(panels)
            figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=3, fontsize=8)
            figure.supxlabel(time_label(tree), fontsize=10)
            return panels
        for axes in panels:
            axes.set_xlabel(time_label(tree), fontsize=8.5)
        panels[-1].legend(lines.values(), lines.keys(), fontsize=7)
        return panels


def observed(tree: xr.DataTree) -> list[str]:
    """Names of numbers that were asked for, of the run first."""
    found = [name for name in numbers_of(tree["discrete"].dataset) if name not in _ALWAYS]
    for flow, _ in _flows(tree):
        found += [
            str(name)
            for name, one in flow.data_vars.items()
            if one.dims == ("time",)
            and name not in _ALWAYS
            and not str(name).endswith(("_error", *BOOKKEEPING))
        ]
    return [name for name in dict.fromkeys(found) if _has_numbers(tree, name)]


def _has_numbers(tree: xr.DataTree, name: str) -> bool:
    datasets = [tree["discrete"].dataset, *(flow for flow, _ in _flows(tree))]
    return any(name in one and bool(np.isfinite(one[name].values).any()) for one in datasets)


def _flows(tree: xr.DataTree) -> Iterator[tuple[xr.Dataset, SolveInfo]]:
    for node in tree["flows"].children.values() if "flows" in tree.children else ():
        dataset = node.to_dataset()
        yield dataset, solve_info(dataset)


OBSERVED = Plot(
    "What the case observes; bands: one standard error.",
    lambda tree: figure_of(observed_plot(tree)),
    lambda tree: "discrete" in tree.children and bool(observed(tree)),
    "observed",
)
