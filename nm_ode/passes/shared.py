"""One pass over vectors of theta's size, and the passes that the observers of a run share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor

from nm_ode.parameters import Layout, Vector
from nm_ode.passes.compiled import WORTH_IT, Compiled, library
from nm_ode.passes.eager import Eager
from nm_ode.passes.regions import Read, regions_of
from nm_ode.passes.wanted import Found, Pair, Sum, Wanted


class Pass:
    """All sums of products that are wanted at a time, from one read of each vector.

    Args:
        layout: of the vectors.
        wanted: of all readers.
        compiled: by a kernel in C, on the CPU and where there is a compiler; None: where there are so many parameters
            that it is worth it.
        chunk: how many entries torch's operations read at a time, without a kernel.
    """

    def __init__(
        self, layout: Layout, wanted: Wanted, *, compiled: bool | None = None, chunk: int | None = None
    ) -> None:
        self._totals = sorted(wanted.totals)
        self._regions = regions_of(layout, wanted)
        self._eager = Eager(chunk)
        self._may_compile = layout.size >= WORTH_IT if compiled is None else compiled
        self._kernel: Compiled | None = None

    @torch.no_grad()
    def __call__(self, vectors: Mapping[str, Vector]) -> Found:
        """Read the vectors.

        Args:
            vectors: each that is named in a pair or a copy.
        """
        totals: dict[Pair, list[Tensor]] = {pair: [] for pair in self._totals}
        sums: dict[Sum, Tensor] = {}
        for region in self._regions:
            read = Read.of(region, vectors)
            by_kernel = self._may_compile and Compiled.takes(region, read)
            compiled = self._compiled() if by_kernel else None
            reduced = (compiled or self._eager)(region, read)
            for product, one in zip(region.products, reduced, strict=True):
                factor = prod(read.factors.get(name, 1.0) for name in product.pair)
                made = one if factor == 1 else one.times(factor)
                kept = {axes: made.kept(axes, region.shape) for axes in product.axes}
                sums.update((asked, kept[asked.axes]) for asked in product.sums)
                if product.pair in region.totals:
                    totals[product.pair].append(made.total)
        return Found({pair: torch.stack(parts) for pair, parts in totals.items()}, sums)

    def _compiled(self) -> Compiled | None:
        if self._kernel is None:
            found = library()
            self._may_compile = found is not None
            self._kernel = None if found is None else Compiled(found)
        return self._kernel


class Viewed(Protocol):
    """A view of a step, as observers have it."""

    step: int

    def vector(self, name: str) -> Vector:
        """By its name in a pair."""
        ...


class Passes:
    """What the observers of a run have asked for: one pass before each step, one after it.

    Args:
        layout: of theta.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._asked: list[tuple[bool, Wanted, Collection[int]]] = []
        self._passes: dict[tuple[int, ...], tuple[Pass, list[str]]] = {}
        self._known: dict[str, Callable[[Any], Vector]] = {}
        self._last: tuple[object, bool, Found] | None = None

    def know(self, name: str, vector: Callable[[Any], Vector]) -> None:
        """A vector of a reader's own under a name: a function of the view of a step."""
        self._known[name] = vector

    def ask(self, wanted: Wanted, steps: Collection[int], *, after: bool = False) -> None:
        """Make these sums at these steps, before the step or after it."""
        self._asked.append((after, wanted, steps))

    def of(self, view: Viewed, *, after: bool = False) -> Found:
        """All that was asked for of this step, made when it is first called for."""
        if self._last is None or self._last[0] is not view or self._last[1] != after:
            self._last = (view, after, self._made(view, after))
        return self._last[2]

    def _made(self, view: Viewed, after: bool) -> Found:
        active = tuple(
            i for i, (when, _, steps) in enumerate(self._asked) if when == after and view.step in steps
        )
        if active not in self._passes:
            wanted = Wanted()
            for i in active:
                wanted |= self._asked[i][1]
            self._passes[active] = Pass(self._layout, wanted), wanted.names
        made, names = self._passes[active]
        return made({name: self._vector(name, view) for name in names})

    def _vector(self, name: str, view: Viewed) -> Vector:
        known = self._known.get(name)
        return view.vector(name) if known is None else known(view)
