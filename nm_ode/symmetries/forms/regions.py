"""Regions of theta with one number for each channel: where sums over channels come from, and where they go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from nm_ode.parameters import Layout, Vector
from nm_ode.symmetries.forms.base import Placed
from nm_ode.symmetries.symmetry import Part, View


@dataclass(frozen=True, eq=False)
class Target:
    """Where the sums of some channels go.

    Attributes:
        together: the channels and the charges, where each are numbers that follow one another.
    """

    channels: Tensor
    charges: Tensor
    weight: float
    together: tuple[slice, slice] | None = None

    def send(self, sums: Tensor, result: Tensor, factor: float) -> None:
        """Add these channels' sums, times a factor."""
        if self.together is not None:
            channels, charges = self.together
            result[charges].add_(sums[channels], alpha=factor)
        else:
            mine = sums[self.channels].to(result.dtype)
            result.index_add_(0, self.charges, mine, alpha=factor)


@dataclass(frozen=True, eq=False)
class Reduction:
    """Sums over all axes but these, one for each channel."""

    axes: tuple[int, ...]
    targets: tuple[Target, ...]

    def send(self, sums: Tensor, result: Tensor, power: int = 1) -> None:
        """Add the channels' sums, times weight to a power, to their charges."""
        for target in self.targets:
            target.send(sums, result, target.weight**power)


@dataclass(frozen=True, eq=False)
class Region:
    """Part of theta that is read at once, whatever the number of symmetries that it belongs to."""

    view: View
    start: int
    reductions: tuple[Reduction, ...]

    def of(self, vector: Vector) -> Tensor:
        """The region of a vector of theta's size, where it lies."""
        return self.view.of(vector, self.start)

    def factor(self, reduction: Reduction, coefficients: Tensor) -> Tensor:
        """Σ weight · r at each channel, broadcast over the view."""
        shape = self.view.shape
        factor = coefficients.new_zeros(prod(shape[axis] for axis in reduction.axes))
        for target in reduction.targets:
            factor[target.channels] += target.weight * coefficients[target.charges]
        return factor.reshape([n if dim in reduction.axes else 1 for dim, n in enumerate(shape)])


def regions_of(layout: Layout, placed: Sequence[Placed], device: torch.device | str) -> tuple[Region, ...]:
    """The symmetries' parts, those with the same view together."""
    grouped: dict[View, dict[tuple[int, ...], list[Target]]] = defaultdict(lambda: defaultdict(list))
    for one in placed:
        for part in one.symmetry.parts:
            grouped[part.view][part.axes].append(_target(part, one.first, device))
    return tuple(
        Region(
            view,
            layout[view.parameter].start,
            tuple(Reduction(axes, tuple(targets)) for axes, targets in by_axes.items()),
        )
        for view, by_axes in grouped.items()
    )


def count_channels(parts: Sequence[Part]) -> int:
    """Number of charges where each channel belongs to one."""
    return max(int(part.index.max()) for part in parts) + 1


def sum_to(view: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Sums over all axes but these, flattened."""
    # Over the rows first, which is a vector operation.
    if 0 not in axes and view.ndim > 1:
        view, axes = view.sum(0), tuple(axis - 1 for axis in axes)
    others = [dim for dim in range(view.ndim) if dim not in axes]
    return (view.sum(others) if others else view).reshape(-1)


def _target(part: Part, first: int, device: torch.device | str) -> Target:
    channels = (part.index >= 0).nonzero()[:, 0]
    charges = part.index[channels] + first
    slices = _as_slice(channels), _as_slice(charges)
    together = None if slices[0] is None or slices[1] is None else (slices[0], slices[1])
    return Target(channels.to(device), charges.to(device), part.weight, together)


def _as_slice(numbers: Tensor) -> slice | None:
    """Numbers that follow one another."""
    if not len(numbers) or not bool((numbers.diff() == 1).all()):
        return None
    return slice(int(numbers[0]), int(numbers[-1]) + 1)
