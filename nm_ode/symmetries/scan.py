"""A numerical search for conserved directions, for small models: what did the graph's rules not explain?

At many random parameters and batches ⟨g_c, θ_c⟩ and ⟨g_c, 1⟩ are taken over sets c of entries: each entry alone, and
pairs of rows and of columns, where the model is small enough for that, else the rows and columns of every parameter.
A combination that is zero at all draws is a conserved direction: of Σ r_c ‖θ_c‖², Σ r_ab ⟨θ_a, θ_b⟩ or Σ r_c ⟨θ_c, 1⟩.
Those that hold for any numbers (all rows together are all columns together) say nothing and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from nm_ode.symmetries.alone import alone
from nm_ode.symmetries.discovery import Symmetries, verified_symmetries
from nm_ode.symmetries.errors import SymmetryError
from nm_ode.symmetries.extended_loss import ExtendedLoss, flat, leaves
from nm_ode.symmetries.layers import faint_scale
from nm_ode.symmetries.proofs import discover
from nm_ode.symmetries.scan_space import SHORT, Array, Space, charge_directions, space_of
from nm_ode.symmetries.symmetry import Symmetry
from nm_ode.symmetries.traced_loss import TracedLoss, loss_of_model, loss_of_problem
from nm_ode.symmetries.verify import first_look

LIMIT = 3000  # features: as many gradients, and a singular value decomposition of that size
_NULL = 1e-9  # a singular value below this share of the largest is rounding
_FAINTER = 1e-9  # and so is a gradient this far below one that is already faint
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
        kinds: "shift", "scale" and "mixing" → how many are conserved that are of this kind alone, and how many of
            them are explained; those of several kinds at once count as mixing.
    """

    blocks: int
    draws: int
    conserved: int
    explained: int
    unexplained: tuple[Unexplained, ...]
    kinds: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@alone
def scan_symmetries(
    model: nn.Module,
    example_input: Any,
    loss: str | LossFunction | None = None,
    *,
    target: Any = None,
    seed: int = 0,
) -> Scan:
    """Conserved directions of a small model, beside those that `find_symmetries` proves.

    Args:
        model, example_input, loss, target, seed: as of `find_symmetries`.

    Returns:
        A `Scan`.

    Raises:
        SymmetryError: the model cannot be traced, has too many rows and columns, or trains by another gradient than
            the loss's.

    Example:
        >>> import torch
        >>> import nm_ode
        >>> from nm_ode.models import mlp
        >>> scan = nm_ode.scan_symmetries(mlp([2, 3, 2], "relu"), torch.randn(8, 2), loss="cross_entropy")
        >>> scan.conserved, scan.explained, scan.unexplained
        (7, 7, ())
    """
    traced, _ = loss_of_model(model, example_input, loss, target, seed)
    return scan_traced(traced, verified_symmetries(traced, seed=seed), seed=seed)


@alone
def scan_of(problem: Problem, found: Symmetries | None = None, *, samples: int = 8, seed: int = 0) -> Scan:
    """`scan_symmetries` for a problem.

    Args:
        problem: whose model, objective and data.
        found: its symmetries, if they are known already; they are found if None.
        samples: how many of its first samples.
        seed: as of `find_symmetries`.

    Returns:
        A `Scan`.

    Raises:
        SymmetryError: the model cannot be traced, has too many rows and columns, or trains by another gradient than
            the loss's.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([10, 3, 1], "relu"), mse_loss, diabetes(samples=64))
        >>> scan = nm_ode.scan_of(problem)
        >>> scan.conserved, scan.explained, scan.unexplained
        (3, 3, ())
    """
    traced = loss_of_problem(problem, samples)
    return scan_traced(traced, verified_symmetries(traced, seed=seed) if found is None else found, seed=seed)


def scan_traced(traced: TracedLoss, found: Sequence[Symmetry], *, seed: int = 0) -> Scan:
    """The same for a loss that is traced, beside the symmetries found in it.

    Raises:
        SymmetryError: it has too many rows and columns, is computed in float32, or trains by another gradient than the
            loss's.
    """
    if traced.is_single:
        raise SymmetryError(
            "the scan takes gradients in float64, where alone what is conserved can be told from rounding; this model "
            "or its loss holds tensors or operations of float32: give it float64"
        )
    space = space_of(traced.layout, found)
    count = space.features.shape[1]
    if count > LIMIT:
        raise SymmetryError(
            f"the scan is for small models: this one has {count} sums over rows and columns, of at most {LIMIT}; "
            "scan a narrower model of the same architecture"
        )
    draws = count + 20
    sums, sizes = _sampled(traced, space, draws, seed)
    # As coefficients of the coordinates: what holds for any numbers is 0 there.
    known = charge_directions(space, found)
    directions = {
        kind: _conserved(space, sums, sizes, features, known) for kind, features in _features(space).items()
    }
    linear = directions["shift"][space.halves["shift"]]
    # A product of two linear charges is conserved with them, and says nothing.
    implied = space.products(directions["mixing"], linear)
    charges = _span(np.concatenate([known, implied], axis=1))
    counts, rest = {}, directions["mixing"]
    for kind, mine in directions.items():
        mine = _rest(mine, implied)
        rest = _rest(mine, charges)
        counts[kind] = np.array([mine.shape[1], mine.shape[1] - rest.shape[1]])
    conserved, explained = counts["mixing"].tolist()
    counts["mixing"] = counts["mixing"] - counts["shift"] - counts["scale"]
    return Scan(
        blocks=count,
        draws=draws,
        conserved=conserved,
        explained=explained,
        unexplained=_described(rest, space),
        kinds={kind: (int(all_of), int(known)) for kind, (all_of, known) in counts.items()},
    )


