"""Which integers a loss can meet: what its lookups, class targets and one-hots take, read from the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.labels import is_move, move
from nm_ode.symmetries.lookups import open_dims, place_of_index
from nm_ode.symmetries.operations import argument, operation, value
from nm_ode.symmetries.refusals import foreseen

_FAR = 2**60  # no limit
_GATHERS = {
    "gather",
    "take_along_dim",
    "index_select",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "index_add",
}
_TARGETS = {
    "cross_entropy_loss",
    "nll_loss",
    "nll_loss_nd",
    "nll_loss2d",
    "nll_loss_forward",
    "multi_margin_loss",
}


@dataclass(frozen=True, eq=False)
class Range:
    """Least and largest value of each entry of a tensor, both far away where anything goes.

    Attributes:
        low, high: int64, of the tensor's shape.
        ignored: a value beside these that is taken too: a loss's `ignore_index`.
    """

    low: Tensor
    high: Tensor
    ignored: int | None = None

    @property
    def bounded(self) -> Tensor:
        """Where both ends are known."""
        return (self.low > -_FAR) & (self.high < _FAR)


def ranges(graph: Graph) -> dict[int, Range]:
    """For each tensor of the batch, by its number, what the graph's operations take of it."""
    found: dict[Node, Range] = {}
    for node in reversed(graph.operations):
        with foreseen(node):
            for source, range_ in _asked(node):
                _narrow(found, source, range_)
            if node in found:
                for source, range_ in _back(graph, node, found[node]):
                    _narrow(found, source, range_)
    placeholders = [node for node in graph.module.graph.nodes if node.op == "placeholder"]
    return {
        name: found[node]
        for node, name in zip(placeholders, graph.inputs, strict=True)
        if isinstance(name, int) and node in found
    }


def _asked(node: Node) -> list[tuple[Any, Range]]:
    """What an operation takes of its own integers."""
    name = operation(node)
    if name in ("embedding", "embedding_bag", "_embedding_bag"):
        return _up_to(node.args[1], value(node.args[0]).shape[0])
    if name in ("index", "index_put", "index_put_"):
        shape = value(node.args[0]).shape
        indices: Sequence[Any] = node.args[1]  # type: ignore[assignment]
        return [pair for n, index in zip(shape, indices, strict=False) for pair in _up_to(index, n)]
    if name in _GATHERS:
        index = argument(node, "index", argument(node, "indices"))
        shape, dim = value(node.args[0]).shape, argument(node, "dim", 0)
        return _up_to(index, shape[dim] if shape and dim is not None else 1)
    if name == "one_hot" and isinstance(argument(node, "num_classes"), int):
        return _up_to(node.args[0], max(argument(node, "num_classes"), 1))
    if name in _TARGETS:
        shape = value(node.args[0]).shape
        return _up_to(node.args[1], shape[1 if len(shape) > 1 else 0], argument(node, "ignore_index"))
    return []


def _up_to(index: Any, count: int, ignored: int | None = None) -> list[tuple[Any, Range]]:
    if not isinstance(index, Node) or not isinstance(value(index), Tensor):
        return []
    if value(index).is_floating_point() or value(index).dtype == torch.bool:
        return []
    shape = tuple(value(index).shape)
    low = torch.zeros(shape, dtype=torch.int64)
    return [(index, Range(low, low + (count - 1), ignored))]


def _back(graph: Graph, node: Node, range_: Range) -> list[tuple[Any, Range]]:
    """From what is asked of a result to what that asks of what it is computed from."""
    name, x = operation(node), node.args[0] if node.args else None
    if name in (
        "_to_copy",
        "to",
        "type_as",
        "long",
        "int",
        "clone",
        "contiguous",
        "alias",
        "where",
        "masked_fill",
    ):
        sources = [part for part in node.args[1 if name == "where" else 0 :] if isinstance(part, Node)]
        shape = tuple(value(node).shape)
        return [(source, range_) for source in sources if tuple(value(source).shape) == shape]
    if is_move(node):
        return [] if open_dims(graph, node) else _moved_back(graph, node, range_)
    number = node.args[1] if len(node.args) > 1 else None
    if (
        not isinstance(x, Node)
        or not isinstance(number, int)
        or tuple(value(x).shape) != tuple(value(node).shape)
    ):
        return []
    if name == "add":
        return [(x, replace(range_, low=range_.low - number, high=range_.high - number, ignored=None))]
    if name == "sub":
        return [(x, replace(range_, low=range_.low + number, high=range_.high + number, ignored=None))]
    floor = name == "floor_divide" or (
        name == "div" and argument(node, "rounding_mode") in ("floor", "trunc")
    )
    if floor and number > 0:
        return [(x, Range(range_.low * number, range_.high * number + number - 1))]
    if name == "mul" and number > 0:
        return [(x, Range(-(-range_.low // number), range_.high // number))]
    return []


def _moved_back(graph: Graph, node: Node, range_: Range) -> list[tuple[Any, Range]]:
    made = []
    for source in node.all_input_nodes:
        if not isinstance(value(source), Tensor) or source in graph.known:
            continue
        shape = tuple(value(source).shape)
        numbers = torch.arange(value(source).numel()).reshape(shape)

        def read(n: Any, source: Node = source, numbers: Tensor = numbers) -> Any:
            if n is source:
                return numbers
            index = place_of_index(graph, n)
            return (
                torch.full((), -1).expand(tuple(value(n).shape))
                if index is None or node.args[0] is not source
                else index
            )

        went = move(node, read)
        if not isinstance(went, Tensor):
            continue
        inside = went >= 0
        low = torch.full((numbers.numel(),), -_FAR).scatter_reduce(
            0, went[inside], range_.low[inside], "amax"
        )
        high = torch.full((numbers.numel(),), _FAR).scatter_reduce(
            0, went[inside], range_.high[inside], "amin"
        )
        made.append((source, Range(low.reshape(shape), high.reshape(shape), range_.ignored)))
    return made


def _narrow(found: dict[Node, Range], source: Any, range_: Range) -> None:
    if isinstance(source, Node):
        before = found.get(source)
        if before is not None:
            # What one operation ignores, another may not take.
            ignored = range_.ignored if before.ignored == range_.ignored else None
            range_ = Range(
                torch.maximum(before.low, range_.low), torch.minimum(before.high, range_.high), ignored
            )
        found[source] = range_
