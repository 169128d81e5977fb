"""Translation symmetries: which sums of parameters' entries can be shifted so that the loss stays.

Backward through the graph, each tensor is given labels: adding one number to all entries of a label, another to all
of another label, changes the loss of no batch. A mean subtraction and a softmax make labels; sums and moves hand
them to their inputs; a product with the data x hands a weight the labels that its output has at each sample. An entry
without a label (−1) may not be shifted. Several readers of one tensor join their labels: what one forbids is forbidden.

The rules are sound, not complete: they know what subtracts a mean, not means that happen to cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.graph import Graph, argument, operation, registering, value
from nm_ode.symmetries.shapes import distinct_pairs, is_move, move

NONE = -1


def translations(graph: Graph) -> dict[str, Tensor]:
    """Parameter name → labels of its entries (its shape, int64, −1 for none); parameters without any are left out."""
    labels: dict[Node, Tensor | None] = {}
    for node in reversed(graph.operations):
        mine = None if node is graph.loss else labels.pop(node, None)
        for needed, found in _inputs(graph, node, mine):
            labels[needed] = join(labels[needed], found) if needed in labels else found
    named: dict[str, Tensor] = {}
    for node, name in graph.parameters.items():
        found = labels.get(node)
        if found is not None and bool((found != NONE).any()):
            named[name] = found
    return named


def join(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """What both allow: entries that either ties are tied, what either forbids is forbidden. None: nothing."""
    if one is None or other is None:
        return None
    a, b = one.reshape(-1).numpy(), other.reshape(-1).numpy()
    shift = int(a.max(initial=0)) + 2
    # Node 0 is the forbidden one; then the labels of the one, then those of the other.
    left, right = np.where(a == NONE, 0, a + 1), np.where(b == NONE, 0, b + shift)
    classes = _components(left, right)
    joined = classes[left]
    joined = np.where(joined == classes[0], NONE, joined)
    return None if (joined == NONE).all() else torch.from_numpy(joined.astype(np.int64)).reshape(one.shape)


Found = list[tuple[Node, Tensor | None]]


def _inputs(graph: Graph, node: Node, mine: Tensor | None) -> Found:
    """Labels that a node gives to each of its inputs."""
    needed = [n for n in node.all_input_nodes if n not in graph.known]
    if isinstance(value(node), tuple | list) and is_move(node):
        return []  # each of its results speaks for itself
    given: dict[Node, Tensor | None] = dict.fromkeys(needed)
    rule = _RULES.get(operation(node))
    if is_move(node):
        parts = node.args[0] if operation(node) == "getitem" else None
        if isinstance(parts, Node) and is_move(parts):  # one of chunk's pieces, say
            source = parts.all_input_nodes[0]
            return [(source, _piece_back(node, parts, source, mine))]
        for source in needed:
            given[source] = _moved_back(node, source, mine)
    elif rule is not None:
        for source, found in rule(node, mine):
            # The same tensor in two places of one operation: both must allow it.
            given[source] = join(given[source], found) if given.get(source) is not None else found
    return list(given.items())


def _moved_back(node: Node, source: Node, mine: Tensor | None) -> Tensor | None:
    """Labels of the source of a move: those of the places where its entries went.

    Entries that went nowhere are free; a label that reaches over entries of several sources is lost, since none of
    them may be shifted without the others.
    """
    if not isinstance(value(source), Tensor):
        return None
    shape = tuple(value(source).shape)
    size = int(np.prod(shape))
    mine = _nothing(node) if mine is None else mine
    numbers = torch.arange(size).reshape(shape)
    nothing = torch.full((), -1, dtype=torch.int64)

    def read(n: Any) -> Any:
        if n is source:
            return numbers
        other = value(n)
        return nothing.expand(tuple(other.shape)) if isinstance(other, Tensor) else None

    went = move(node, read)
    if not isinstance(went, Tensor):
        return None
    shared = mine[went == -1].unique()
    mine = torch.where(torch.isin(mine, shared), NONE, mine) if shared.numel() else mine
    return collect(went, mine, size).reshape(shape)


def _nothing(node: Node) -> Tensor:
    """Labels of a result of which nothing may be shifted."""
    return torch.full((), NONE, dtype=torch.int64).expand(tuple(value(node).shape))


def _piece_back(node: Node, parts: Node, source: Node, mine: Tensor | None) -> Tensor | None:
    mine = _nothing(node) if mine is None else mine
    shape = tuple(value(source).shape)
    numbers = torch.arange(int(np.prod(shape))).reshape(shape)
    went = move(parts, lambda _: numbers)[node.args[1]]
    return collect(went, mine, numbers.numel()).reshape(shape)


def collect(went: Tensor, labels: Tensor, size: int) -> Tensor:
    """Labels of `size` entries of which entry i is seen wherever `went == i`, under `labels` there.

    An entry seen under several labels ties them; one that is never seen may be shifted alone.
    """
    entries, seen = went.reshape(-1).numpy(), labels.reshape(-1).numpy()
    inside = entries >= 0
    entries, seen = entries[inside], seen[inside]
    # Node 0 is the forbidden one; then the entries; then the labels.
    shift = size + 1
    right = np.where(seen == NONE, 0, seen + shift)
    classes = _components(entries + 1, right, at_least=shift)
    found = classes[1 : size + 1]
    return torch.from_numpy(np.where(found == classes[0], NONE, found).astype(np.int64))


def _components(left: np.ndarray, right: np.ndarray, at_least: int = 0) -> np.ndarray:
    """Class of each node of the graph with edges left[i] – right[i]."""
    edges = distinct_pairs(left, right)
    size = max(int(edges.max(initial=0)) + 1, at_least)
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1])


def per_row(labels: Tensor | None) -> Tensor | None:
    """Partition of the last axis that holds in every row; −1 where a label reaches over rows or a row differs.

    labels (…, N) → (N,): outputs n and n' of equal number may be shifted together, by another amount in each row.
    """
    if labels is None:
        return None
    rows = labels.reshape(-1, labels.shape[-1]).numpy()
    place = np.arange(rows.size).reshape(rows.shape)
    first_place = np.full(int(rows.max(initial=0)) + 2, rows.size, dtype=np.int64)
    last_place = np.full_like(first_place, -1)
    np.minimum.at(first_place, rows + 1, place)
    np.maximum.at(last_place, rows + 1, place)
    # A class of labels must begin and end in the same row.
    confined = first_place // rows.shape[1] == last_place // rows.shape[1]
    pattern = np.where((rows != NONE) & confined[rows + 1], first_place[rows + 1] % rows.shape[1], NONE)
    same = (pattern == pattern[:1]).all(axis=0)
    # A class is lost as a whole where any of its members differs between rows.
    lost = set(pattern[0][~same].tolist()) | set(pattern[:, ~same].reshape(-1).tolist())
    result = np.where(np.isin(pattern[0], sorted(lost)), NONE, pattern[0])
    return None if (result == NONE).all() else torch.from_numpy(result)


def _weight_labels(outputs: Tensor | None, rest: int, *, out_first: bool) -> Tensor | None:
    """Labels of a weight from the partition of its outputs: one for each class and each input."""
    if outputs is None:
        return None
    labels = torch.where(outputs[:, None] == NONE, NONE, outputs[:, None] * rest + torch.arange(rest))
    return labels if out_first else labels.T


Rule = Callable[[Node, Tensor | None], Sequence[tuple[Node, Tensor | None]]]
_RULES: dict[str, Rule] = {}
_rule = registering(_RULES)


def _nodes(*pairs: tuple[Any, Tensor | None]) -> Found:
    return [(node, labels) for node, labels in pairs if isinstance(node, Node)]


def _broadcast_back(node: Node, mine: Tensor | None) -> Tensor | None:
    """Labels of an operand that was broadcast to the shape of `mine`."""
    if mine is None:
        return None
    shape = tuple(value(node).shape)
    size = int(np.prod(shape))
    return collect(torch.arange(size).reshape(shape).expand(mine.shape), mine, size).reshape(shape)


def _along(shape: Sequence[int], tied: Sequence[int]) -> Tensor:
    """Labels that are equal along the `tied` dimensions and differ along the others."""
    tied = [dim % len(shape) for dim in tied]
    free = [1 if dim in tied else n for dim, n in enumerate(shape)]
    return torch.arange(int(np.prod(free))).reshape(free).expand(tuple(shape)).contiguous()


@_rule("add", "sub", "rsub")
def _sum(node: Node, mine: Tensor | None) -> Found:
    return _nodes(*((part, _broadcast_back(part, mine)) for part in node.args[:2] if isinstance(part, Node)))


@_rule("mul", "div")
def _by_a_number(node: Node, mine: Tensor | None) -> Found:
    a, b = node.args[:2]
    if isinstance(b, float | int):
        return _nodes((a, mine))
    if isinstance(a, float | int) and operation(node) == "mul":
        return _nodes((b, mine))
    return _nodes((a, None), (b, None))


@_rule("dropout")
def _dropout(node: Node, mine: Tensor | None) -> Found:
    active = argument(node, "train") and argument(node, "p") > 0
    return _nodes((node.args[0], None if active else mine))


@_rule("neg")
def _negative(node: Node, mine: Tensor | None) -> Found:
    return _nodes((node.args[0], mine))


@_rule("softmax", "log_softmax", "_softmax", "_log_softmax")
def _softmax(node: Node, mine: Tensor | None) -> Found:
    x = node.args[0]
    assert isinstance(x, Node)
    return _nodes((x, _along(value(x).shape, [argument(node, "dim")])))


@_rule("cross_entropy_loss")
def _cross_entropy(node: Node, mine: Tensor | None) -> Found:
    x = node.args[0]
    assert isinstance(x, Node)
    shape = value(x).shape
    return _nodes((x, _along(shape, [1 if len(shape) > 1 else 0])))


@_rule("layer_norm")
def _layer_norm(node: Node, mine: Tensor | None) -> Found:
    x = node.args[0]
    assert isinstance(x, Node)
    shape = value(x).shape
    normalised = range(len(shape) - len(argument(node, "normalized_shape")), len(shape))
    return _normalisation(node, mine, _along(shape, tuple(normalised)), _trailing)


@_rule("batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional", "native_batch_norm")
def _batch_norm(node: Node, mine: Tensor | None) -> Found:
    x = node.args[0]
    assert isinstance(x, Node)
    shape = value(x).shape
    others = [dim for dim in range(len(shape)) if dim != 1]
    training = argument(node, "training", argument(node, "train", True))
    return _normalisation(node, mine, _along(shape, others) if training else None, _channels)


@_rule("instance_norm")
def _instance_norm(node: Node, mine: Tensor | None) -> Found:
    x = node.args[0]
    assert isinstance(x, Node)
    shape = value(x).shape
    own = _along(shape, range(2, len(shape))) if argument(node, "use_input_stats") else None
    return _normalisation(node, mine, own, _channels)


@_rule("group_norm")
def _group_norm(node: Node, mine: Tensor | None) -> Found:
    x = node.args[0]
    assert isinstance(x, Node)
    n, c, *space = value(x).shape
    groups = argument(node, "num_groups")
    own = _along((n, groups, c // groups, *space), range(2, 3 + len(space))).reshape(n, c, *space)
    return _normalisation(node, mine, own, _channels)


@_rule("rms_norm")
def _rms_norm(node: Node, mine: Tensor | None) -> Found:
    return _normalisation(node, mine, None, _trailing)


Place = Callable[[Tensor, int], Tensor]


def _channels(vector: Tensor, ndim: int) -> Tensor:
    return vector.reshape(-1, *[1] * (ndim - 2))


def _trailing(vector: Tensor, ndim: int) -> Tensor:
    return vector


def _normalisation(node: Node, mine: Tensor | None, own: Tensor | None, place: Place) -> Found:
    """The input by the mean that is subtracted; β like any other summand; γ not at all."""
    found = _nodes((node.args[0], own))
    bias = argument(node, "bias")
    if isinstance(bias, Node) and mine is not None:
        size = value(bias).numel()
        numbers = place(torch.arange(size).reshape(tuple(value(bias).shape)), mine.ndim).expand(mine.shape)
        found.append((bias, collect(numbers, mine, size).reshape(tuple(value(bias).shape))))
    return found


@_rule("linear")
def _linear(node: Node, mine: Tensor | None) -> Found:
    x, weight, bias = node.args[0], node.args[1], argument(node, "bias")
    assert isinstance(x, Node)
    assert isinstance(weight, Node)
    found = _nodes((x, _constant_shift(value(x).shape, mine)))
    found += _nodes((weight, _weight_labels(per_row(mine), value(weight).shape[1], out_first=True)))
    if isinstance(bias, Node):
        found.append((bias, _broadcast_back(bias, mine)))
    return found


def _constant_shift(shape: Sequence[int], mine: Tensor | None) -> Tensor | None:
    """Labels of x in y = x Wᵀ where each output may be shifted by any number that is the same in all rows.

    As BatchNorm lets it: then each input may be, whatever W is.
    """
    if mine is None:
        return None
    rows = mine.reshape(-1, mine.shape[-1])
    free = (
        bool((rows == rows[:1]).all())
        and bool((rows[0] != NONE).all())
        and len(rows[0].unique()) == len(rows[0])
    )
    return _along(shape, range(len(shape) - 1)) if free else None


@_rule("mm", "matmul", "bmm", "addmm", "baddbmm")
def _product(node: Node, mine: Tensor | None) -> Found:
    """y = a b: all of a row of y shifts by one number where b's shift is constant along its last axis."""
    adds = operation(node) in ("addmm", "baddbmm")
    added, a, b = node.args[:3] if adds else (None, *node.args[:2])
    assert isinstance(a, Node)
    assert isinstance(b, Node)
    found = _nodes((a, None))
    shape = tuple(value(b).shape)
    if value(a).ndim < 2 or len(shape) < 2 or mine is None:
        found += _nodes((b, None))
    elif len(shape) == 2:
        found += _nodes((b, _weight_labels(per_row(mine), shape[0], out_first=False)))
    else:
        found += _nodes((b, _tied_columns(shape, mine)))
    if isinstance(added, Node):
        found.append((added, _broadcast_back(added, mine)))
    return found


