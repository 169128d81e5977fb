"""Forward through the graph with the shift of every tensor, by a rule for each operation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.ended import ended
from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.labels import compressed, is_copy, is_move, move
from nm_ode.symmetries.lookups import is_pure, open_dims, place_of_index
from nm_ode.symmetries.operations import operation, value
from nm_ode.symmetries.operations.contractions import in_inner_product
from nm_ode.symmetries.reached import reached
from nm_ode.symmetries.refusals import ruled
from nm_ode.symmetries.rules.translation.shifts import (
    MOST_ROWS,
    Shift,
    Term,
    constant,
    content,
    forbid,
    lean,
    numbered,
    same,
    tied,
    varying,
)
from nm_ode.symmetries.rules.translation.system import ZERO, System
from nm_ode.symmetries.rules.translation.uses import Uses
from nm_ode.symmetries.rules.weights import Weight, moved_weight, placeholder_view

Rule: TypeAlias = Callable[["ShiftTraversal", Node], Any]
"""From an operation to the shift of its result (a tuple of several); None where nothing that enters may shift."""


@dataclass
class ShiftTraversal:
    """Forward through the graph; the equations are in `system`, what parameters do in `uses`.

    Attributes:
        apart: what different parameters do never adds up: only what each may do alone is found.
    """

    graph: Graph
    rules: Mapping[str, Rule]
    by_table: Rule
    apart: bool
    system: System = field(default_factory=System)
    uses: Uses = field(init=False)
    _values: dict[Node, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reached = reached(self.graph)
        self.uses = Uses(self.system, {name: i for i, name in enumerate(self.graph.parameters.values())})

    def run(self) -> None:
        """Go through the graph: the loss may not shift."""
        for node, name in self.graph.parameters.items():
            self._values[node] = Weight(name, placeholder_view(node), frozen=False)
        for node in self.reached.read:
            with ruled("translation", node, self.rules.get(operation(node))):
                self._values[node] = self._as_read(node, self._result(node))
        forbid(self.system, self.read(self.graph.loss))

    def _result(self, node: Node) -> Any:
        if node in self.reached.zeros or not any(map(self.depends, node.all_input_nodes)):
            return None  # zero, or data
        if operation(node) == "getitem" and isinstance(node.args[0], Node):
            parts = self._values[node.args[0]]
            if isinstance(parts, tuple):
                return parts[node.args[1]]  # type: ignore[index]
        if is_move(node):
            return self._moved(node)
        if in_inner_product(node) and operation(next(iter(node.users))) == "sum":
            return []  # what reads it looks at the factors; a mean's rule looks at the product
        result = self.rules.get(operation(node), self.by_table)(self, node)
        return self.unknown(node) if result is None else result

    def _as_read(self, node: Node, found: Any) -> Any:
        """What nothing reads may shift as it likes."""
        mask = self.reached.partly.get(node)
        if mask is None or not isinstance(found, list):
            return found
        return [replace(term, labels=torch.where(mask, term.labels, ZERO)) for term in found]

    def depends(self, node: Any) -> bool:
        """Is it made of parameters that are trained?"""
        return isinstance(node, Node) and self._values.get(node) is not None

    def unknown(self, node: Node) -> Any:
        """Nothing may shift that enters here."""
        ended(node)
        for needed in node.all_input_nodes:
            self.hold(needed)
        result = value(node)
        return tuple([] for _ in result) if isinstance(result, tuple | list) else []

    def hold(self, node: Any) -> None:
        """A tensor may not shift."""
        found = self._values.get(node) if isinstance(node, Node) else None
        for part in found if isinstance(found, tuple) else (found,):
            if isinstance(part, Weight):
                self.uses.hold(part)
            elif part is not None:
                forbid(self.system, part)

    def read(self, node: Any) -> Shift:
        """The shift of a tensor; of a number, none."""
        found = self._values.get(node) if isinstance(node, Node) else None
        if isinstance(found, Weight):
            labels = self.uses.entries(found)
            return [] if labels is None else [constant(labels, self.owner(found))]
        return [] if found is None else list(found)

    def weight(self, node: Any) -> Weight | None:
        """The parameter that a node is a view of, if it is."""
        found = self._values.get(node) if isinstance(node, Node) else None
        return found if isinstance(found, Weight) else None

    def owner(self, weight: Weight) -> str:
        return weight.name if self.apart else ""

    def identity(self, node: Node, moved: bool) -> Hashable:
        """What a tensor's numbers are: two of equal identity have equal numbers.

        Args:
            moved: as they are after the shift, not before.
        """
        while is_copy(node) and isinstance(node.args[0], Node):
            node = node.args[0]
        weight = self.weight(node)
        what: Hashable = node
        if weight is not None:
            view = weight.view
            what = weight.name, tuple(view.shape), view.stride(), view.storage_offset()
        return what, moved and self.depends(node)

    def _moved(self, node: Node) -> Any:
        dims = open_dims(self.graph, node)
        first = node.args[0]
        if dims:
            return self._looked_up(node, dims)
        weight = self.weight(first)
        if weight is not None:
            moved = moved_weight(node, weight)
            if moved is not None:
                return tuple(moved) if isinstance(moved, list) else moved
        sources = {n: self.read(n) for n in node.all_input_nodes if self.depends(n)}
        kinds: dict[Any, None] = {}  # the i-th term of a kind of one source goes with the i-th of another
        named: dict[Node, dict[Any, Term]] = {}
        for source, shift in sources.items():
            named[source] = {}
            for term in shift:
                i = sum(kind[:-1] == term.kind for kind in named[source])
                named[source][(*term.kind, i)] = term
                kinds[(*term.kind, i)] = None
        several = isinstance(value(node), tuple | list)
        found: list[Shift] = [[] for _ in value(node)] if several else [[]]
        for kind in kinds:
            parts = [
                self._carried(
                    node,
                    {source: getattr(terms[kind], of) for source, terms in named.items() if kind in terms},
                )
                for of in ("rows", "labels")
            ]
            for i, (rows, labels) in enumerate(zip(*parts, strict=True)):
                row, owner, size, _ = kind
                found[i].append(Term(row, owner, size, lean(rows), lean(labels)))
        return tuple(found) if several else found[0]

    def _carried(self, node: Node, given: Mapping[Node, Tensor]) -> list[Tensor]:
        """A move carried out on labels; what has none has zeros."""

        def read(n: Any) -> Any:
            if n in given:
                return given[n]
            index = place_of_index(self.graph, n)
            if index is not None:
                return index
            found = value(n)
            return same(found.shape) if isinstance(found, Tensor) else found

        result = move(node, read)
        return list(result) if isinstance(result, tuple | list) else [result]

    def _looked_up(self, node: Node, dims: tuple[int, ...]) -> Any:
        """The batch says what is read along some dimensions.

        What shifts alike along them shifts so wherever it is read; and a parameter's place along them is a row of its
        own, of zeros and a one, which says what is read.
        """
        source = node.args[0]
        if not isinstance(source, Node) or isinstance(value(node), tuple | list):
            return self.unknown(node)
        for needed in node.all_input_nodes[1:]:
            if needed is not source:
                self.hold(needed)
        shape = tuple(value(source).shape)
        weight = self.weight(source)
        if weight is not None:
            owner, found = self.owner(weight), []
            used = self.uses.looked_up(weight, dims)
            (plain,) = self._carried(node, {source: used.plain})
            found.append(constant(lean(plain), owner))
            if is_pure(self.graph, node):
                keep = numbered(shape, [dim for dim in range(len(shape)) if dim not in dims])
                (kept,) = self._carried(node, {source: keep})
                (labels,) = self._carried(node, {source: used.single})
                places = [dim for dim in range(kept.ndim) if dim not in varying(kept)]
                # A slice's ends that were made of sizes are another batch's own.
                how = node if node in self.graph.sized else (operation(node), _plain(node.args[1:]))
                row = "place", how, dims, tuple(shape[dim] for dim in dims)
                rows = numbered(kept.shape, places)
                found.append(Term(row, owner, used.size, rows, lean(labels)))
            return found
        found = []
        for term in self.read(source):
            own = set(varying(term.rows))
            if own & set(dims):  # whose rows are read, the batch says
                found += self._rows_looked_up(node, source, term, dims)
                continue
            labels = tied(self.system, term.labels, dims).expand(shape)
            (rows,), (labels,) = (self._carried(node, {source: part}) for part in (term.rows, labels))
            found.append(replace(term, rows=lean(rows), labels=lean(labels)))
        return found

    def _rows_looked_up(self, node: Node, source: Node, term: Term, dims: tuple[int, ...]) -> Shift:
        """Of one unknown along the dimensions, with other rows, wherever they are read from."""
        shape = tuple(value(source).shape)
        if not is_pure(self.graph, node):
            self.system.zero(term.labels)
            return []
        labels = tied(self.system, term.labels, dims).expand(shape)
        others = [dim for dim in range(len(shape)) if dim not in dims]
        left = set(varying(term.rows)) - set(dims)
        (labels,), (kept,), (rows,) = (
            self._carried(node, {source: part})
            for part in (labels, numbered(shape, others), numbered(shape, left))
        )
        along = set(range(kept.ndim)) - set(varying(kept)) | set(varying(rows))
        if prod(kept.shape[dim] for dim in along) == kept.numel() > MOST_ROWS:
            self.system.zero(term.labels)
            return []
        row = "read", node, term.row, content(term.rows)
        return [replace(term, row=row, rows=numbered(kept.shape, along), labels=lean(labels))]

    def packed(self, labels: Tensor, dims: tuple[int, ...], sizes: tuple[int, ...]) -> Tensor:
        """Unknowns along some dimensions (of these sizes) as vectors: shape with a 1 there."""
        ndim = labels.ndim
        keep = [dim for dim in range(ndim) if dim not in dims]
        labels = compressed(labels, dims)
        shape = [sizes[dims.index(dim)] if dim in dims else n for dim, n in enumerate(labels.shape)]
        vectors = labels.expand(shape).permute(*keep, *dims).reshape(-1, prod(sizes))
        made = self.uses.vectors(vectors)
        return made.reshape([1 if dim in dims else shape[dim] for dim in range(ndim)])


def _plain(arguments: Any) -> Hashable:
    """Arguments as something that can be compared."""
    if isinstance(arguments, list | tuple):
        return tuple(_plain(part) for part in arguments)
    return arguments if isinstance(arguments, Hashable) else repr(arguments)
