"""Forward through the graph with a number for each coordinate of a linear bottleneck."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.labels import NONE, compressed, is_move, move, one_for_each
from nm_ode.symmetries.lookups import open_dims, place_of_index
from nm_ode.symmetries.operations import argument, operation, value
from nm_ode.symmetries.rules.matrix.coordinates import Consumer, Coordinates, Producer
from nm_ode.symmetries.rules.weights import Weight, described, moved_weight, placeholder_view
from nm_ode.symmetries.symmetry import View


@dataclass
class CoordinateTraversal:
    """Forward through the graph; `run` gives what has been collected of the coordinates."""

    graph: Graph
    _values: dict[Node, Any] = field(default_factory=dict)
    _count: int = 0
    _producers: list[Producer] = field(default_factory=list)
    _consumers: list[Consumer] = field(default_factory=list)
    _forbidden: set[int] = field(default_factory=set)
    _links: list[tuple[int, int, int]] = field(default_factory=list)
    _contractions: list[dict[int, int]] = field(default_factory=list)
    _uses: dict[str, list[View]] = field(default_factory=lambda: defaultdict(list))

    def run(self) -> Coordinates:
        """Go through the graph."""
        for node, name in self.graph.parameters.items():
            self._values[node] = Weight(name, placeholder_view(node), frozen=False)
        for node in self.graph.operations:
            self._values[node] = self._result(node)
        return Coordinates(
            self._count,
            tuple(self._producers),
            tuple(self._consumers),
            frozenset(self._forbidden),
            tuple(self._links),
            tuple(self._contractions),
            self._uses,
        )

    def _result(self, node: Node) -> Any:
        first = node.args[0] if node.args else None
        found = self._values.get(first) if isinstance(first, Node) else None
        if is_move(node):
            if isinstance(found, Weight):
                moved = moved_weight(node, found)
                if moved is not None:
                    return moved
            elif self._may_move(node) and (
                any(self._coordinates(n) is not None for n in node.all_input_nodes)
                or isinstance(found, list | tuple)
            ):
                return move(node, self._read_to_move)
            self._forbid(node)
            return None
        name = operation(node)
        if name in ("mul", "div") and isinstance(node.args[1], float | int):
            return self._coordinates(first)
        if name == "dropout" and not (argument(node, "train") and argument(node, "p") > 0):
            return self._coordinates(first)
        if name == "neg":
            return self._coordinates(first)
        if name == "add" and all(isinstance(part, Node) for part in node.args[:2]):
            return self._sum(node)
        if name == "linear":
            return self._linear(node, node.args[1], argument(node, "bias"), transposed=True)
        if name in ("mm", "bmm", "matmul"):
            if self._is_weight(node.args[1]):
                return self._linear(node, node.args[1], None, transposed=False)
            return self._product(node, node.args[0], node.args[1])
        if name == "scaled_dot_product_attention" and not argument(node, "enable_gqa", False):
            return self._attention(node)
        self._forbid(node)
        return None

    def _is_weight(self, node: Any) -> bool:
        return isinstance(node, Node) and isinstance(self._values.get(node), Weight)

    def _coordinates(self, node: Any) -> Tensor | None:
        found = self._values.get(node) if isinstance(node, Node) else None
        return found if isinstance(found, Tensor) else None

    def _may_move(self, node: Node) -> bool:
        """Where the batch says what is read, all that it could read must be the same coordinates."""
        dims = open_dims(self.graph, node)
        x = self._coordinates(node.args[0])
        if not dims or x is None:
            return not dims
        return self._uniform(x, tuple(dim for dim in range(x.ndim) if dim not in dims)) is not None

    def _read_to_move(self, node: Any) -> Any:
        index = place_of_index(self.graph, node)
        if index is not None:
            return index
        found = self._values.get(node)
        if isinstance(found, Tensor | list | tuple):
            return found
        return torch.full((), NONE).expand(tuple(value(node).shape))

    def _forbid(self, node: Node) -> None:
        """What enters here is neither mixed nor, if a parameter, used as a plain weight."""
        for needed in node.all_input_nodes:
            self._forbid_input(needed)

    def _forbid_input(self, needed: Any) -> None:
        found = self._values.get(needed) if isinstance(needed, Node) else None
        for part in found if isinstance(found, list | tuple) else [found]:
            if isinstance(part, Weight):
                self._uses[part.name].append(described(part.name, part.view))
            elif isinstance(part, Tensor):
                self._forbidden.update(compressed(part).unique().tolist())

    def _sum(self, node: Node) -> Tensor | None:
        a, b = (self._coordinates(part) for part in node.args[:2])
        if a is None or b is None or a.shape != b.shape:
            self._forbid(node)
            return None
        pairs = torch.stack([a.reshape(-1), b.reshape(-1)], dim=1).unique(dim=0)
        for one, other in pairs.tolist():
            if one == NONE or other == NONE:
                self._forbidden.update({one, other})
            else:
                self._links.append((one, other, 1))
        return a

    def _linear(self, node: Node, weight_node: Any, bias_node: Any, *, transposed: bool) -> Tensor | None:
        weight = self._values.get(weight_node)
        x = self._coordinates(node.args[0])
        if not isinstance(weight, Weight) or weight.view.ndim != 2 or self._is_weight(node.args[0]):
            self._forbid(node)
            return None
        view = weight.view if transposed else weight.view.T
        seen = described(weight.name, view)
        self._uses[weight.name].append(seen)
        if x is not None:
            read = self._uniform(x, (-1,))
            if read is not None and self._contracted(read[None]):
                self._consumers.append(Consumer(seen, read))
            else:
                self._forbid_input(node.args[0])
        bias = None
        if bias_node is not None:
            given = self._values.get(bias_node)
            if not isinstance(given, Weight):  # frozen, or computed: cannot be mixed
                self._forbid_input(bias_node)
                return None
            bias = described(given.name, given.view)
            self._uses[given.name].append(bias)
        self._producers.append(Producer(seen, bias, self._count))
        first = self._count
        self._count += view.shape[0]
        made = torch.arange(first, self._count)
        return made.expand(tuple(value(node).shape))

    def _uniform(self, labels: Tensor, keep: tuple[int, ...]) -> Tensor | None:
        """Labels over the kept dimensions if all others have the same, else None."""
        groups = one_for_each(labels, keep)
        return groups[..., 0] if bool((groups == groups[..., :1]).all()) else None

    def _contracted(self, sets: Tensor) -> bool:
        """Note rows of coordinates that are contracted at once; False where one is in two rows, or twice in one."""
        rows = sets.reshape(-1, sets.shape[-1]).unique(dim=0)
        row_of: dict[int, int] = {}
        for number, row in enumerate(rows.tolist()):
            for coordinate in row:
                if coordinate == NONE:
                    continue
                if coordinate in row_of:
                    return False
                row_of[coordinate] = number
        self._contractions.append(row_of)
        return True

    def _bond(self, a: Tensor, b: Tensor) -> bool:
        """a·b along the last axis of both, each (sets…, d)."""
        a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
        if len(a) != len(b) or bool((a == NONE).any()) or bool((b == NONE).any()):
            return False
        if not (self._contracted(a) and self._contracted(b)):
            return False
        pairs = torch.stack([a.reshape(-1), b.reshape(-1)], dim=1).unique(dim=0)
        self._links += [(one, other, -1) for one, other in pairs.tolist()]
        return True

    def _product(self, node: Node, a_node: Any, b_node: Any) -> Tensor | None:
        a, b = self._coordinates(a_node), self._coordinates(b_node)
        shape = tuple(value(node).shape)
        if a is not None and b is not None:
            along_a = self._uniform(a, (*range(a.ndim - 2), a.ndim - 1))
            along_b = self._uniform(b, tuple(range(b.ndim - 1)))
            if along_a is not None and along_b is not None and self._bond(along_a, along_b):
                return None
        elif b is not None and isinstance(a_node, Node) and value(a_node).ndim == b.ndim:
            tokens = self._uniform(b, (*range(b.ndim - 2), b.ndim - 1))
            if tokens is not None and self._contracted(tokens):
                return tokens[..., None, :].expand(shape)
        self._forbid(node)
        return None

    def _attention(self, node: Node) -> Tensor | None:
        q, k, v = (self._coordinates(part) for part in node.args[:3])
        batch = tuple(range(value(node).ndim - 2))
        along = [None if z is None else self._uniform(z, (*batch, z.ndim - 1)) for z in (q, k, v)]
        if along[0] is None or along[1] is None or not self._bond(along[0], along[1]):
            for part in node.args[:2]:
                self._forbid_input(part)
        self._forbid_input(argument(node, "attn_mask"))
        if along[2] is None or not self._contracted(along[2]):
            self._forbid_input(node.args[2])
            return None
        return along[2][..., None, :].expand(tuple(value(node).shape))
