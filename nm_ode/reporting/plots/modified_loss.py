"""The modified loss that descent follows to second order, along the run and along each flow, beside the loss itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nm_ode.optimizers import SGD
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.plots.given import Given, alone
from nm_ode.reporting.plots.recorded import spans_decades
from nm_ode.reporting.style import (
    DISCRETE,
    WIDTH,
    colour,
    dash,
    logarithmic,
    panel,
    plain,
    styled,
    time_label,
)
from nm_ode.results import ResultError, RunInfo, run_info, solve_info

Array = NDArray[np.float64]

_RUN = "run"


@dataclass(frozen=True, eq=False)
class Along:
    """Both losses along one path.

    Attributes:
        name: _RUN, or the flow's.
        title: for a reader.
        times: flow times.
        loss: L, with weight decay L + (λ/2)‖θ‖², at these.
        modified: the modified loss there.
    """

    name: str
    title: str
    times: Array
    loss: Array
    modified: Array

    @property
    def added(self) -> Array:
        """What it has beyond the loss."""
        return self.modified - self.loss


def penalty(hyperparameters: Mapping[str, Any], lr: Any) -> Any:
    """What ‖∇L‖² is multiplied by in SGD's modified loss, of each learning rate.

    η/4 of plain descent (docs/theory.md §4.1; Kunin et al. 2021, §5). With momentum c·a·s²/2 of its slow manifold
    (§4.4), which is gradient flow of L + (c·a·s²/2)‖∇L‖², sped up by s = 1/(1−β): a = η(1−τ), c = (1+β)/2, with
    Nesterov (1−β+2β²)/2. A run has it beyond the transient of its velocity.
    """
    beta, tau = float(hyperparameters["momentum"]), float(hyperparameters["dampening"])
    if not beta:
        return lr / 4
    share = (1 - beta + 2 * beta**2) / 2 if hyperparameters["nesterov"] else (1 + beta) / 2
    return share * lr * (1 - tau) / (2 * (1 - beta) ** 2)


@np.errstate(over="ignore", invalid="ignore")  # of losses that diverge
def modified_losses(tree: xr.DataTree) -> tuple[list[Along], list[str]]:
    """Both losses along the run and its flows; and what is to be said of paths whose numbers do not give them.

    With weight decay λ, L is L + (λ/2)‖θ‖² throughout, so that ⟨θ, ∇L⟩ and ‖θ‖ are needed too, which `Statistics`
    records. Of a loss that sums over its samples, beside minibatches, a flow is that of the part s of it that a batch
    has on average: its modified loss over s is L + s·(η/4)‖∇L‖², with λ/s in the place of λ.

    Raises:
        ResultError: there is no modified loss of this optimiser, or of a gradient that is not the loss's.
    """
    run = tree["discrete"].dataset
    info = run_info(run)
    if info.optimizer != SGD.__name__:
        raise ResultError(
            f"a modified loss is known of SGD alone, and this run is one of {info.optimizer_text}"
        )
    if info.grid.batch_size == "unknown":
        raise ResultError(
            "no modified loss is known of a loop of one's own: neither the samples of its gradients are, nor whether "
            "its optimiser's numbers stayed as they were"
        )
    if info.foreign_gradient:
        raise ResultError(f"the modified loss is of ∇L, and {info.foreign_gradient}")
    found: list[Along] = []
    missing: list[str] = []
    for path in (_of_run(run, info), *_of_flows(tree, info)):
        if isinstance(path, Along):
            found.append(path)
        else:
            missing.append(path)
    return found, missing


def modified_loss(data: Given, *, ax: Axes | None = None) -> Axes:
    """L + (η/4)‖∇L‖² along the run and each flow, and L itself as a thin line, against flow time.

    With momentum it is that of its slow manifold, with weight decay that of L + (λ/2)‖θ‖² (`penalty`).

    Args:
        data: a study's tree, or a run alone.
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ResultError: as `modified_losses`, or the recorded numbers give it along no path.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.1)
        >>> run = nm_ode.train(problem, sgd, steps=10)
        >>> tree = nm_ode.plots.as_tree(run, nm_ode.solve(nm_ode.GradientFlow(problem), run))
        >>> ax = nm_ode.plots.modified_loss(tree)
        >>> ax.get_xlabel()
        'flow time t = lr · step  (lr = 0.1)'
    """
    return modified_loss_plot(alone(data), ax)


def modified_loss_plot(tree: xr.DataTree, axes: Axes | None = None) -> Axes:
    """As `modified_loss`, of a tree."""
    paths, missing = _drawable(tree)
    info = run_info(tree["discrete"].dataset)
    with styled():
        axes = panel("Loss and modified loss", 4.4, given=axes)
        _draw_losses(axes, tree, paths, info)
        axes.set_xlabel(time_label(tree))
        axes.set_ylabel(f"modified loss  {formula(info)}")
        _legend(axes, missing)
        return axes


def modified_loss_figure(tree: xr.DataTree) -> Figure:
    """The same, and below it what is added to the loss, which may be too little to be seen beside it."""
    paths, missing = _drawable(tree)
    info = run_info(tree["discrete"].dataset)
    with styled():
        figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        above.set_title("Loss and modified loss")
        _draw_losses(above, tree, paths, info)
        above.set_ylabel(formula(info))
        for path in paths:
            below.plot(path.times, np.where(path.added > 0, path.added, np.nan), **_style(tree, path))
        logarithmic(below, "y")
        below.set_ylabel(f"added:  {added(info)}")
        below.set_xlabel(time_label(tree))
        lines, labels = above.get_legend_handles_labels()
        figure.legend(
            lines,
            labels,
            loc="outside lower center",
            fontsize=8.5,
            title=plain("\n".join(missing)) or None,
            title_fontsize=8,
        )
        return figure


def formula(info: RunInfo) -> str:
    """Of the modified loss of a run, as mathematical text."""
    return f"{_of(info)} + {added(info)}"


def added(info: RunInfo) -> str:
    """Of what it adds to the loss."""
    given = info.hyperparameters
    step = "a" if given["momentum"] and given["dampening"] else r"\eta"
    factor = rf"\dfrac{{{step}}}{{4}}"
    if given["momentum"]:
        share = r"1-\beta+2\beta^2" if given["nesterov"] else r"1+\beta"
        factor = rf"\dfrac{{{step}\,({share})}}{{4\,(1-\beta)^2}}"
    return rf"${factor}\|\nabla {_of(info).strip('$')}\|^2$"


def _of(info: RunInfo) -> str:
    return r"$L_\lambda$" if info.hyperparameters["weight_decay"] else "$L$"


def _drawable(tree: xr.DataTree) -> tuple[list[Along], list[str]]:
    paths, missing = modified_losses(tree)
    if not paths:
        raise ResultError(f"no modified loss can be drawn: {'; '.join(missing)}")
    return paths, missing


def _style(tree: xr.DataTree, path: Along) -> dict[str, Any]:
    """Points of the run; a flow has the colour that it has in other plots."""
    if path.name == _RUN:
        every = max(1, len(path.times) // 60)
        return {"color": DISCRETE, "marker": "o", "ms": 3.2, "ls": "", "zorder": 5, "markevery": every}
    place = list(tree["flows"].children).index(path.name)
    return {"color": colour(place), "ls": dash(place)}


def _draw_losses(axes: Axes, tree: xr.DataTree, paths: list[Along], info: RunInfo) -> None:
    for path in paths:
        style = _style(tree, path)
        axes.plot(path.times, path.modified, label=plain(f"{path.title}: {_share(path)}"), **style)
        axes.plot(path.times, path.loss, color=style["color"], lw=0.8, alpha=0.8)
        axes.fill_between(
            path.times, path.loss, path.modified, color=style["color"], alpha=0.12, lw=0, zorder=1
        )
    axes.plot([], [], color=DISCRETE, lw=0.8, label=f"the loss {_of(info)} itself (thin, same colours)")
    if spans_decades(np.concatenate([values for path in paths for values in (path.loss, path.modified)])):
        axes.set_yscale("log")


def _legend(axes: Axes, missing: list[str]) -> None:
    # Below the axes: inside, there is no place without lines.
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        title=plain("\n".join(missing)) or None,
        title_fontsize=8,
        fontsize=8.5,
    )


def _share(path: Along) -> str:
    """How much is added, at most."""
    size = np.abs(path.loss)
    share = float(np.nanmax(path.added[size > 0] / size[size > 0], initial=0.0))
    return f"adds up to {share:.2g} of the loss"


def _of_run(run: xr.Dataset, info: RunInfo) -> Along | str:
    if not info.grid.is_full_batch:
        return "the run: its gradients are those of its batches, not of the whole loss"
    if "full_loss" not in run or "grad_norm" not in run:
        return "the run: losses over all samples, or gradient norms, were not recorded"
    # After the last step no gradient was taken.
    steps = np.intersect1d(run["saved_step"].values, run["step"].values)
    times, lr = (run[name].sel(step=steps).values.astype(float) for name in ("time", "lr"))
    loss, squares = (
        run["full_loss"].sel(saved_step=steps).values.astype(float),
        run["grad_norm"].sel(step=steps).values.astype(float) ** 2,
    )
    decay = float(info.hyperparameters["weight_decay"])
    if decay:
        if "theta_gradient" not in run:
            return f"the run: {_NEEDED}"
        along = str(run["theta_gradient"].dims[0])
        kept = np.isin(steps, run[along].values)
        times, lr, loss, squares, steps = (values[kept] for values in (times, lr, loss, squares, steps))
        product, size = (run[name].sel({along: steps}).values for name in ("theta_gradient", "theta_norm"))
        loss, squares = _decayed(decay, loss, squares, product, size)
    if not len(steps):
        return "the run: no step has both its loss over all samples and its gradient"
    return Along(_RUN, "discrete run", times, loss, loss + penalty(info.hyperparameters, lr) * squares)


_NEEDED = "with weight decay ⟨θ, ∇L⟩ and ‖θ‖ are needed, which Statistics records"


def _of_flows(tree: xr.DataTree, info: RunInfo) -> Iterator[Along | str]:
    ends = info.grid.times[1:]
    decay = float(info.hyperparameters["weight_decay"])
    for name, node in tree["flows"].children.items() if "flows" in tree.children else ():
        flow = node.to_dataset()
        about = solve_info(flow)
        if about.beside == "same_batch":
            yield f"{about.title}: its field is that of each step's batch, whose numbers were not recorded"
            continue
        if "loss" not in flow or "grad_norm" not in flow:
            yield f"{about.title}: its losses or gradient norms were not recorded"
            continue
        times, share = flow["time"].values.astype(float), about.batch_share or 1.0
        loss, squares = flow["loss"].values.astype(float), flow["grad_norm"].values.astype(float) ** 2
        if decay:
            if "theta_gradient" not in flow:
                yield f"{about.title}: {_NEEDED}"
                continue
            product, size = flow["theta_gradient"].values, flow["theta_norm"].values
            loss, squares = _decayed(decay / share, loss, squares, product, size)
        # The learning rate of the step that the run was taking at that time.
        steps = np.searchsorted(ends, times, side="right").clip(max=info.grid.steps - 1)
        factor = penalty(info.hyperparameters, info.grid.lr[steps]) * share
        yield Along(str(name), about.title, times, loss, loss + factor * squares)


def _decayed(decay: float, loss: Array, squares: Array, product: Array, size: Array) -> tuple[Array, Array]:
    """L + (λ/2)‖θ‖² and ‖∇L + λθ‖², from L, ‖∇L‖², ⟨θ, ∇L⟩ and ‖θ‖."""
    product, size = product.astype(float), size.astype(float)
    return loss + decay / 2 * size**2, squares + 2 * decay * product + (decay * size) ** 2


def _applies(tree: xr.DataTree) -> bool:
    try:
        return bool(modified_losses(tree)[0])
    except ResultError:
        return False


MODIFIED_LOSS = Plot(
    "The modified loss, of which a step of descent is gradient flow to second order, along the run and the flows; thin "
    "lines: the loss itself.",
    modified_loss_figure,
    _applies,
)
