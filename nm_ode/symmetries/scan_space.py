"""What a scan looks among: quadratic and linear polynomials in theta's entries, and the charges as such.

A charge Q(θ) is conserved by gradient flow if ⟨∇L, ∇Q⟩ = 0. Its coefficients are those of the squares θ_i², of the
products θ_i θ_j of some pairs, and of the entries θ_i; the generator is ½∇Q of a quadratic one, ∇Q of a linear one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from nm_ode.parameters import Layout
from nm_ode.symmetries.forms import Blocks
from nm_ode.symmetries.kinds import KINDS
from nm_ode.symmetries.symmetry import Part, Symmetry

Array = NDArray[np.float64]
Places = NDArray[np.int64]

SHORT = 1e-5
"""A part of a unit vector below this is rounding."""

FINE = 700
"""So many features at most are of single entries and of pairs of rows; else of whole rows and columns alone."""


@dataclass(frozen=True, eq=False)
class Space:
    """Coordinates: P squares, pairs of different entries, P entries; and the polynomials that are sampled.

    Attributes:
        layout: of theta.
        pairs: shape (n, 2), the lesser place first, in order; those after `sampled` come up in no feature.
        sampled: so many of the pairs are read.
        features: shape (2P + n, features): the coefficients of each.
    """

    layout: Layout
    pairs: Places
    sampled: int
    features: csr_array

    @property
    def size(self) -> int:
        return 2 * self.layout.size + len(self.pairs)

    @property
    def halves(self) -> dict[str, slice]:
        """Coordinates of squares, of pairs, and of entries."""
        p, n = self.layout.size, len(self.pairs)
        return {"scale": slice(0, p), "mixing": slice(p, p + n), "shift": slice(p + n, 2 * p + n)}

    def terms(self, g: Array, t: Array) -> Array:
        """What each coordinate gives to ⟨g, generator⟩."""
        i, j = self.pairs[: self.sampled].T
        mixed = np.zeros(len(self.pairs))
        mixed[: self.sampled] = 0.5 * (g[i] * t[j] + g[j] * t[i])
        return np.concatenate([g * t, mixed, g])

    def sizes(self, g: Array, t: Array) -> Array:
        """The squares of these, were g and t of random signs."""
        i, j = self.pairs[: self.sampled].T
        mixed = np.zeros(len(self.pairs))
        mixed[: self.sampled] = 0.25 * ((g[i] * t[j]) ** 2 + (g[j] * t[i]) ** 2)
        return np.concatenate([(g * t) ** 2, mixed, g**2])

    def products(self, directions: Array, linear: Array) -> Array:
        """Of some polynomials those that are made of products of two of the linear ones alone.

        Args:
            directions: shape (coordinates, n), orthonormal.
            linear: shape (P, m), orthonormal.

        Returns:
            shape (coordinates, k).
        """
        halves, p = self.halves, self.layout.size
        squares, mixed = directions[halves["scale"]], directions[halves["mixing"]]
        if mixed.any():  # as matrices, which must have their range among the linear ones
            matrices = np.zeros((directions.shape[1], p, p))
            matrices[:, np.arange(p), np.arange(p)] = squares.T
            i, j = self.pairs.T
            matrices[:, i, j] = matrices[:, j, i] = 0.5 * mixed.T
            outside = (matrices - linear @ (linear.T @ matrices)).reshape(len(matrices), -1).T
        else:
            outside = squares * np.sqrt(np.clip(1 - np.square(linear).sum(1), 0, None))[:, None]
        outside = np.concatenate([outside, directions[halves["shift"]]])
        values, vectors = np.linalg.eigh(outside.T @ outside)
        return np.asarray(directions @ vectors[:, values < SHORT**2])


def space_of(layout: Layout, found: Sequence[Symmetry]) -> Space:
    """Features as fine as their number allows, and room for the charges of the symmetries found."""
    entries: list[Places] = [np.array([place]) for place in range(layout.size)]
    mixed = list(_mixed(layout)) if len(entries) <= FINE // 2 else []
    fine = 2 * len(entries) + len(mixed) <= FINE
    blocks = entries if fine else _rows_and_columns(layout)
    mixed = mixed if fine else []
    codes = np.unique(
        np.concatenate([np.zeros(0, dtype=np.int64), *(_codes(pair, layout.size) for pair in mixed)])
    )
    others = np.setdiff1d(_pairs_of_charges(layout, found), codes)
    codes = np.concatenate([codes, others])
    pairs = np.stack([codes // layout.size, codes % layout.size], axis=1)
    sampled = len(codes) - len(others)
    columns: list[Places] = [*blocks]
    columns += [layout.size + np.searchsorted(codes[:sampled], _codes(pair, layout.size)) for pair in mixed]
    columns += [layout.size + len(codes) + block for block in blocks]
    rows = np.concatenate(columns)
    numbers = np.repeat(np.arange(len(columns)), [column.size for column in columns])
    shape = (2 * layout.size + len(codes), len(columns))
    return Space(layout, pairs, sampled, csr_array((np.ones(rows.size), (rows, numbers)), shape=shape))


def _codes(pair: Places, size: int) -> Places:
    """One number for each pair; `pair` of shape (2, n)."""
    return np.asarray(pair.min(0) * size + pair.max(0))


def _rows_and_columns(layout: Layout) -> list[Places]:
    """Of every parameter."""
    blocks: list[Places] = []
    for slot in layout.slots:
        places = np.arange(slot.start, slot.slice.stop).reshape(slot.shape)
        axes = range(places.ndim if places.ndim <= 3 else 2)  # of a kernel the channels only
        of_size = [axis for axis in axes if places.shape[axis] > 1]
        for axis in of_size:
            blocks += list(np.moveaxis(places, axis, 0).reshape(places.shape[axis], -1))
        if not of_size:
            blocks.append(places.reshape(-1))
    return blocks


def _mixed(layout: Layout) -> Iterator[Places]:
    """Pairs of rows, and of columns, of every parameter: shape (2, entries of a row)."""
    for slot in layout.slots:
        places = np.arange(slot.start, slot.slice.stop).reshape(slot.shape)
        ways = [
            np.moveaxis(places, axis, 0).reshape(n, -1) for axis, n in enumerate(places.shape[:2]) if n > 1
        ]
        if places.ndim == 3:  # heads, each with rows of its own
            ways += [places.reshape(-1, places.shape[2]), places.reshape(places.shape[0], -1).T]
        for way in ways:
            for i in range(len(way)):
                for j in range(i):
                    yield np.stack([way[j], way[i]])


def _pairs_of_charges(layout: Layout, found: Sequence[Symmetry]) -> Places:
    codes = [np.zeros(0, dtype=np.int64)]
    for symmetry in found:
        if KINDS[symmetry.kind].form is Blocks:
            codes += [
                _codes(np.stack([i, j]), layout.size)
                for part in symmetry.parts
                for i, j, _ in _mixing(layout, part)
            ]
    return np.unique(np.concatenate(codes))


def _mixing(layout: Layout, part: Part) -> Iterator[tuple[Places, Places, int]]:
    """For each charge with i < j of each block the places of both rows, and the charge's number."""
    view = part.view.of(torch.arange(layout[part.parameter].size, device="cpu"))
    places = view.numpy() + layout[part.parameter].start
    blocks, d, _ = places.shape
    charge = 0
    for block in range(blocks):
        for i in range(d):
            for j in range(i, d):
                if i < j:
                    yield places[block, i], places[block, j], charge
                charge += 1