def _features(space: Space) -> dict[str, NDArray[np.int64]]:
    """Those of one half alone, and last all of them."""
    found = {}
    for kind in ("shift", "scale"):
        outside = np.ones(space.size, dtype=bool)
        outside[space.halves[kind]] = False
        found[kind] = np.flatnonzero((space.features[outside] != 0).sum(0) == 0)
    return found | {"mixing": np.arange(space.features.shape[1])}


def _conserved(space: Space, sums: Array, sizes: Array, features: NDArray[np.int64], known: Array) -> Array:
    """Basis of the combinations of some features that are zero at all draws, as coefficients of the coordinates.

    Beside those that are known, and with these exactly: a singular vector is as good as its gap.
    """
    if not features.size:
        return np.zeros((space.size, 0))
    scale, made = sizes[features][:, None], space.features[:, features]
    values, vectors = np.linalg.eigh((made.T @ made).toarray())
    trivial = values < _NULL * values[-1]
    inverse = vectors[:, ~trivial] / values[~trivial]
    of_known = inverse @ (vectors[:, ~trivial].T @ (made.T @ known))
    of_known = of_known[:, np.linalg.norm(made @ of_known - known, axis=0) < SHORT]
    left_out = np.concatenate([of_known, vectors[:, trivial]], axis=1) * scale
    others = null_space(left_out.T) if left_out.shape[1] else np.eye(features.size)
    combinations = others @ null_space((sums[:, features] / scale.T) @ others, rcond=_NULL) / scale
    found = _span(made @ of_known), _span(made @ np.linalg.qr(combinations)[0])
    return _span(np.concatenate([found[0], _rest(found[1], found[0])], axis=1))


def _rest(directions: Array, charges: Array) -> Array:
    return _span(directions - charges @ (charges.T @ directions))


def _sampled(traced: TracedLoss, space: Space, draws: int, seed: int) -> tuple[Array, Array]:
    """Sums (draws, features), and the size of each."""
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
    features = space.features.T.tocsr()
    squared = features.power(2)
    sums, squares = np.empty((draws, features.shape[0])), np.zeros(features.shape[0])
    for draw in range(draws):
        theta = traced.drawn_theta(generator)
        tensors = traced.drawn_tensors(how, generator)
        parameters = leaves(layout, theta)
        loss = extended(parameters, epsilons, tensors, draw)
        gradient = flat(extended.gradient(loss, list(parameters.values())))
        typical, scale = torch.empty_like(gradient), faint_scale(layout, gradient)
        for slot in layout.slots:
            typical[slot.slice] = scale[slot.layer]
            if float(gradient[slot.slice].norm()) < _FAINTER * scale[slot.layer]:
                gradient[slot.slice] = 0  # rounding, of what the loss does not feel
        g, t, s = gradient.numpy(), theta.numpy(), typical.numpy()
        sums[draw] = features @ space.terms(g, t)
        squares += squared @ space.sizes(s, t)
    seen, expected = np.linalg.norm(sums, axis=0), np.sqrt(squares)
    # A sum that is zero by itself (of a bias before BatchNorm) is rounding, which must not be blown up.
    return sums, np.where(seen > 1e-11 * expected, seen, np.maximum(expected, np.finfo(float).tiny))


def _span(columns: Array) -> Array:
    """Orthonormal basis of the columns, none of which is longer than 1 by much; what is short counts as zero."""
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, values > SHORT])


def _described(rest: Array, space: Space) -> tuple[Unexplained, ...]:
    """Directions that share no parameter apart; of each group how many, and what takes part."""
    pieces: list[tuple[str, Array]] = []
    for slot in space.layout.slots:
        for what in ("scale", "shift"):
            piece = rest[space.halves[what]][slot.slice].reshape(*slot.shape, -1)
            if piece.size and np.abs(piece).max() > SHORT:
                pieces.append((f"{what} of {_varying(piece)} {slot.name}", piece.reshape(slot.size, -1)))
        mine = (space.pairs[:, 0] >= slot.start) & (space.pairs[:, 0] < slot.slice.stop)
        piece = rest[space.halves["mixing"]][mine]
        if piece.size and np.abs(piece).max() > SHORT:
            pieces.append((f"mixing of the rows or columns of {slot.name}", piece))
    if not pieces:
        return ()
    grams = np.stack([(piece.T @ piece).reshape(-1) for _, piece in pieces])
    groups = connected_components(csr_array(grams @ grams.T > SHORT**2), directed=False)[1]
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
    axes = [axis for axis in range(piece.ndim - 1) if np.ptp(piece, axis=axis).max() > SHORT]
    if piece.ndim <= 2:
        return "entries of" if axes else "all of"
    return {(0,): "the rows of", (1,): "the columns of", (): "all of"}.get(tuple(axes), "entries of")
