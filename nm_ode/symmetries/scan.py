"""A numerical search for conserved directions, for small models: what did the graph's rules not explain?

At many random parameters and batches ⟨g_c, θ_c⟩ and ⟨g_c, 1⟩ are taken over the rows and columns c of every parameter.
A combination of them that is zero at all draws is a conserved direction: of Σ r_c ‖θ_c‖² or Σ r_c ⟨θ_c, 1⟩. Those that
hold for any numbers (all rows together are all columns together) say nothing and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import null_space
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from nm_ode.loss import Problem
from nm_ode.loss.objective import LossFunction
from nm_ode.parameters import Layout
from nm_ode.symmetries.alone import alone
from nm_ode.symmetries.discovery import Symmetries, verified_symmetries
from nm_ode.symmetries.errors import SymmetryError
from nm_ode.symmetries.extended_loss import ExtendedLoss, flat, leaves
from nm_ode.symmetries.kinds import KINDS
from nm_ode.symmetries.proofs import discover
from nm_ode.symmetries.symmetry import Symmetry
from nm_ode.symmetries.traced_loss import TracedLoss, loss_of_model, loss_of_problem
from nm_ode.symmetries.verify import first_look

Array = NDArray[np.float64]

LIMIT = 3000  # features: as many gradients, and a singular value decomposition of that size
_NULL = 1e-9  # a singular value below this share of the largest is rounding
_SHORT = 1e-5  # and so is a part of a unit vector below this
_EPSILON = 1e-9  # of each normalisation's ε is kept: no symmetry is broken, and nothing divided by zero


@dataclass(frozen=True)
class Unexplained:
    """A space of conserved directions that no symmetry from the graph accounts for.

    Attributes:
        dimension: number of independent charges.
        parts: what takes part, as "scale of the rows of a.weight" or "shift of the columns of b.weight".
    """

    dimension: int
    parts: tuple[str, ...]

    def __str__(self) -> str:
        plural = "" if self.dimension == 1 else "s"
        return f"{self.dimension} conserved direction{plural}: " + ", ".join(self.parts)


@dataclass(frozen=True)
class Scan:
    """What was sampled and found.

    Attributes:
        blocks: number of sums sampled.
        draws: number of random parameters and batches.
        conserved: dimension of what is conserved, trivial combinations left out.
        explained: of these, how many the symmetries that were found account for.
        unexplained: the rest.
    """

    blocks: int
    draws: int
    conserved: int
    explained: int
    unexplained: tuple[Unexplained, ...]


@alone
def scan_symmetries(
    model: nn.Module,
    example_input: Any,
    loss: str | LossFunction | None = None,
    *,
    target: Any = None,
    seed: int = 0,
) -> Scan:
    """Conserved directions of a small model, beside those that `find_symmetries` proves; arguments as there.

    Raises:
        SymmetryError: the model cannot be traced, has too many rows and columns, or trains by another gradient than
            the loss's.
    """
    traced, _ = loss_of_model(model, example_input, loss, target, seed)
    return _scan(traced, verified_symmetries(traced, seed=seed), seed)


@alone
def scan_of(problem: Problem, found: Symmetries | None = None, *, samples: int = 8, seed: int = 0) -> Scan:
    """The same for a problem; `found` are its symmetries, if they are known already.

    Raises:
        SymmetryError: the model cannot be traced, has too many rows and columns, or trains by another gradient than
            the loss's.
    """
    traced = loss_of_problem(problem, samples)
    return _scan(traced, verified_symmetries(traced, seed=seed) if found is None else found, seed)


def _scan(traced: TracedLoss, found: Sequence[Symmetry], seed: int) -> Scan:
    layout = traced.layout
    blocks = _blocks(layout)
    count = 2 * blocks.shape[1]  # scale and shift of each
    if count > LIMIT:
        raise SymmetryError(
            f"the scan is for small models: this one has {count} sums over rows and columns, of at most {LIMIT}; "
            "scan a narrower model of the same architecture"
        )
    draws = count + 20
    sums, sizes = _sampled(traced, blocks, draws, seed)
    combinations, _ = np.linalg.qr(null_space(sums / sizes, rcond=_NULL) / sizes[:, None])
    # As coefficients of the squares of theta's entries, and of the entries; what holds for any numbers is 0 there.
    directions = _span(np.concatenate([blocks @ part for part in np.split(combinations, 2)]))
    charges = _span(_charge_directions(layout, found))
    rest = _span(directions - charges @ (charges.T @ directions))
    return Scan(
        blocks=count,
        draws=draws,
        conserved=directions.shape[1],
        explained=directions.shape[1] - rest.shape[1],
        unexplained=_described(rest, layout),
    )


def _blocks(layout: Layout) -> csr_array:
    """Rows and columns of every parameter: shape (P, blocks), 1 where an entry of theta is in a block."""
    blocks: list[NDArray[np.int64]] = []
    for slot in layout.slots:
        places = np.arange(slot.start, slot.slice.stop).reshape(slot.shape)
        axes = range(places.ndim if places.ndim <= 3 else 2)  # of a kernel the channels only
        of_size = [axis for axis in axes if places.shape[axis] > 1]
        for axis in of_size:
            blocks += list(np.moveaxis(places, axis, 0).reshape(places.shape[axis], -1))
        if not of_size:
            blocks.append(places.reshape(-1))
    rows, columns = (
        np.concatenate(blocks),
        np.repeat(np.arange(len(blocks)), [block.size for block in blocks]),
    )
    return csr_array((np.ones(rows.size), (rows, columns)), shape=(layout.size, len(blocks)))


def _sampled(traced: TracedLoss, blocks: csr_array, draws: int, seed: int) -> tuple[Array, Array]:
    """Sums (draws, 2·blocks), and the size of each."""
    layout = traced.layout
    links = discover(traced.graph).links
    extended = ExtendedLoss(traced, links)
    epsilons = [_EPSILON * epsilon for epsilon in extended.epsilons]
    generator = torch.Generator().manual_seed(seed)
    how, untrue = first_look(traced, extended, generator)
    if untrue:
        raise SymmetryError(
            f"the scan is of the loss's gradient, and {', '.join(untrue[:4])} {'train' if untrue[1:] else 'trains'} by "
            "another one (a backward of its own, a hook or a stopped gradient)"
        )
    sums, squares = np.empty((draws, 2 * blocks.shape[1])), np.zeros(2 * blocks.shape[1])
    for draw in range(draws):
        theta = traced.drawn_theta(generator)
        tensors = traced.drawn_tensors(how, generator)
        parameters = leaves(layout, theta)
        loss = extended(parameters, epsilons, tensors, draw)
        pieces = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
        gradient = flat(pieces)
        typical = torch.empty_like(gradient)
        for norm, layer in zip(layout.layer_norms(gradient), layout.layers.values(), strict=True):
            for piece in layer:
                typical[piece] = norm
        g, t, s = gradient.numpy(), theta.numpy(), typical.numpy()
        sums[draw] = np.concatenate([(g * t) @ blocks, g @ blocks])
        squares += np.concatenate([(s * t) ** 2 @ blocks, s**2 @ blocks])
    seen, expected = np.linalg.norm(sums, axis=0), np.sqrt(squares)
    # A sum that is zero by itself (of a bias before BatchNorm) is rounding, which must not be blown up.
    return sums, np.where(seen > 1e-11 * expected, seen, np.maximum(expected, np.finfo(float).tiny))


def _span(columns: Array) -> Array:
    """Orthonormal basis of the columns, none of which is longer than 1 by much; what is short counts as zero."""
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, values > _SHORT])


def _charge_directions(layout: Layout, found: Sequence[Symmetry]) -> Array:
    """Shape (2P, charges): coefficients of the squares of theta's entries, then of the entries."""
    columns = [np.zeros((2 * layout.size, 0))]
    for symmetry in found:
        kind = KINDS[symmetry.kind]
        if (
            kind.diagonal is not None
        ):  # which is a symmetry of its own; the rest are no sums over rows or columns
            continue
        made = np.zeros((2 * layout.size, symmetry.count))
        linear = kind.form.degree == 1
        offset = layout.size if linear else 0
        for part in symmetry.parts:
            shape = [n if dim in part.axes else 1 for dim, n in enumerate(part.view.shape)]
            charge = part.index.reshape(shape).expand(part.view.shape).reshape(-1).numpy()
            entries = (
                part.view.of(torch.arange(layout[part.parameter].size, device="cpu")).reshape(-1).numpy()
            )
            takes_part = charge >= 0
            np.add.at(
                made,
                (offset + layout[part.parameter].start + entries[takes_part], charge[takes_part]),
                part.weight,
            )
        columns.append(made / np.linalg.norm(made, axis=0))
        if linear:
            # A sum of one entry: its gradient is zero, so its square is conserved too.
            single = made[:, np.count_nonzero(made, axis=0) == 1]
            columns.append(np.roll(single, layout.size, axis=0))
    return np.concatenate(columns, axis=1)


