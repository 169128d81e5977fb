"""Phase portraits of charges: (Q, Q̇), and the oscillator's regime that the second-order law gives them."""

from __future__ import annotations

import math
import textwrap

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nm_ode.arguments import as_count
from nm_ode.charges import LawError, Regime, regimes
from nm_ode.comparison import law_infos
from nm_ode.reporting.plots.base import Plot
from nm_ode.reporting.plots.followed import Followed, followed
from nm_ode.reporting.plots.given import Given, alone, figure_of, flat_panels, study_axes
from nm_ode.reporting.plots.paper import LAW_STYLE, charge_label, law_legend, merit
from nm_ode.reporting.style import cut, panel, plain, room, styled
from nm_ode.symmetries import KINDS, Symmetry

Array = NDArray[np.float64]

_POINTS = 200
_OF_A_PERIOD = 40  # points, as long as there are no more than _MOST
_MOST = 4000
_COARSE = 0.25  # of a period between two points, from which on that is said
_QUIET = "#9aa1b1"


def phase_portrait(
    data: Given,
    *,
    symmetry: str | Symmetry | None = None,
    law: str | None = None,
    channels: int = 6,
    ax: Axes | None = None,
) -> Axes:
    """Charges and their rates, (Q, Q̇): recorded, and as their law has them, with the law's regime in words.

    A rate is that between two points, at their mean charge; so is the law's. A point is a record, of a long run every
    n-th; where they lie too far apart to show a swing, that is said. Without a force (translations) the arrows are the
    law's field, and the dotted line is the direction along which what is overdamped comes to rest.

    Args:
        data: a study's tree or a run.
        symmetry: the one whose charges are drawn, or its name; one that moves if None, a translation if there is one.
        law: whose predictions are drawn; a differential equation's if None.
        channels: at most so many charges, those that move farthest.
        ax: to draw in; of a figure of its own if None.

    Returns:
        The Axes drawn in.

    Raises:
        ArgumentError: there is no such symmetry or law.
        LawError: no charges were recorded, none of them moves, or no law describes them.
        ResultError: neither a tree nor a run.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 4, 10], "relu"), cross_entropy, digits(samples=64))
        >>> charges = nm_ode.Charges(nm_ode.symmetries_of(problem))
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1, momentum=0.9), steps=20, observe=[charges])
        >>> ax = nm_ode.plots.phase_portrait(run, symmetry="rescale linear1 → linear2")
        >>> len(ax.lines) > 0
        True
    """
    channels = as_count(channels, "channels", least=1)
    tree = alone(data)
    (run,) = followed(tree, law, "data")
    name = _chosen(run, symmetry.name if isinstance(symmetry, Symmetry) else symmetry)
    stretches = regimes(tree["discrete"].to_dataset(), name)
    times = _own_times(tree["discrete"].dataset, run, stretches)
    there = run.channels(name)
    shown = there[np.argsort(-run.motion[there], kind="stable")][:channels]
    with styled():
        ax = panel("", 4.0, given=ax)
        block = _block(times, stretches)
        colours = colormaps["viridis"](np.linspace(0.05, 0.85, len(shown)))
        for shade, channel in zip(colours, shown, strict=True):
            charge, rate = in_phase(times, run.recorded[:, channel], block)
            ax.plot(charge, rate, color=shade, lw=2.4, alpha=0.7)
            ax.plot(charge[:1], rate[:1], color=shade, marker="o", ms=5, lw=0)
            ax.plot(*in_phase(times, run.predicted[:, channel], block), **LAW_STYLE)
        kind = KINDS[run.symmetries[name]]
        if kind.form.degree == 1 and len(stretches) == 1:
            _field(ax, stretches[0])
        _title(ax, name, regime_words(stretches) + _coarse(times, stretches, block))
        ax.set_xlabel(charge_label(kind), fontsize=9)
        ax.set_ylabel(r"$\dot{Q}$  (per flow time)", fontsize=9)
        return ax


def in_phase(times: Array, charge: Array, block: int) -> tuple[Array, Array]:
    """Mean charge and rate between records that are `block` apart (the last fewer), of second order in that time."""
    at = np.unique([*range(0, len(times), block), len(times) - 1])
    values, span = charge[at], np.diff(times[at])
    moved = span > 0
    return (values[1:] + values[:-1])[moved] / 2, np.diff(values)[moved] / span[moved]


def regime_words(stretches: list[Regime]) -> str:
    """The regime and its numbers: of one stretch of steps all, of several how they begin and end."""
    first = stretches[0]
    if len(stretches) == 1:
        return f"{_numbers(first)}: {_answer(first)}"
    last = stretches[-1]
    names = list(dict.fromkeys(one.damping for one in stretches))
    how = f"{names[0]} throughout" if len(names) == 1 else ", then ".join(names)
    return f"{_numbers(first)} at first: {how}, ζ = {_short(first.damping_ratio)} to {_short(last.damping_ratio)}"


def _numbers(one: Regime) -> str:
    return f"η = {one.lr:g}, β = {one.momentum:g}, λ = {one.weight_decay:g}"


def _answer(one: Regime) -> str:
    slow, fast = one.rates
    if one.damping == "free":
        return f"nothing pulls Q back; its velocity decays at the rate {fast:.2g}"
    critical = one.critical_weight_decay
    beside = f"; critical at λ = {critical:.2g}" if math.isfinite(critical) else ""
    ratio = f"ζ = {_short(one.damping_ratio)}"
    if one.damping == "underdamped":
        return f"underdamped, {ratio}, period {one.period:.3g}, decay rate {slow:.2g}{beside}"
    if one.damping == "critically damped":
        return f"critically damped, {ratio}, decay rate {slow:.2g}"
    return f"overdamped, {ratio}, decay rates {slow:.2g} and {fast:.2g}{beside}"


