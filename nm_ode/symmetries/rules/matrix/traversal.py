"""Forward through the graph with the coordinates of linear bottlenecks, by a rule for each operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.ended import ended
from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.labels import NONE
from nm_ode.symmetries.operations import operation, value
from nm_ode.symmetries.operations.contractions import in_inner_product
from nm_ode.symmetries.reached import reached
from nm_ode.symmetries.refusals import ruled
from nm_ode.symmetries.rules.matrix.conditions import Conditions
from nm_ode.symmetries.rules.matrix.coordinates import Labels, numbered, one_vector, together, varies, zeros
from nm_ode.symmetries.rules.matrix.sides import Sides
from nm_ode.symmetries.rules.weights import Weight, placeholder_view

Rule: TypeAlias = Callable[["CoordinateTraversal", Node], Any]
"""From an operation to the labels of its result: `Labels`, a `Weight`, a list of these for several results, or None,
where nothing of it is a coordinate. A rule says itself what may then not be mixed."""


@dataclass
class CoordinateTraversal:
    """Forward through the graph; what the rules collect on the way is in `sides` and `conditions`."""

    graph: Graph
    rule_of: Callable[[Node], Rule | None]
    sides: Sides = field(default_factory=Sides)
    conditions: Conditions = field(default_factory=Conditions)
    values: dict[Node, Any] = field(default_factory=dict)
    numbers: dict[Node, int] = field(default_factory=dict)

    def run(self) -> None:
        """Go through the graph."""
        for node, name in self.graph.parameters.items():
            self.values[node] = Weight(name, placeholder_view(node), frozen=False)
        self.numbers = {node: i for i, node in enumerate(self.graph.operations)}
        live = reached(self.graph)
        self.values |= {node: _zeros_like(value(node)) for node in live.zeros}
        done = _last_uses(live.read)
        for node in live.read:
            if _is_empty(node) or node in live.zeros:
                continue  # nothing of it is anything
            rule = self.rule_of(node)
            with ruled("matrix", node, rule):
                found = self.forbid(node) if rule is None else rule(self, node)
            if isinstance(found, Labels) and not found.live and not found.zero:
                found = None
            if found is not None:
                self.values[node] = found
            for needed in done.get(node, ()):
                self.values.pop(needed, None)  # labels are as large as what they are of may be
        self.forbid_value(self.values.get(self.graph.loss))
        self.conditions.forbidden += self.sides.forbidden()

    def known(self, node: Any) -> Any:
        """What is known of an argument: `Labels`, a `Weight`, a list, or None."""
        return self.values.get(node) if isinstance(node, Node) else None

    def weight(self, node: Any) -> Weight | None:
        """The trainable parameter that a node is a view of, if it is."""
        found = self.known(node)
        return found if isinstance(found, Weight) else None

    def labels(self, node: Any) -> Labels | None:
        """Labels of a node that is no parameter's view."""
        found = self.known(node)
        return found if isinstance(found, Labels) else None

    def forbid(self, node: Node, why: str = "") -> Any:
        """What enters here may not be mixed, and nothing of the result is a coordinate.

        Args:
            why: half a sentence, where more is known than that no rule is.
        """
        ended(node, why)
        for needed in node.all_input_nodes:
            self.forbid_value(self.known(needed))

    def end(self, node: Node, needed: Node, why: str) -> None:
        """This one may not be mixed that enters here."""
        ended(node, why, inputs=[needed])
        self.forbid_value(self.known(needed))

    def forbid_value(self, found: Any) -> None:
        """Nor what this is."""
        for part in found if isinstance(found, list | tuple) else [found]:
            if isinstance(part, Weight):
                self.sides.use(part)
            elif isinstance(part, Labels):
                self.conditions.forbid(part)

    def fresh(self, node: Node, shape: Sequence[int], dims: Sequence[int]) -> Tensor:
        """A vector of its own at each place along some dimensions of an operation's result."""
        return self.fibre(node, numbered(tuple(shape), tuple(dims)))

    def fibre(self, node: Node, *numbers: Tensor) -> Tensor:
        """A vector of its own for each combination of numbers."""
        return together(self.numbers[node], *numbers)

    def of_weight(self, node: Node, weight: Weight, axes: Sequence[int]) -> Labels:
        """A parameter as a tensor of vectors, whose coordinates lie along some axes."""
        shape = tuple(weight.view.shape)
        axes = tuple(axes)
        (coordinates,) = self.sides.use(weight, axes)
        side = coordinates.min() if coordinates.numel() else torch.zeros((), dtype=torch.int64)
        for dim in range(len(shape)):
            if dim not in axes:
                coordinates = coordinates.unsqueeze(dim)
        places = numbered(shape, tuple(dim for dim in range(len(shape)) if dim not in axes))
        return Labels(coordinates.expand(shape), self.fibre(node, side, places))

    def as_tensor(self, node: Node, needed: Any, like: Labels | None = None) -> Labels | None:
        """An argument as a tensor: a parameter's coordinates lie along the dimensions of those that it meets.

        Args:
            like: of what it meets, broadcast from the last dimension.
        """
        weight = self.weight(needed)
        if weight is None:
            return self.labels(needed)
        shape = tuple(weight.view.shape)
        if like is None:
            axes: tuple[int, ...] = self._usual_axis(node, shape)
        else:
            met = {dim - len(like.shape) for dim in varies(like.coordinates)}
            axes = tuple(dim for dim, n in enumerate(shape) if n > 1 and dim - len(shape) in met)
            if len(axes) < len(met):
                axes = ()
        if not axes:
            self.sides.use(weight)
            return None
        return self.of_weight(node, weight, axes)

    def _usual_axis(self, node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The rows of what a layer then takes for its weight, else the last axis."""
        if not shape:
            return ()
        weights = any(
            operation(user) == "linear" and len(user.args) > 1 and user.args[1] is node for user in node.users
        )
        return (0,) if weights and len(shape) == 2 else (len(shape) - 1,)


def _zeros_like(found: Any) -> Labels | list[Labels]:
    if isinstance(found, tuple | list):
        return [zeros(tuple(int(n) for n in part.shape)) for part in found]
    return zeros(tuple(int(n) for n in found.shape))


def _is_empty(node: Node) -> bool:
    found = value(node)
    return isinstance(found, Tensor) and found.numel() == 0


def unmixed(node: Any) -> Labels:
    """Labels of a tensor of which nothing is a coordinate."""
    return one_vector(torch.full((), NONE).expand(tuple(value(node).shape)))


def _last_uses(operations: Sequence[Node]) -> Mapping[Node, list[Node]]:
    """For each operation what is not needed after it."""
    place = {node: i for i, node in enumerate(operations)}
    last: dict[Node, Node] = {}
    for node in operations:
        # A product that is summed is looked at with its sum.
        at = next(iter(node.users)) if in_inner_product(node) else node
        for needed in node.all_input_nodes:
            last[needed] = max(last.get(needed, at), at, key=place.__getitem__)
    found: dict[Node, list[Node]] = {}
    for needed, node in last.items():
        found.setdefault(node, []).append(needed)
    return found
