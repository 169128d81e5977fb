"""Loss with the loss and the accuracy over held-out samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nm_ode.observers.track import time_of
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.plots.given import Given, alone
from nm_ode.reporting.plots.recorded import draw_series, spans_decades
from nm_ode.reporting.style import COLOURS, DASHES, DISCRETE, colour, panel, plain, styled, time_label
from nm_ode.results import ResultError, run_info, solve_info

LOSS, ACCURACY = "test_loss", "test_accuracy"
"""What `HeldOut` records."""

_TEST, _RIGHT = COLOURS[1], COLOURS[2]


def accuracy(data: Given, *, ax: Axes | None = None) -> Axes:
    """Loss of the run and over held-out samples, and on an axis at the right the share of these classified rightly.

    Over the run's steps; over flow time where flows have such numbers, too.

    Args:
        data: a study's tree, or a run alone, with what `HeldOut` observed.
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ResultError: no number over held-out samples was recorded.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 4, 10], "relu"), cross_entropy, digits(samples=64))
        >>> held_out = nm_ode.HeldOut(digits(samples=256), every=5)
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.5), steps=10, observe=[held_out])
        >>> nm_ode.plots.accuracy(run).get_ylabel()
        'loss'
    """
    return accuracy_plot(alone(data), ax)


def accuracy_plot(tree: xr.DataTree, axes: Axes | None = None) -> Axes:
    """As `accuracy`, of a tree."""
    if not has_held_out(tree):
        raise ResultError(
            "no loss or accuracy over held-out samples was recorded: observe=[nm_ode.HeldOut(data)]"
        )
    run, flows = tree["discrete"].dataset, list(_flows(tree))
    with styled():
        axes = panel("Loss and accuracy over held-out samples", given=axes)
        _losses(axes, run, flows)
        drawn = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]
        if drawn and spans_decades(np.concatenate(drawn)):
            axes.set_yscale("log")
        axes.set_xlabel(time_label(tree) if flows else "step")
        axes.set_ylabel("loss")
        handles, labels = axes.get_legend_handles_labels()
        if any(ACCURACY in one for one in (run, *(flow for _, flow in flows))):
            right = axes.twinx()
            _accuracies(right, run, flows)
            for line, label in zip(*right.get_legend_handles_labels(), strict=True):
                handles.append(line)
                labels.append(label)
        axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, fontsize=8.5)
        return axes


def has_held_out(tree: xr.DataTree) -> bool:
    """Did the run or a flow record loss or accuracy over held-out samples?"""
    if "discrete" not in tree.children:
        return False
    run = tree["discrete"].dataset
    return any(name in run and run[name].size for name in (LOSS, ACCURACY)) or any(True for _ in _flows(tree))


def _losses(axes: Axes, run: xr.Dataset, flows: list[tuple[str, xr.Dataset]]) -> None:
    whole = run_info(run).grid.is_full_batch
    if "loss" in run and run["loss"].size:
        label = "loss over all samples" if whole else "loss of each step's batch"
        draw_series(axes, run["loss"], COLOURS[0], at=_at(run, "step", flows), label=label, logarithmic=False)
    if not whole and "full_loss" in run and run.sizes.get("saved_step", 0) > 1:
        at = _at(run, "saved_step", flows)
        axes.plot(at, run["full_loss"], color=DISCRETE, lw=1.1, ls=DASHES[2], label="loss over all samples")
    if LOSS in run and run[LOSS].size:
        at = _at(run, str(run[LOSS].dims[0]), flows)
        draw_series(
            axes, run[LOSS], _TEST, at=at, label="loss over held-out samples", band=False, logarithmic=False
        )
    for i, (title, flow) in enumerate(flows):
        if LOSS in flow:
            axes.plot(
                flow["time"],
                flow[LOSS],
                color=colour(i + 3),
                ls=DASHES[1],
                lw=1.2,
                label=plain(f"{title}: loss over held-out samples"),
            )


def _accuracies(right: Axes, run: xr.Dataset, flows: list[tuple[str, xr.Dataset]]) -> None:
    """On an axis of its own, in the colour of its numbers."""
    right.grid(visible=False)
    right.spines["right"].set_visible(True)
    right.spines["right"].set_color(_RIGHT)
    right.tick_params(axis="y", colors=_RIGHT)
    right.set_ylabel("accuracy over held-out samples", color=_RIGHT)
    most = 0.0
    if ACCURACY in run and run[ACCURACY].size:
        at = _at(run, str(run[ACCURACY].dims[0]), flows)
        right.plot(at, run[ACCURACY], color=_RIGHT, lw=1.6, label="accuracy over held-out samples (right)")
        most = float(run[ACCURACY].max())
    for i, (title, flow) in enumerate(flows):
        if ACCURACY in flow:
            right.plot(
                flow["time"],
                flow[ACCURACY],
                color=colour(i + 3),
                lw=1.2,
                ls=DASHES[4],
                label=plain(f"{title}: accuracy (right)"),
            )
            most = max(most, float(flow[ACCURACY].max()))
    right.set_ylim(0.0, min(1.0, 1.1 * most) if most > 0 else 1.0)


def _at(run: xr.Dataset, dim: str, flows: list[tuple[str, xr.Dataset]]) -> np.ndarray:
    return np.asarray(run[time_of(dim) if flows else dim].values, dtype=float)


def _flows(tree: xr.DataTree) -> Iterator[tuple[str, xr.Dataset]]:
    for node in tree["flows"].children.values() if "flows" in tree.children else ():
        flow = node.to_dataset()
        if LOSS in flow or ACCURACY in flow:
            yield solve_info(flow).title, flow


_CAPTION = "Loss along the run, and loss and accuracy over samples that nobody trains on."
ACCURACY_OF_STUDY = Plot(_CAPTION, accuracy_plot, has_held_out)
ACCURACY_OF_RUN = Plot(_CAPTION, accuracy_plot, has_held_out, "run")