def _short(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "∞"


def _title(ax: Axes, name: str, words: str) -> None:
    """The name, and below it the regime in as many lines as it takes."""
    lines = textwrap.wrap(words.replace(" = ", "\u00a0=\u00a0"), max(28, room(ax, 7.5)))
    ax.set_title(plain(cut(name, room(ax, 9.5))), fontsize=9.5, pad=6 + 9.5 * len(lines))
    ax.text(0, 1.02, "\n".join(lines), transform=ax.transAxes, fontsize=7.5, va="bottom")


def _chosen(run: Followed, symmetry: str | None) -> str:
    if symmetry is not None:
        if not run.moves(run.require(symmetry)):
            raise LawError(
                f"the charges of {symmetry} do not move but by rounding: there is no portrait of them"
            )
        return symmetry
    there = run.symmetries
    moving = [name for name in there if run.moves(name)]
    if not moving:
        raise LawError("no charge of the run moves but by rounding: there is no portrait of them")
    return max(moving, key=lambda name: (KINDS[there[name]].form.degree == 1, *merit(name, [run])))


def _own_times(dataset: xr.Dataset, run: Followed, stretches: list[Regime]) -> Array:
    """Flow times of the records by the steps that move these charges, which need not be those of the run's first group.

    Of a loop whose optimiser has several groups; each stretch's steps are equally long.
    """
    steps = dataset[str(dataset["charge"].dims[0])].values
    ends = [end for one in stretches for end in one.steps]
    times = np.interp(steps, ends, [time for one in stretches for time in one.times])
    return run.times if np.allclose(times, run.times, rtol=1e-9, atol=0) else times


def _block(times: Array, stretches: list[Regime]) -> int:
    """Records from one point to the next: few enough points, and many of a period."""
    most = -(-len(times) // _POINTS)
    period, step = min(one.period for one in stretches), _between(times)
    if not math.isfinite(period) or not step:
        return most
    return max(-(-len(times) // _MOST), min(most, int(period / step / _OF_A_PERIOD)), 1)


def _between(times: Array) -> float:
    """Flow time from one record to the next, on average."""
    return float(times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0


def _coarse(times: Array, stretches: list[Regime], block: int) -> str:
    """What is to be said where points lie too far apart for the fastest swing."""
    share = block * _between(times) / min(one.period for one in stretches)
    return (
        ""
        if share <= _COARSE
        else f"; points lie {share:.2g} of a period apart, so rates are not the swing's"
    )


def _field(ax: Axes, one: Regime) -> None:
    """The law's field, (Q, Q̇) → (Q̇, −(bQ̇ + κQ)/m), over what the axes show."""
    low, high = (np.array(limits) for limits in zip(ax.get_xlim(), ax.get_ylim(), strict=True))
    charge, rate = np.meshgrid(*(np.linspace(a, b, 24) for a, b in zip(low, high, strict=True)))
    along, across = rate, -(one.b * rate + one.kappa * charge) / one.m
    ax.streamplot(
        charge, rate, along, across, color=_QUIET, linewidth=0.5, arrowsize=0.7, density=0.7, zorder=0
    )
    if one.damping == "overdamped":
        slow, _ = one.rates
        ends = np.array([low[0], high[0]])
        ax.plot(ends, -slow * ends, color=_QUIET, lw=1.2, ls=(0, (1, 2)), zorder=1)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))


def _portraits(tree: xr.DataTree) -> Figure:
    """A panel for each kind of symmetry that moves."""
    chosen = _of_each_kind(tree)
    with styled():
        columns = min(len(chosen), 3)
        lines = -(-len(chosen) // columns)
        grid = flat_panels(None, len(chosen), columns, 3.3 * lines + 0.4, of="phase_portrait")
        for ax, name in zip(grid, chosen, strict=True):
            phase_portrait(tree, symmetry=name, ax=ax)
            ax.tick_params(labelsize=7.5)
        figure = figure_of(grid)
        handles, labels = law_legend()
        figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=8.5)
        return figure


def _of_each_kind(tree: xr.DataTree) -> list[str]:
    """A symmetry of each kind that moves, and whose charges the second-order law predicts."""
    groups = [group for group, info in law_infos(tree).items() if info.law == "second_order"]
    if not groups or study_axes(tree) is not None:
        return []
    (run,) = followed(tree, groups[-1])
    found: dict[str, str] = {}
    for name in sorted(run.symmetries, key=lambda one: merit(one, [run]), reverse=True):
        if run.moves(name) and run.symmetries[name] not in found:
            try:
                regimes(tree["discrete"].to_dataset(), name)
            except LawError:
                continue
            found[run.symmetries[name]] = name
    return [found[kind] for kind in dict.fromkeys([*KINDS, *found]) if kind in found]


PHASE = Plot(
    "Charge and rate of the channels that move farthest, of one symmetry of each kind; dots: where they start. In the "
    "title the regime of the second-order law's oscillator: ζ, its damping over the critical damping, is above 1 where "
    "a charge comes to rest without swinging. Arrows: the law's field where nothing drives the charge.",
    _portraits,
    lambda tree: bool(_of_each_kind(tree)),
    "symmetries",
)