def _described(rest: Array, layout: Layout) -> tuple[Unexplained, ...]:
    """Directions that share no parameter apart; of each group how many, and what takes part."""
    pieces: list[tuple[str, Array]] = []
    for what, half in zip(("scale", "shift"), np.split(rest, 2), strict=True):
        for slot in layout.slots:
            piece = half[slot.slice].reshape(*slot.shape, -1)
            if piece.size and np.abs(piece).max() > _SHORT:
                pieces.append((f"{what} of {_varying(piece)} {slot.name}", piece.reshape(slot.size, -1)))
    if not pieces:
        return ()
    grams = np.stack([(piece.T @ piece).reshape(-1) for _, piece in pieces])
    groups = connected_components(csr_array(grams @ grams.T > _SHORT**2), directed=False)[1]
    sizes = np.array([np.square(piece).sum() for _, piece in pieces])
    return tuple(
        Unexplained(
            round(float(sizes[groups == group].sum())),
            tuple(pieces[i][0] for i in np.flatnonzero(groups == group)),
        )
        for group in np.unique(groups)
    )


def _varying(piece: Array) -> str:
    """Along which of a parameter's axes the directions (the last axis) differ."""
    axes = [axis for axis in range(piece.ndim - 1) if np.ptp(piece, axis=axis).max() > _SHORT]
    if piece.ndim <= 2:
        return "entries of" if axes else "all of"
    return {(0,): "the rows of", (1,): "the columns of", (): "all of"}.get(tuple(axes), "entries of")
