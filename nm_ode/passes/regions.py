"""Parts of parameters that are read at once, with all that is wanted of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor

from nm_ode.parameters import Difference, Layout, Parts, Scaled, Slot, Vector
from nm_ode.passes.stepping import Settings
from nm_ode.passes.wanted import Pair, Strided, Sum, Wanted


@dataclass(eq=False)
class Product:
    """u·v of a region, and over what it is summed.

    Attributes:
        rows, columns: is a sum of each row, of each column wanted?
        others: axes that are kept together with the first: sums that neither rows nor columns give.
    """

    pair: Pair
    sums: list[Sum] = field(default_factory=list)

    @cached_property
    def axes(self) -> set[tuple[int, ...]]:
        return {one.axes for one in self.sums}

    @cached_property
    def rows(self) -> bool:
        return (0,) in self.axes

    @cached_property
    def columns(self) -> bool:
        return any(axes and 0 not in axes for axes in self.axes)

    @cached_property
    def others(self) -> list[tuple[int, ...]]:
        return sorted(axes for axes in self.axes if len(axes) > 1 and 0 in axes)


@dataclass(eq=False)
class Reduced:
    """The sums of one product, in float64, as far as they are wanted.

    Attributes:
        rows: shape (n,).
        columns: shape (rest,).
        total: a scalar, there always.
        others: by the axes that are kept.
    """

    total: Tensor
    rows: Tensor | None = None
    columns: Tensor | None = None
    others: Mapping[tuple[int, ...], Tensor] = field(default_factory=dict)

    def times(self, factor: float) -> Reduced:
        """Of a product that is so many times this one."""
        return Reduced(
            self.total * factor,
            None if self.rows is None else self.rows * factor,
            None if self.columns is None else self.columns * factor,
            {axes: one * factor for axes, one in self.others.items()},
        )

    def kept(self, axes: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
        """The sum over all but these axes of a region of this shape."""
        if not axes:
            return self.total.reshape(1)
        if axes == (0,):
            assert self.rows is not None
            return self.rows
        if 0 in axes:
            return self.others[axes]
        assert self.columns is not None
        return summed(self.columns.view(shape[1:]), [axis - 1 for axis in axes])


@dataclass(eq=False)
class Region:
    """Part of a parameter, read as a matrix (n, rest).

    Attributes:
        start: of the parameter in a flat vector.
        view: None: all of the parameter, in any order.
        products: what is summed; for each of `totals` there is one.
        totals: pairs of which this region gives the parameter's total.
        copies: names of what is copied, and of the copy.
        digests: names of vectors.
    """

    name: str
    start: int
    view: Strided | None
    shape: tuple[int, ...]
    products: list[Product] = field(default_factory=list)
    totals: list[Pair] = field(default_factory=list)
    copies: list[Pair] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    @cached_property
    def matrix(self) -> tuple[int, int]:
        """(n, rest)."""
        return self.shape[0], prod(self.shape[1:])

    @cached_property
    def names(self) -> list[str]:
        """Of the vectors that are read."""
        read = [name for product in self.products for name in product.pair] + [a for a, _ in self.copies]
        return list(dict.fromkeys([*read, *self.digests]))

    def product(self, pair: Pair) -> Product:
        """Of this pair; made if there is none yet."""
        for one in self.products:
            if one.pair == pair:
                return one
        self.products.append(Product(pair))
        return self.products[-1]

    def of(self, vector: Vector) -> Tensor:
        """Its entries of a vector, shape (n, rest); a view wherever there is one."""
        if self.view is not None:
            found = self.view.of(vector, self.start)
        elif isinstance(vector, Parts):
            found = vector[self.name]
        else:
            found = vector[self.start : self.start + prod(self.shape)]
        return found.reshape(self.matrix)


@dataclass(eq=False)
class Read:
    """A region's matrices, (n, rest) each.

    Attributes:
        whole: name → where it lies.
        differences: name → minuend and subtrahend of what lies nowhere yet.
        copies: name → where a copy goes.
        factors: name → by what it is to be multiplied, if by anything.
        step: how the parameter will be moved, where vectors ahead of the step are read.
    """

    whole: dict[str, Tensor]
    differences: dict[str, tuple[Tensor, Tensor]]
    copies: list[tuple[str, Tensor]]
    factors: dict[str, float]
    step: Settings | None = None

    @classmethod
    def of(cls, region: Region, vectors: Mapping[str, Vector], step: Settings | None = None) -> Read:
        """From these vectors."""
        read = cls({}, {}, [(name, region.of(vectors[copy])) for name, copy in region.copies], {}, step)
        copied = {name for name, _ in region.copies}
        names = region.names if step is None else dict.fromkeys([*region.names, *step.reads])
        for name in names:
            if step is not None and name in step.gives:
                continue
            vector = vectors[name]
            if isinstance(vector, Difference) and not vector.is_made:
                read.differences[name] = (region.of(vector.after), region.of(vector.before))
            elif isinstance(vector, Scaled) and name not in copied:
                read.whole[name] = region.of(vector.base)
                read.factors[name] = vector.factors[region.name]
            else:
                read.whole[name] = region.of(vector)
        return read

    def factor(self, pair: Pair) -> float:
        """Of products of these two."""
        return self.factors.get(pair[0], 1.0) * self.factors.get(pair[1], 1.0)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What kernels are made for: reads of one kind are in other tensors."""
        step = None if self.step is None else (self.step.weight_decay != 0, self.step.nesterov)
        return self.tensors[0].dtype, step, *self.whole, None, *self.differences

    @property
    def tensors(self) -> list[Tensor]:
        """All of them."""
        pairs = [one for pair in self.differences.values() for one in pair]
        return [*self.whole.values(), *pairs, *(one for _, one in self.copies)]


def regions_of(layout: Layout, wanted: Wanted) -> list[Region]:
    """One for each view that is wanted; totals and copies with a view that is all of its parameter."""
    regions: list[Region] = []
    for slot in layout.slots:
        mine: dict[Strided, Region] = {}
        for one in sorted((one for one in wanted.sums if one.view.parameter == slot.name), key=repr):
            view = one.view
            region = mine.setdefault(view, Region(slot.name, slot.start, view, view.shape or (1,)))
            region.product(one.pair).sums.append(one)
        whole = next((region for view, region in mine.items() if _is_whole(view, slot)), None)
        if whole is None and (wanted.totals or wanted.copies or wanted.digests):
            whole = Region(slot.name, slot.start, None, (slot.size,))
            regions.append(whole)
        if whole is not None:
            whole.totals, whole.copies = sorted(wanted.totals), sorted(wanted.copies)
            whole.digests = sorted(wanted.digests)
            for pair in whole.totals:
                whole.product(pair)
        regions.extend(mine.values())
    return regions


def _is_whole(view: Strided, slot: Slot) -> bool:
    """Is it each of the parameter's entries once, in order?"""
    expected = 1
    for size, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return view.size == slot.size and view.offset == 0


def summed(whole: Tensor, axes: Collection[int]) -> Tensor:
    """Over all but these axes, flattened; a view where they are all there are."""
    dims = [dim for dim in range(whole.ndim) if dim not in axes]
    return (whole.sum(dims) if dims else whole).reshape(-1)


def float64(total: Tensor) -> Tensor:
    """The sum of partial sums."""
    return total.sum(dtype=torch.float64)
