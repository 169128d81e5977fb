"""Forward through the graph with a factor for every entry of every tensor, by a rule for each operation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.labels import is_move, move
from nm_ode.symmetries.lookups import open_dims, place_of_index
from nm_ode.symmetries.operations import argument, operation, value
from nm_ode.symmetries.rules.scaling.variables import ZERO, Free, Variables
from nm_ode.symmetries.rules.weights import Weight, described, moved_weight, overlap, placeholder_view
from nm_ode.symmetries.symmetry import View

Rule: TypeAlias = Callable[["ScalingTraversal", Node], Any]
"""From an operation to the variables of its result; None where nothing may be multiplied."""


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
    variables: Variables = field(default_factory=Variables)
    uses: list[Use] = field(default_factory=list)
    epsilons: list[EpsilonTerm] = field(default_factory=list)
    _values: dict[Node, Any] = field(default_factory=dict)
    _elementwise: dict[Node, Tensor] = field(default_factory=dict)

    def run(self) -> Free:
        """Go through the graph, and solve."""
        for node, name in self.graph.parameters.items():
            self._values[node] = Weight(name, placeholder_view(node), frozen=False)
        for node in self.graph.frozen:
            self._values[node] = Weight(str(node), placeholder_view(node), frozen=True)
        for node in self.graph.operations:
            self._values[node] = self._result(node)
        self.variables.zero(self._read(self.graph.loss))
        self._reconcile()
        return self.variables.solve()

    def _result(self, node: Node) -> Any:
        if not any(self._depends(needed) for needed in node.all_input_nodes):
            return None  # data: factor zero, read when asked for
        if is_move(node):
            dims = open_dims(self.graph, node)
            if dims:
                return self._looked_up(node, dims)
            first = node.args[0]
            if isinstance(first, Node) and isinstance(self._values.get(first), Weight):
                moved = moved_weight(node, self._values[first])
                if moved is not None:
                    return moved
            return move(node, self._read_to_move)
        rule = self.rules.get(operation(node))
        result = rule(self, node) if rule is not None else None
        return self.unknown(node) if result is None else result

    def _depends(self, node: Node) -> bool:
        return self._values.get(node) is not None

    def unknown(self, node: Node) -> Any:
        """Nothing may be multiplied that enters here."""
        for needed in node.all_input_nodes:
            found = self._values.get(needed)
            for labels in found if isinstance(found, tuple | list) else [found]:
                if labels is not None:
                    self.variables.zero(self._read(needed) if isinstance(labels, Weight) else labels)
        result = value(node)
        if isinstance(result, tuple | list):
            return tuple(zeros(part) if part is not None else None for part in result)
        return zeros(result)

    def _read(self, node: Any) -> Any:
        """Variables of a node's entries; zeros for data."""
        found = self._values.get(node)
        if isinstance(found, Weight):
            return self._entries(node, found)
        return zeros(value(node)) if found is None else found

    def _looked_up(self, node: Node, dims: tuple[int, ...]) -> Any:
        """The batch says what is read along some dimensions: all entries along them have one factor."""
        first = node.args[0]
        if not isinstance(first, Node) or isinstance(value(first), tuple | list):
            return self.unknown(node)
        keep = tuple(dim for dim in range(value(first).ndim) if dim not in dims)
        shape = tuple(value(first).shape)
        weight = self.weight(first)
        if weight is not None:
            kept = self.variables.new(prod(shape[dim] for dim in keep))
            self.uses.append(Use(described(weight.name, weight.view), (Term(keep, kept, 1.0),)))
        else:
            kept = self.variables.merge(self.labels(first), keep)
        labels = kept.reshape([n if dim in keep else 1 for dim, n in enumerate(shape)]).expand(shape)
        return move(node, lambda needed: labels if needed is first else self._read_to_move(needed))

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

    def absorb(self, node: Node, groups: Tensor) -> None:
        """A normalisation takes away the factors of `groups`, but for its ε beside their square."""
        epsilon = argument(node, "eps")
        if epsilon is None:  # rms_norm's default
            epsilon = torch.finfo(torch.float64).eps
        for dim in range(groups.ndim):
            if self.variables.uniform(groups, dim):  # so that it broadcasts over batches of any size
                groups = groups.narrow(dim, 0, 1)
        self.epsilons.append(EpsilonTerm(node, groups, 2.0, float(epsilon)))

    def _reconcile(self) -> None:
        """A parameter used in several places must take the same factor in each."""
        by_name: dict[str, list[Use]] = defaultdict(list)
        for use in self.uses:
            by_name[use.view.parameter].append(use)
        for uses in by_name.values():
            for i, first in enumerate(uses):
                for second in uses[i + 1 :]:
                    if not overlap(first.view, second.view):
                        continue
                    same = first.view == second.view and [
                        (term.axes, term.coefficient) for term in first.terms
                    ] == [(term.axes, term.coefficient) for term in second.terms]
                    for a, b in zip(first.terms, second.terms, strict=False):
                        if same:
                            self.variables.equal(a.variables, b.variables)
                    if not same:
                        for term in (*first.terms, *second.terms):
                            self.variables.zero(term.variables)


def zeros(like: Any) -> Tensor:
    """Labels of a tensor that may not be multiplied."""
    return torch.zeros((), dtype=torch.int64).expand(tuple(like.shape))
