"""One pass over vectors of theta's size, and the passes that the observers of a run share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from nm_ode.parameters import Layout, Vector
from nm_ode.passes.compiled import WORTH_IT, Compiled, takes
from nm_ode.passes.compiler import compiler
from nm_ode.passes.eager import Eager
from nm_ode.passes.regions import Read, Region, regions_of
from nm_ode.passes.short import Short
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
        self._eager, self._short = Eager(chunk), Short(layout, wanted)
        self._may_compile = layout.size >= WORTH_IT if compiled is None else compiled
        self._may_be_short = compiled is None and chunk is None
        self._compiled: dict[tuple[Any, ...], Compiled] = {}

    @torch.no_grad()
    def __call__(self, vectors: Mapping[str, Vector]) -> Found:
        """Read the vectors.

        Args:
            vectors: each that is named in a pair or a copy.
        """
        short = self._short(vectors) if self._may_be_short else None
        if short is not None:
            return short
        reads = [Read.of(region, vectors) for region in self._regions]
        taken = self._taken(reads)
        if all(taken):
            kernels = self._kernels(self._regions, reads)
            if kernels is not None:
                return kernels(reads)
        found = [self._of_one(*each) for each in zip(self._regions, reads, taken, strict=True)]
        return Found(
            {
                pair: torch.cat([one.totals[pair] for one in found if pair in one.totals])
                for pair in self._totals
            },
            {asked: value for one in found for asked, value in one.sums.items()},
            {what: digest for one in found for what, digest in one.digests.items()},
        )

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
        kernels = self._kernels(self._regions, reads) if all(self._taken(reads)) else None
        return None if kernels is None else kernels(reads)

    def _of_one(self, region: Region, read: Read, taken: bool) -> Found:
        kernels = self._kernels([region], [read]) if taken else None
        if kernels is not None:
            return kernels([read])
        totals: dict[Pair, Tensor] = {}
        sums: dict[Sum, Tensor] = {}
        for product, reduced in zip(region.products, self._eager(region, read), strict=True):
            factor = read.factor(product.pair)
            made = reduced if factor == 1 else reduced.times(factor)
            kept = {axes: made.kept(axes, region.shape) for axes in product.axes}
            sums.update((asked, kept[asked.axes]) for asked in product.sums)
            if product.pair in region.totals:
                totals[product.pair] = made.total.reshape(1)
        return Found(totals, sums)

    def _taken(self, reads: list[Read]) -> list[bool]:
        """Which are such as kernels read?"""
        if not self._may_compile:
            return [False] * len(reads)
        return [takes(*pair) for pair in zip(self._regions, reads, strict=True)]

    def _kernels(self, regions: list[Region], reads: list[Read]) -> Compiled | None:
        """For these; None where none are to be had."""
        key = (*map(id, regions), *(read.kind for read in reads))
        if key not in self._compiled and self._may_compile:
            found = compiler()
            made = None if found is None else Compiled(found, regions, reads, self._totals)
            self._may_compile = made is not None and made.works
            if made is not None and made.works:
                self._compiled[key] = made
        return self._compiled.get(key)


class Viewed(Protocol):
    """A view of a step, as observers have it."""

    step: int

    def vector(self, name: str) -> Vector:
        """By its name in a pair."""
        ...


@dataclass(frozen=True)
class _Asked:
    """What one reader wants of the pass before a step, or of that after it."""

    wanted: Wanted
    steps: Collection[int]
    after: bool
    when: Callable[[Any], bool] | None

    def applies(self, view: Viewed) -> bool:
        return view.step in self.steps and (self.when is None or self.when(view))


class Foresight(Protocol):
    """Who knows how an optimiser will move the parameters, and is held to it."""

    momentum: bool

    def stepping(self, view: Any) -> Stepping | None:
        """How each will be moved in the step of this view; None where it is not known."""
        ...

    def takes(self, found: Found) -> bool:
        """Are the vectors what the step before was to make of them? Then this step's are held to what was found."""
        ...

    def decline(self) -> None:
        """No pass can make this step's sums before it."""
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
        self._asked: list[_Asked] = []
        self._passes: dict[tuple[int, ...], tuple[Pass, list[str]]] = {}
        self._ahead: dict[tuple[int, ...], tuple[Pass, list[str], Ahead] | None] = {}
        self._known: dict[str, Callable[[Any], Vector]] = {}
        self._after: dict[str, str] = {}
        self._last: dict[bool, tuple[object, Found]] = {}
        self._foresight: Foresight | None = None

    def know(self, name: str, vector: Callable[[Any], Vector], *, after: str | None = None) -> None:
        """A vector of a reader's own under a name: a function of the view of a step.

        Args:
            after: which vector of before the step it is after it.
        """
        self._known[name] = vector
        if after is not None:
            self._after[name] = after

    def ask(
        self,
        wanted: Wanted,
        steps: Collection[int],
        *,
        after: bool = False,
        when: Callable[[Any], bool] | None = None,
    ) -> None:
        """Make these sums at these steps, before the step or after it.

        Args:
            when: of the view of a step: only where it is true.
        """
        self._asked.append(_Asked(wanted, steps, after, when))

    def foresee(self, foresight: Foresight) -> None:
        """Make sums of after a step before it, wherever it is known how it will be."""
        self._foresight = foresight

    def retract(self) -> None:
        """The last step was not as foreseen: its sums of after it are made again."""
        self._last.pop(True, None)

    def of(self, view: Viewed, *, after: bool = False) -> Found:
        """All that was asked for of this step, made when it is first called for."""
        last = self._last.get(after)
        if last is not None and last[0] is view:
            return last[1]
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
        """Sums of before the step, and those of after it that can be relied on; False where none are to be had."""
        stepping = foresight.stepping(view)
        if stepping is None:
            return False
        before, after = self._active(view, False), self._active(view, True)
        active = (*before, *after)
        if active not in self._ahead:
            both = Ahead.of(
                self._wanted(before), self._wanted(after), self._after, momentum=foresight.momentum
            )
            self._ahead[active] = None if both is None else (Pass(self._layout, both.wanted), both.read, both)
        made, found = self._ahead[active], None
        if made is not None:
            found = made[0].ahead({name: self._vector(name, view) for name in made[1]}, stepping)
        if made is None or found is None:
            self._ahead[active] = None
            foresight.decline()
            return False
        self._last[False] = (
            view,
            found,
        )  # whatever comes of the step, this was read, and copied over what was read
        if foresight.takes(found):
            self._last[True] = view, _of_after(found, self._wanted(after), made[2])
        return True

    def _active(self, view: Viewed, after: bool) -> tuple[int, ...]:
        return tuple(i for i, one in enumerate(self._asked) if one.after == after and one.applies(view))

    def _wanted(self, active: tuple[int, ...]) -> Wanted:
        wanted = Wanted()
        for i in active:
            wanted |= self._asked[i].wanted
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
