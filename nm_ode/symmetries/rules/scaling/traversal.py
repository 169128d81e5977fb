"""Forward through the graph with a factor for every entry of every tensor, by what each operation is declared to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.ended import ended
from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.labels import NONE, compressed, is_move, move, placed
from nm_ode.symmetries.lookups import open_dims, place_of_index
from nm_ode.symmetries.operations import operation, value
from nm_ode.symmetries.reached import reached
from nm_ode.symmetries.refusals import ruled
from nm_ode.symmetries.rules.scaling.uses import Term, Use, moves_nothing, reconciled
from nm_ode.symmetries.rules.scaling.variables import ZERO, Free, Variables
from nm_ode.symmetries.rules.weights import Weight, described, moved_weight, placeholder_view

Rule: TypeAlias = Callable[["ScalingTraversal", Node], Any]
"""From an operation to the variables of its result; None where nothing may be multiplied."""


class _Any(Enum):
    """Of a tensor that is zero: it may take any factor, another one wherever it is read."""

    ANY = "any"


ANY = _Any.ANY


@dataclass(frozen=True, eq=False)
class EpsilonTerm:
    """An ε that is added to what scales: it breaks the symmetry, by a known amount.

    Attributes:
        node: a normalisation, which takes away the factor of what enters it; or a sum with a small number.
        variables: of the groups (channels, or samples and positions), or of the entries of the sum.
        power: the ε stands beside the factor to this power: 2 beside a variance.
        epsilon: its size.
    """

    node: Node
    variables: Tensor
    power: float
    epsilon: float


@dataclass
class ScalingTraversal:
    """Forward through the graph; what the rules collect on the way is in `variables`, `uses` and `epsilons`."""

    graph: Graph
    rules: Mapping[str, Rule]
    by_table: Rule
    variables: Variables = field(default_factory=Variables)
    uses: list[Use] = field(default_factory=list)
    epsilons: list[EpsilonTerm] = field(default_factory=list)
    _values: dict[Node, Any] = field(default_factory=dict)
    _elementwise: dict[Node, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reached = reached(self.graph)
        self.live = frozenset(self.reached.read)

    def run(self) -> Free:
        """Go through the graph, and solve."""
        for node, name in self.graph.parameters.items():
            self._values[node] = Weight(name, placeholder_view(node), frozen=False)
        for node in self.graph.frozen:
            self._values[node] = Weight(str(node), placeholder_view(node), frozen=True)
        self._values |= dict.fromkeys(self.reached.zeros, ANY)
        for node in self.reached.read:
            with ruled("scale and rescale", node, self.rules.get(operation(node))):
                self._values[node] = self._result(node)
        self.variables.zero(self._read(self.graph.loss))
        self.uses = reconciled(self.variables, self.uses)
        return self._solved()

    def _solved(self) -> Free:
        """What moves nothing is no symmetry, and is set to zero."""
        if any(len(use.terms) > 1 for use in self.uses):
            still = self.variables.copy()
            moves_nothing(still, self.uses)
            idle = still.solve().free
            self.variables.zero(torch.from_numpy(idle))
        return self.variables.solve()

    def _result(self, node: Node) -> Any:
        if node in self.reached.zeros:
            return ANY if isinstance(value(node), Tensor) else [ANY for _ in value(node)]
        if not any(self._depends(needed) for needed in node.all_input_nodes):
            return None  # data: factor zero, read when asked for
        if is_move(node):
            return self._moved(node)
        rule = self.rules.get(operation(node), self.by_table)
        result = rule(self, node)
        return self.unknown(node) if result is None else result

    def _depends(self, node: Node) -> bool:
        return self._values.get(node) is not None

    def _moved(self, node: Node) -> Any:
        dims = open_dims(self.graph, node)
        if dims:
            return self._looked_up(node, dims)
        first = node.args[0]
        if isinstance(first, Node) and isinstance(self._values.get(first), Weight):
            moved = moved_weight(node, self._values[first])
            if moved is not None:
                return moved
        return move(node, self._read_to_move)

    def unknown(self, node: Node) -> Any:
        """Nothing may be multiplied that enters here."""
        ended(node)
        for needed in node.all_input_nodes:
            self.still(needed)
        result = value(node)
        if isinstance(result, tuple | list):
            return tuple(zeros(part) if part is not None else None for part in result)
        return zeros(result)

    def still(self, node: Node) -> None:
        """It takes no factor."""
        found = self._values.get(node)
        for labels in found if isinstance(found, tuple | list) else [found]:
            if isinstance(labels, Weight):
                self.variables.zero(self._entries(node, labels))
            elif isinstance(labels, Tensor):
                self.variables.zero(labels)

    def is_data(self, node: Any) -> bool:
        """Is its factor one whatever the parameters' are?"""
        found = self._values.get(node) if isinstance(node, Node) else None
        return found is None or (isinstance(found, Weight) and found.frozen)

    def is_zero(self, node: Any) -> bool:
        """Is it a tensor of zeros, which may take any factor?"""
        return isinstance(node, Node) and self._values.get(node) is ANY

    def _read(self, node: Any) -> Any:
        """Variables of a node's entries; zeros for data."""
        found = self._values.get(node)
        if isinstance(found, Weight):
            return self._entries(node, found)
        if found is ANY:
            shape = tuple(value(node).shape)
            return self.variables.new(prod(shape)).reshape(shape)
        return zeros(value(node)) if found is None else found

    def _looked_up(self, node: Node, dims: tuple[int, ...]) -> Any:
        """The batch says what is read along some dimensions: all entries along them have one factor."""
        first = node.args[0]
        if not isinstance(first, Node) or isinstance(value(first), tuple | list):
            return self.unknown(node)
        labels = self.tied(first, dims)
        return move(node, lambda needed: labels if needed is first else self._read_to_move(needed))

    def tied(self, node: Node, dims: tuple[int, ...]) -> Tensor:
        """Variables of an operand whose entries have one factor along some dimensions."""
        shape = tuple(value(node).shape)
        keep = tuple(dim for dim in range(len(shape)) if dim not in dims)
        return placed(self.merged(node, keep), keep, len(shape)).expand(shape)

    def merged(self, node: Node, keep: tuple[int, ...]) -> Tensor:
        """Variables of an operand whose entries have one factor but along these dimensions, in their shape."""
        shape = tuple(value(node).shape)
        sizes = [shape[dim] for dim in keep]
        weight = self.weight(node)
        if weight is not None:
            kept = self.variables.new(prod(sizes))
            self.uses.append(Use(described(weight.name, weight.view), (Term(keep, kept, 1.0),)))
            return kept.reshape(sizes)
        if self.is_zero(node):
            return self.variables.new(prod(sizes)).reshape(sizes)
        return self.variables.merge(self.labels(node), keep)

    def _read_to_move(self, node: Any) -> Any:
        index = place_of_index(self.graph, node)
        return self._read(node) if index is None else index

    def labels(self, argument: Any) -> Tensor:
        """Variables of an operand: a node, or a number (zero)."""
        if isinstance(argument, Node):
            found = self._read(argument)
            assert isinstance(found, Tensor)
            return found
        return torch.tensor(ZERO)

    def weight(self, node: Any) -> Weight | None:
        """The trainable parameter that a node is a view of, if it is."""
        found = self._values.get(node) if isinstance(node, Node) else None
        return found if isinstance(found, Weight) and not found.frozen else None

    def _entries(self, node: Node, weight: Weight) -> Tensor:
        """A parameter used entry by entry: a variable each."""
        if weight.frozen:
            return zeros(weight.view)
        if node not in self._elementwise:
            made = self.variables.new(weight.view.numel())
            self._elementwise[node] = made.reshape(weight.view.shape)
            axes = tuple(range(weight.view.ndim))
            self.uses.append(Use(described(weight.name, weight.view), (Term(axes, made, 1.0),)))
        return self._elementwise[node]

    def with_zeros(self, labels: Tensor) -> Tensor:
        """Entries without a label (−1) are zero, and each takes any factor."""
        made = labels.clone()
        holes = made == NONE
        made[holes] = self.variables.new(int(holes.sum()))
        return made

    def absorb(self, node: Node, groups: Tensor, epsilon: float) -> None:
        """A normalisation takes away the factors of `groups`, but for its ε beside their square."""
        for dim in range(groups.ndim):
            if self.variables.uniform(groups, dim):  # so that it broadcasts over batches of any size
                groups = groups.narrow(dim, 0, 1)
        self.epsilons.append(EpsilonTerm(node, groups, 2.0, epsilon))

    def beside(self, node: Node, epsilon: float) -> Tensor:
        """A small number is added to the first tensor among the arguments."""
        (one,) = node.all_input_nodes
        labels = self.labels(one)
        self.epsilons.append(EpsilonTerm(node, compressed(labels), 1.0, epsilon))
        return labels


def zeros(like: Any) -> Tensor:
    """Labels of a tensor that may not be multiplied."""
    return torch.zeros((), dtype=torch.int64).expand(tuple(like.shape))
