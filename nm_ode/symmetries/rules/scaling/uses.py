"""A parameter moves once, whatever its uses: equations between them, and one share of each entry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import torch
from torch import Tensor

from nm_ode.symmetries.labels import placed
from nm_ode.symmetries.rules.scaling.boxes import Box, Frame, frame_of
from nm_ode.symmetries.rules.scaling.variables import Variables
from nm_ode.symmetries.rules.weights import overlap
from nm_ode.symmetries.symmetry import View


@dataclass(frozen=True, eq=False)
class Term:
    """Factor of a view's entries along some of its axes: coefficient · variables."""

    axes: tuple[int, ...]
    variables: Tensor
    coefficient: float


@dataclass(frozen=True, eq=False)
class Use:
    """One way in which a parameter is used; the factor of its entries is the sum of the terms."""

    view: View
    terms: tuple[Term, ...]

    @property
    def size(self) -> int:
        """Number of variables."""
        return sum(term.variables.numel() for term in self.terms)


Equation: TypeAlias = list[tuple[float, Tensor]]
"""Σ coefficient · variables = 0 over a grid, in which a dimension of size one is broadcast."""


def reconciled(variables: Variables, uses: Iterable[Use]) -> list[Use]:
    """Require that the uses of each parameter agree, entry by entry; uses that have no entry in common.

    Of uses of the same entries the one with fewest variables is kept.
    """
    by_name: dict[str, list[Use]] = defaultdict(list)
    for use in uses:
        by_name[use.view.parameter].append(use)
    equations: list[Equation] = []
    kept: list[Use] = []
    for of_one in by_name.values():
        frame = frame_of([use.view for use in of_one]) if len(of_one) > 1 else None
        if len(of_one) == 1:
            kept += of_one
        elif frame is not None:
            placed = _placed(frame, of_one, equations)
            kept += _disjoint(frame, placed)
        else:
            kept += _still(variables, of_one)
    _require(variables, equations)
    return kept


@dataclass(frozen=True, eq=False)
class _Placed:
    """A use in the frame of its parameter: of each term the variables, one dimension a digit."""

    use: Use
    box: Box
    terms: Equation


def _placed(frame: Frame, uses: Sequence[Use], equations: list[Equation]) -> list[_Placed]:
    """One use for each box, largest first; what its uses, and those of others that it meets, must agree in."""
    by_box: dict[Box, list[_Placed]] = defaultdict(list)
    for use in uses:
        box, digits = frame.place(use.view)
        terms = [(t.coefficient, frame.grid(box, use.view, digits, t.axes, t.variables)) for t in use.terms]
        by_box[box].append(_Placed(use, box, terms))
    for same in by_box.values():
        equations += [_difference(same[0], other, same[0].box) for other in same[1:]]
    first = [min(same, key=lambda one: one.use.size) for same in by_box.values()]
    for one, other in combinations(first, 2):
        common = one.box.common(other.box)
        if common is not None:
            equations.append(_difference(one, other, common))
    return sorted(first, key=lambda one: -one.box.size)


def _difference(one: _Placed, other: _Placed, box: Box) -> Equation:
    return [
        (sign * coefficient, box.within(placed.box, grid))
        for placed, sign in ((one, 1.0), (other, -1.0))
        for coefficient, grid in placed.terms
    ]


def _disjoint(frame: Frame, placed: Sequence[_Placed]) -> list[Use]:
    """Uses of what no use before has."""
    kept: list[Use] = []
    taken: list[Box] = []
    for one in placed:
        pieces = [one.box]
        for box in taken:
            pieces = [piece for whole in pieces for piece in whole.without(box)]
        taken.append(one.box)
        for piece in pieces:
            if piece == one.box:
                kept.append(one.use)
                continue
            terms = []
            for coefficient, grid in one.terms:
                part = piece.within(one.box, grid)
                axes = tuple(dim for dim, n in enumerate(part.shape) if n > 1)
                terms.append(Term(axes, part.reshape(-1), coefficient))
            kept.append(Use(frame.view(one.use.view.parameter, piece), tuple(terms)))
    return kept