def _tied_columns(shape: tuple[int, ...], mine: Tensor) -> Tensor | None:
    """Labels of b (…, K, N) in a batched product where every row of y is one label of its own."""
    rows = mine.reshape(-1, mine.shape[-1])
    one_each = bool((rows == rows[:, :1]).all()) and len(rows[:, 0].unique()) == len(rows)
    if not one_each or bool((rows == NONE).any()) or mine.shape[:-2] != shape[:-2]:
        return None
    return _along(shape, [-1])


@_rule("scaled_dot_product_attention")
def _attention(node: Node, mine: Tensor | None) -> Found:
    """A key that shifts equally at all tokens shifts every score of a query equally: the softmax takes it away."""
    query, key, values = node.args[:3]
    assert isinstance(key, Node)
    mask = argument(node, "attn_mask")
    return _nodes((query, None), (key, _along(value(key).shape, [-2])), (values, None), (mask, None))


@_rule("conv1d", "conv2d", "conv3d")
def _convolution(node: Node, mine: Tensor | None) -> Found:
    weight, bias = node.args[1], argument(node, "bias")
    assert isinstance(weight, Node)
    found = _nodes((node.args[0], None))
    if mine is None or argument(node, "groups", 1) != 1:
        found += _nodes((weight, None))
    else:
        shape = tuple(value(weight).shape)
        labels = _weight_labels(per_row(mine.movedim(1, -1)), int(np.prod(shape[1:])), out_first=True)
        found += _nodes((weight, None if labels is None else labels.reshape(shape)))
    if isinstance(bias, Node) and mine is not None:
        channels = torch.arange(value(bias).numel()).reshape(-1, *[1] * (mine.ndim - 2)).expand(mine.shape)
        found.append((bias, collect(channels, mine, value(bias).numel())))
    return found


@_rule("embedding")
def _embedding(node: Node, mine: Tensor | None) -> Found:
    weight = node.args[0]
    assert isinstance(weight, Node)
    rows, _ = value(weight).shape
    labels = _weight_labels(per_row(mine), rows, out_first=False)
    return _nodes((weight, labels))