def charge_directions(space: Space, found: Sequence[Symmetry]) -> Array:
    """Shape (coordinates, n): the charges of the symmetries found."""
    layout, columns = space.layout, [np.zeros((space.size, 0))]
    order = np.argsort(codes := _codes(space.pairs.T, layout.size))
    halves = space.halves

    def place(i: Places, j: Places) -> Places:
        at = order[np.searchsorted(codes, _codes(np.stack([i, j]), layout.size), sorter=order)]
        return np.asarray(at + halves["mixing"].start)

    for symmetry in found:
        made = np.zeros((space.size, symmetry.count))
        form = KINDS[symmetry.kind].form
        for part in symmetry.parts:
            if form is Blocks:
                for i, j, charge in _mixing(layout, part):
                    np.add.at(made[:, charge], place(i, j), part.weight)
                entries, charge_of = _diagonal(layout, part)
            else:
                entries, charge_of = _moving(layout, part)
            first = halves["shift"].start if form.degree == 1 else 0
            np.add.at(made, (first + entries, charge_of), part.weight)
        columns.append(made)
    together = np.concatenate(columns, axis=1)
    length = np.linalg.norm(together, axis=0)
    return np.asarray(together[:, length > 0] / length[length > 0])


def _moving(layout: Layout, part: Part) -> tuple[Places, Places]:
    """The entries of theta that move, and the charge of each."""
    shape = [n if dim in part.axes else 1 for dim, n in enumerate(part.view.shape)]
    charge = part.index.reshape(shape).expand(part.view.shape).reshape(-1).numpy()
    entries = part.view.of(torch.arange(layout[part.parameter].size, device="cpu")).reshape(-1).numpy()
    takes_part = charge >= 0
    return layout[part.parameter].start + entries[takes_part], charge[takes_part]


def _diagonal(layout: Layout, part: Part) -> tuple[Places, Places]:
    """Of blocks: the entries of each row, and the charge of its square."""
    view = part.view.of(torch.arange(layout[part.parameter].size, device="cpu"))
    places = view.numpy() + layout[part.parameter].start
    blocks, d, rest = places.shape
    within = np.array([i * d - i * (i - 1) // 2 for i in range(d)])
    charges = np.arange(blocks)[:, None] * (d * (d + 1) // 2) + within
    return places.reshape(-1), np.repeat(charges.reshape(-1), rest)