def _still(variables: Variables, uses: Sequence[Use]) -> list[Use]:
    """Where views are of no common frame: those that overlap stay as they are, but for equal ones."""
    kept: list[Use] = []
    for use in uses:
        again = False
        for other in kept:
            if not overlap(use.view, other.view):
                continue
            alike = [(t.axes, t.coefficient) for t in use.terms] == [
                (t.axes, t.coefficient) for t in other.terms
            ]
            if use.view == other.view and alike:
                for a, b in zip(use.terms, other.terms, strict=True):
                    variables.equal(a.variables, b.variables)
                again = True
            else:
                for term in (*use.terms, *other.terms):
                    variables.zero(term.variables)
        if not again:
            kept.append(use)
    return kept


def _require(variables: Variables, equations: list[Equation]) -> None:
    """All equations; those that say but that variables are equal first, since they make others such."""
    waiting = equations
    while waiting:
        later = []
        for equation in waiting:
            groups = _groups(variables, equation)
            if len(groups) == 1:
                (group,) = groups.values()
                _vanishes(variables, group)
            elif groups:
                later.append(equation)
        if len(later) == len(waiting):
            break
        waiting = later
    for equation in waiting:
        _separated(variables, _groups(variables, equation))


_Groups: TypeAlias = dict[frozenset[int], Equation]
"""Terms of an equation by the dimensions along which they vary."""


def _groups(variables: Variables, equation: Equation) -> _Groups:
    """Without what cancels, or is known to be the same along a dimension."""
    groups: _Groups = defaultdict(list)
    for coefficient, grid in equation:
        for dim, n in enumerate(grid.shape):
            if n > 1 and variables.uniform(grid, dim):
                grid = grid.narrow(dim, 0, 1)
        if variables.is_zero(grid):
            continue
        group = groups[frozenset(dim for dim, n in enumerate(grid.shape) if n > 1)]
        root = torch.from_numpy(variables.root(grid.numpy()))
        for i, (c, other) in enumerate(group):
            if c == -coefficient and torch.equal(other, root):
                del group[i]
                break
        else:
            group.append((coefficient, root))
    return {dims: group for dims, group in groups.items() if group}


def _vanishes(variables: Variables, group: Equation) -> None:
    (first, a), *others = group
    if not others:
        variables.zero(a)
    elif len(others) == 1 and others[0][0] == -first:
        variables.equal(a, others[0][1])
    else:
        variables.zero(variables.combine(*group))


def _separated(variables: Variables, groups: _Groups) -> None:
    """Functions of different coordinates whose sum is zero are constants whose sum is zero.

    Coordinates that several of them have are held fixed; of the others each function has its own.
    """
    if len(groups) < 2:
        for group in groups.values():
            _vanishes(variables, group)
        return
    shared = {dim for a, b in combinations(groups, 2) for dim in a & b}
    constants = []
    for dims, group in groups.items():
        total = variables.combine(*group)
        for dim in dims - shared:
            first = total.narrow(dim, 0, 1)
            variables.equal(total, first)
            total = first
        constants.append(total)
    constants = [constant.reshape(-1) for constant in torch.broadcast_tensors(*constants)]
    variables.require(*((1.0, constant) for constant in constants))


def moves_nothing(variables: Variables, uses: Iterable[Use]) -> None:
    """Require that no parameter moves: what is then left free says nothing of them."""
    equations: list[Equation] = []
    for use in uses:
        grids: Equation = []
        ndim = max(len(use.view.shape), 1)
        for term in use.terms:
            own = term.variables.reshape([use.view.shape[axis] for axis in term.axes])
            grids.append((term.coefficient, placed(own, term.axes, ndim)))
        equations.append(grids)
    _require(variables, equations)
