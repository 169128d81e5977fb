"""Matrix symmetries: linear bottlenecks z = W_A x, read as W_B z or q·k, whose coordinates can be mixed by any M.

Forward through the graph each coordinate (row of a weight that makes z) has a number. What commutes with a mixing of
coordinates hands the numbers on: moves, factors that are numbers, sums, attention weights that mix tokens. A
contraction over the coordinates reads them: by a weight, W_B → W_B M⁻¹, or by another bottleneck, whose coordinates
then go with M⁻ᵀ. Anything else forbids them. Coordinates that are always read together form a space.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.graph import Graph, argument, operation, value
from nm_ode.symmetries.kinds import Part, View
from nm_ode.symmetries.shapes import compressed, is_move, move, one_for_each
from nm_ode.symmetries.weights import Weight, described, moved_weight, overlap, placeholder_view

NONE = -1


@dataclass(frozen=True, eq=False)
class Maker:
    """A weight (out, in) and a bias whose rows are coordinates `first`, `first` + 1, …"""

    weight: View
    bias: View | None
    first: int


@dataclass(frozen=True, eq=False)
class Reader:
    """A weight whose columns (axis `axis` of the view) are contracted with coordinates; −1: with something else."""

    weight: View
    axis: int
    coordinates: Tensor


@dataclass
class Mixing:
    """Forward through the graph; `families` gives the parts of each family of matrix symmetries."""

    graph: Graph
    makers: list[Maker] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    _values: dict[Node, Any] = field(default_factory=dict)
    _count: int = 0
    _dead: set[int] = field(default_factory=set)
    _links: list[tuple[int, int, int]] = field(default_factory=list)
    _events: list[dict[int, int]] = field(default_factory=list)
    _consumed: dict[str, list[View]] = field(default_factory=lambda: defaultdict(list))

    def families(self) -> list[tuple[Part, ...]]:
        """Each family's parts: views of shape (blocks, d, rest)."""
        for node, name in self.graph.parameters.items():
            self._values[node] = Weight(name, placeholder_view(node), frozen=False)
        for node in self.graph.operations:
            self._values[node] = self._result(node)
        return self._assembled()

    def _result(self, node: Node) -> Any:
        first = node.args[0] if node.args else None
        found = self._values.get(first) if isinstance(first, Node) else None
        if is_move(node):
            if isinstance(found, Weight):
                moved = moved_weight(node, found)
                if moved is not None:
                    return moved
            elif any(self._coordinates(n) is not None for n in node.all_input_nodes) or isinstance(
                found, list | tuple
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

    def _read_to_move(self, node: Any) -> Any:
        known = self.graph.known.get(node)
        if known is not None:
            return known
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
                self._consumed[part.name].append(described(part.name, part.view))
            elif isinstance(part, Tensor):
                self._dead.update(compressed(part).unique().tolist())

    def _sum(self, node: Node) -> Tensor | None:
        a, b = (self._coordinates(part) for part in node.args[:2])
        if a is None or b is None or a.shape != b.shape:
            self._forbid(node)
            return None
        pairs = torch.stack([a.reshape(-1), b.reshape(-1)], dim=1).unique(dim=0)
        for one, other in pairs.tolist():
            if one == NONE or other == NONE:
                self._dead.update({one, other})
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
        self._consumed[weight.name].append(seen)
        if x is not None:
            read = self._uniform(x, (-1,))
            if read is not None and self._event(read[None]):
                self.readers.append(Reader(seen, 1, read))
            else:
                self._forbid_input(node.args[0])
        bias = None
        if bias_node is not None:
            given = self._values.get(bias_node)
            if not isinstance(given, Weight):  # frozen, or computed: cannot be mixed
                self._forbid_input(bias_node)
                return None
            bias = described(given.name, given.view)
            self._consumed[given.name].append(bias)
        maker = Maker(seen, bias, self._count)
        self.makers.append(maker)
        self._count += view.shape[0]
        made = torch.arange(maker.first, self._count)
        return made.expand(tuple(value(node).shape))

    def _uniform(self, labels: Tensor, keep: tuple[int, ...]) -> Tensor | None:
        """Labels over the kept dimensions if all others have the same, else None."""
        groups = one_for_each(labels, keep)
        return groups[..., 0] if bool((groups == groups[..., :1]).all()) else None

    def _event(self, sets: Tensor) -> bool:
        """Rows of coordinates that meet in one contraction; False where one meets itself or two different rows."""
        rows = sets.reshape(-1, sets.shape[-1]).unique(dim=0)
        met: dict[int, int] = {}
        for number, row in enumerate(rows.tolist()):
            for coordinate in row:
                if coordinate == NONE:
                    continue
                if coordinate in met:
                    return False
                met[coordinate] = number
        self._events.append(met)
        return True

    def _bond(self, a: Tensor, b: Tensor) -> bool:
        """a·b along the last axis of both, each (sets…, d)."""
        a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
        if len(a) != len(b) or bool((a == NONE).any()) or bool((b == NONE).any()):
            return False
        if not (self._event(a) and self._event(b)):
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
            if tokens is not None and self._event(tokens):
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
        if along[2] is None or not self._event(along[2]):
            self._forbid_input(node.args[2])
            return None
        return along[2][..., None, :].expand(tuple(value(node).shape))

    def _assembled(self) -> list[tuple[Part, ...]]:
        parity, representative = self._signed_classes()
        signature: dict[int, set[tuple[int, int]]] = defaultdict(set)
        for number, met in enumerate(self._events):
            for coordinate, row in met.items():
                signature[representative[coordinate]].add((number, row))
        spaces: dict[frozenset[tuple[int, int]], list[int]] = defaultdict(list)
        for root in sorted(set(representative.values())):
            if root not in self._dead and signature[root]:
                spaces[frozenset(signature[root])].append(root)
        members: dict[int, list[int]] = defaultdict(list)
        for coordinate, root in representative.items():
            members[root].append(coordinate)
        # Blocks of one family are made and read by the same weights: heads.
        blocks: dict[tuple[Any, ...], list[list[list[tuple[int, int, int, float]]]]] = defaultdict(list)
        found = self._places()
        for roots in spaces.values():
            if len(roots) > 1:
                places = [
                    [
                        (kind, number, at, sign * parity[coordinate])
                        for coordinate in sorted(members[root])
                        for kind, number, at, sign in found[coordinate]
                    ]
                    for root in roots
                ]
                who = {tuple(place[:2] + place[3:] for place in each) for each in places}
                if len(who) == 1:
                    blocks[len(roots), who.pop()].append(places)
        families = [self._parts(block) for block in blocks.values()]
        return [parts for parts in families if parts is not None]

    def _signed_classes(self) -> tuple[dict[int, int], dict[int, int]]:
        """Coordinates that go together, by M (+1) or by M⁻ᵀ (−1) relative to the first of them."""
        neighbours: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for one, other, sign in self._links:
            neighbours[one].append((other, sign))
            neighbours[other].append((one, sign))
        parity: dict[int, int] = {}
        representative: dict[int, int] = {}
        for start in range(self._count):
            if start in parity:
                continue
            parity[start] = 1
            waiting, together = [start], []
            dead = False
            while waiting:
                one = waiting.pop()
                representative[one] = start
                together.append(one)
                dead |= one in self._dead
                for other, sign in neighbours[one]:
                    if other not in parity:
                        parity[other] = sign * parity[one]
                        waiting.append(other)
                    elif parity[other] != sign * parity[one]:
                        dead = True
            if dead:
                self._dead.add(start)
        return parity, representative

    def _places(self) -> dict[int, list[tuple[int, int, int, float]]]:
        """For each coordinate (0, maker, row, +1) and (1, reader, column, −1), as if it went with M."""
        places: dict[int, list[tuple[int, int, int, float]]] = defaultdict(list)
        for number, maker in enumerate(self.makers):
            for row in range(maker.weight.shape[0]):
                places[maker.first + row].append((0, number, row, 1.0))
        for number, reader in enumerate(self.readers):
            for column, coordinate in enumerate(reader.coordinates.tolist()):
                places[coordinate].append((1, number, column, -1.0))
        return places

    def _parts(self, blocks: list[list[list[tuple[int, int, int, float]]]]) -> tuple[Part, ...] | None:
        rows = np.array([[[place[2] for place in each] for each in block] for block in blocks])
        blocks_count, d, n_places = rows.shape
        charges = torch.arange(blocks_count)
        parts: list[Part] = []
        for i in range(n_places):
            is_reader, number, _, weight = blocks[0][0][i]
            steps = _regular(rows[:, :, i])
            if steps is None:
                return None
            start, block_step, row_step = steps
            if is_reader:
                uses = [(self.readers[number].weight, 1)]
            else:
                maker = self.makers[number]
                uses = [(maker.weight, 0)] + ([(maker.bias, 0)] if maker.bias is not None else [])
            for view, axis in uses:
                if sum(overlap(view, other) for other in self._consumed[view.parameter]) != 1:
                    return None  # tied to something else
                stride = view.strides[axis]
                rest = [
                    (n, s) for j, (n, s) in enumerate(zip(view.shape, view.strides, strict=True)) if j != axis
                ]
                size, step = rest[0] if rest else (1, 1)
                taken = View(
                    view.parameter,
                    (blocks_count, d, size),
                    (block_step * stride, row_step * stride, step),
                    view.offset + start * stride,
                )
                parts.append(Part(taken, (0,), charges, weight))
        return tuple(parts)


def _regular(rows: np.ndarray) -> tuple[int, int, int] | None:
    """(start, step between blocks, step within) of rows (blocks, d); None if they are not evenly spaced."""
    start = int(rows[0, 0])
    block_step = int(rows[1, 0]) - start if len(rows) > 1 else int(rows.size)
    row_step = int(rows[0, 1]) - start
    even = start + block_step * np.arange(len(rows))[:, None] + row_step * np.arange(rows.shape[1])
    return (start, block_step, row_step) if bool((even == rows).all()) else None
