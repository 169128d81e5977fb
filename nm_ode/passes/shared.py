"""One pass over vectors of theta's size, and the passes that the observers of a run share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor

from nm_ode.parameters import Layout, Vector
from nm_ode.passes.compiled import WORTH_IT, Compiled
from nm_ode.passes.compiler import compiler
from nm_ode.passes.eager import Eager
from nm_ode.passes.regions import Read, regions_of
from nm_ode.passes.stepping import Ahead, Stepping
from nm_ode.passes.wanted import Found, Pair, Sum, Wanted


class Pass:
    """All sums of products that are wanted at a time, from one read of each vector.

    Args:
        layout: of the vectors.
        wanted: of all readers.
        compiled: by kernels in C, on the CPU and where there is a compiler; None: where there are so many parameters
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
        self._kernels: Compiled | None = None

    @torch.no_grad()
    def __call__(self, vectors: Mapping[str, Vector]) -> Found:
        """Read the vectors.

        Args:
            vectors: each that is named in a pair or a copy.
        """
        reads = [Read.of(region, vectors) for region in self._regions]
        return self._found(reads, self._prepared(reads))

    @torch.no_grad()
    def ahead(self, vectors: Mapping[str, Vector], stepping: Stepping) -> Found | None:
        """Read the vectors before a step, with what it will give.

        Args:
            vectors: those that are there before it.
            stepping: how each parameter will be moved.

        Returns:
            None where kernels do not make all of it.
        """
        reads = [Read.of(region, vectors, stepping[region.name]) for region in self._regions]
        kernels = self._prepared(reads)
        pairs = zip(self._regions, reads, strict=True)
        if kernels is None or not all(kernels.takes(*pair) for pair in pairs):
            return None
        return self._found(reads, kernels)

    def _found(self, reads: list[Read], kernels: Compiled | None) -> Found:
        totals: dict[Pair, list[Tensor]] = {pair: [] for pair in self._totals}
        sums: dict[Sum, Tensor] = {}
        digests: dict[tuple[str, str], int] = {}
        for region, read in zip(self._regions, reads, strict=True):
            taken = kernels is not None and kernels.takes(region, read)
            reduced = (kernels if kernels is not None and taken else self._eager)(region, read)
            for product, one in zip(region.products, reduced, strict=True):
                factor = prod(read.factors.get(name, 1.0) for name in product.pair)
                made = one if factor == 1 else one.times(factor)
                kept = {axes: made.kept(axes, region.shape) for axes in product.axes}
                sums.update((asked, kept[asked.axes]) for asked in product.sums)
                if product.pair in region.totals:
                    totals[product.pair].append(made.total)
            digests |= {(region.name, name): digest for name, digest in read.digests.items()}
        return Found({pair: torch.stack(parts) for pair, parts in totals.items()}, sums, digests)

    def _prepared(self, reads: list[Read]) -> Compiled | None:
        """Kernels for the regions that they take; None where none are to be had."""
        if self._may_compile and self._kernels is None:
            found = compiler()
            self._may_compile = found is not None
            self._kernels = None if found is None else Compiled(found)
        if self._kernels is None:
            return None
        pairs = zip(self._regions, reads, strict=True)
        self._may_compile = self._kernels.prepare([pair for pair in pairs if Compiled.takes(*pair)])
        if not self._may_compile:
            self._kernels = None
        return self._kernels


class Viewed(Protocol):
    """A view of a step, as observers have it."""

    step: int

    def vector(self, name: str) -> Vector:
        """By its name in a pair."""
        ...


class Foresight(Protocol):
    """Who knows how an optimiser will move the parameters, and is held to it."""

    momentum: bool

    def stepping(self, view: Any) -> Stepping | None:
        """How each will be moved in the step of this view; None where it is not known."""
        ...

    def takes(self, found: Found) -> bool:
        """Are the vectors what the step before was to make of them? Then this step's are held to what was found."""
        ...


