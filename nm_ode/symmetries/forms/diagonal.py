"""Diagonal generators: all entries of a channel are multiplied by one number. Q = Σ weight ‖θ_channel‖²."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from nm_ode.parameters import Layout, Vector
from nm_ode.symmetries.forms.base import Form, Placed
from nm_ode.symmetries.forms.regions import Region, count_channels, regions_of, sum_to
from nm_ode.symmetries.symmetry import Part

_CHUNK = 1 << 19  # entries of a product that are held at a time: few enough for a processor's cache


class Diagonal(Form):
    """ξ = weight · θ on a charge's entries, 0 elsewhere."""

    def __init__(self, layout: Layout, placed: Sequence[Placed], device: torch.device | str) -> None:
        self._regions = regions_of(layout, placed, device)
        self._scratch = torch.empty(0)

    @staticmethod
    def count(parts: Sequence[Part]) -> int:
        """One for each channel."""
        return count_channels(parts)

    def add_bracket(self, u: Vector, v: Vector, result: Tensor) -> None:
        """Σ weight ⟨u_channel, v_channel⟩."""
        for region in self._regions:
            (sums,) = self._products(region, ((u, v),))
            _send(region, sums, result)

    def add_squares(self, theta: Vector, squares: Tensor) -> None:
        """Σ weight² ‖θ_channel‖²."""
        for region in self._regions:
            (sums,) = self._products(region, ((theta, theta),))
            _send(region, sums, squares, power=2)

    def add_state(
        self, theta: Vector, grad: Vector, charge: Tensor, squares: Tensor, constraint: Tensor
    ) -> None:
        """All three from one pass over theta."""
        for region in self._regions:
            of_theta, of_both = self._products(region, ((theta, theta), (grad, theta)))
            _send(region, of_theta, charge)
            _send(region, of_theta, squares, power=2)
            _send(region, of_both, constraint)

    def add_action(self, vector: Vector, coefficients: Tensor, result: Tensor) -> None:
        """Σ_c r_c weight · v."""
        for region in self._regions:
            for reduction in region.reductions:
                region.of(result).add_(region.factor(reduction, coefficients) * region.of(vector))

    def _products(self, region: Region, pairs: Sequence[tuple[Vector, Vector]]) -> list[list[Tensor]]:
        """Of each pair the products' sums by each of the region's reductions.

        A product is made some rows at a time, which stay in the cache for all reductions: what costs is memory's
        bandwidth, and so each vector is read once. Columns are summed over rows first, which is a vector operation.
        """
        views = [(_at_least_1d(region.of(u)), _at_least_1d(region.of(v))) for u, v in pairs]
        n, *rest = views[0][0].shape
        at_a_time = max(1, min(n, _CHUNK // max(1, prod(rest))))
        scratch = self._room(at_a_time * prod(rest), views[0][0])
        pieces: list[list[list[Tensor]]] = [[[] for _ in region.reductions] for _ in pairs]
        for start in range(0, n, at_a_time):
            rows = slice(start, min(start + at_a_time, n))
            made = scratch[: (rows.stop - start) * prod(rest)].view(rows.stop - start, *rest)
            for mine, (a, b) in zip(pieces, views, strict=True):
                torch.mul(a[rows], b[rows], out=made)
                for parts, reduction in zip(mine, region.reductions, strict=True):
                    if 0 in reduction.axes:
                        parts.append(sum_to(made, reduction.axes).clone())
                    elif parts:
                        parts[0] += made.sum(0)
                    else:
                        parts.append(made.sum(0))
        return [
            [
                torch.cat(parts)
                if 0 in reduction.axes
                else sum_to(parts[0], tuple(axis - 1 for axis in reduction.axes))
                for parts, reduction in zip(mine, region.reductions, strict=True)
            ]
            for mine in pieces
        ]

    def _room(self, size: int, like: Tensor) -> Tensor:
        if self._scratch.numel() < size or (self._scratch.dtype, self._scratch.device) != (
            like.dtype,
            like.device,
        ):
            self._scratch = like.new_empty(size)
        return self._scratch


def _send(region: Region, sums: Sequence[Tensor], result: Tensor, power: int = 1) -> None:
    for reduction, found in zip(region.reductions, sums, strict=True):
        reduction.send(found, result, power)


def _at_least_1d(view: Tensor) -> Tensor:
    return view if view.ndim else view.reshape(1)