class Passes:
    """What the observers of a run have asked for: one pass before each step, one after it.

    Where it is known how the optimiser will move the parameters, both are one pass before the step, and nothing is read
    after it.

    Args:
        layout: of theta.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._asked: list[tuple[bool, Wanted, Collection[int], bool]] = []
        self._passes: dict[tuple[int, ...], tuple[Pass, list[str]]] = {}
        self._ahead: dict[tuple[int, ...], tuple[Pass, list[str], Ahead] | None] = {}
        self._known: dict[str, Callable[[Any], Vector]] = {}
        self._last: dict[bool, tuple[object, Found]] = {}
        self._foresight: Foresight | None = None

    def know(self, name: str, vector: Callable[[Any], Vector]) -> None:
        """A vector of a reader's own under a name: a function of the view of a step."""
        self._known[name] = vector

    def ask(
        self, wanted: Wanted, steps: Collection[int], *, after: bool = False, unless_foreseen: bool = False
    ) -> None:
        """Make these sums at these steps, before the step or after it.

        Args:
            unless_foreseen: not where the sums after the step are made before it.
        """
        self._asked.append((after, wanted, steps, unless_foreseen))

    def foresee(self, foresight: Foresight) -> None:
        """Make sums of after a step before it, wherever it is known how it will be."""
        self._foresight = foresight

    def retract(self) -> None:
        """The last step was not as foreseen: its sums of after it are made again."""
        self._last.pop(True, None)

    def of(self, view: Viewed, *, after: bool = False) -> Found:
        """All that was asked for of this step, made when it is first called for."""
        last = self._last.get(after)
        if last is None or last[0] is not view:
            if after or self._foresight is None or not self._made_ahead(view, self._foresight):
                self._last[after] = view, self._made(view, after)
        return self._last[after][1]

    def _made(self, view: Viewed, after: bool) -> Found:
        active = self._active(view, after)
        if active not in self._passes:
            wanted = self._wanted(active)
            self._passes[active] = Pass(self._layout, wanted), wanted.names
        made, names = self._passes[active]
        return made({name: self._vector(name, view) for name in names})

    def _made_ahead(self, view: Viewed, foresight: Foresight) -> bool:
        """Sums of before the step and after it; False where they are not to be had, or not to be relied on."""
        stepping = foresight.stepping(view)
        if stepping is None:
            return False
        before, after = (
            tuple(i for i in self._active(view, when) if not self._asked[i][3]) for when in (False, True)
        )
        active = (*before, *after)
        if active not in self._ahead:
            both = Ahead.of(self._wanted(before), self._wanted(after), momentum=foresight.momentum)
            self._ahead[active] = None if both is None else (Pass(self._layout, both.wanted), both.read, both)
        made = self._ahead[active]
        if made is None:
            return False
        found = made[0].ahead({name: self._vector(name, view) for name in made[1]}, stepping)
        if found is None:
            self._ahead[active] = None
            return False
        if not foresight.takes(found):
            return False
        self._last[False] = view, found
        self._last[True] = view, _of_after(found, self._wanted(after), made[2])
        return True

    def _active(self, view: Viewed, after: bool) -> tuple[int, ...]:
        return tuple(
            i for i, (when, _, steps, _) in enumerate(self._asked) if when == after and view.step in steps
        )

    def _wanted(self, active: tuple[int, ...]) -> Wanted:
        wanted = Wanted()
        for i in active:
            wanted |= self._asked[i][1]
        return wanted

    def _vector(self, name: str, view: Viewed) -> Vector:
        known = self._known.get(name)
        return view.vector(name) if known is None else known(view)


def _of_after(found: Found, wanted: Wanted, ahead: Ahead) -> Found:
    """What was asked for of after the step, by its own names."""
    return Found(
        {pair: found.totals[ahead.pair(pair)] for pair in wanted.totals},
        {one: found.sums[replace(one, pair=ahead.pair(one.pair))] for one in wanted.sums},
    )
