"""Shifts through contractions: a product with the data hands a weight the labels of its output at each sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.labels import NONE
from nm_ode.symmetries.operations import argument, operation, registering, value
from nm_ode.symmetries.padding import padding_row
from nm_ode.symmetries.rules.translation.partitions import collect, per_row, tied_along
from nm_ode.symmetries.rules.translation.traversal import Labelled, Rule, broadcast_back, labelled

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule("linear")
def _linear(node: Node, mine: Tensor | None) -> Labelled:
    x, weight, bias = node.args[0], node.args[1], argument(node, "bias")
    assert isinstance(x, Node)
    assert isinstance(weight, Node)
    found = labelled((x, _constant_shift(value(x).shape, mine)))
    found += labelled((weight, _weight_labels(per_row(mine), value(weight).shape[1], out_first=True)))
    if isinstance(bias, Node):
        found.append((bias, broadcast_back(bias, mine)))
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
    return tied_along(shape, range(len(shape) - 1)) if free else None


@_rule("mm", "matmul", "bmm", "addmm", "baddbmm")
def _product(node: Node, mine: Tensor | None) -> Labelled:
    """y = a b: all of a row of y shifts by one number where b's shift is constant along its last axis."""
    adds = operation(node) in ("addmm", "baddbmm")
    added, a, b = node.args[:3] if adds else (None, *node.args[:2])
    assert isinstance(a, Node)
    assert isinstance(b, Node)
    found = labelled((a, None))
    shape = tuple(value(b).shape)
    if value(a).ndim < 2 or len(shape) < 2 or mine is None:
        found += labelled((b, None))
    elif len(shape) == 2:
        found += labelled((b, _weight_labels(per_row(mine), shape[0], out_first=False)))
    else:
        found += labelled((b, _tied_columns(shape, mine)))
    if isinstance(added, Node):
        found.append((added, broadcast_back(added, mine)))
    return found


def _tied_columns(shape: tuple[int, ...], mine: Tensor) -> Tensor | None:
    """Labels of b (…, K, N) in a batched product where every row of y is one label of its own."""
    rows = mine.reshape(-1, mine.shape[-1])
    one_each = bool((rows == rows[:, :1]).all()) and len(rows[:, 0].unique()) == len(rows)
    if not one_each or bool((rows == NONE).any()) or mine.shape[:-2] != shape[:-2]:
        return None
    return tied_along(shape, [-1])


@_rule("scaled_dot_product_attention")
def _attention(node: Node, mine: Tensor | None) -> Labelled:
    """A key that shifts equally at all tokens shifts every score of a query equally: the softmax takes it away."""
    query, key, values = node.args[:3]
    assert isinstance(key, Node)
    mask = argument(node, "attn_mask")
    return labelled((query, None), (key, tied_along(value(key).shape, [-2])), (values, None), (mask, None))


@_rule("conv1d", "conv2d", "conv3d")
def _convolution(node: Node, mine: Tensor | None) -> Labelled:
    weight, bias = node.args[1], argument(node, "bias")
    assert isinstance(weight, Node)
    found = labelled((node.args[0], None))
    if mine is None or argument(node, "groups", 1) != 1:
        found += labelled((weight, None))
    else:
        shape = tuple(value(weight).shape)
        labels = _weight_labels(per_row(mine.movedim(1, -1)), int(np.prod(shape[1:])), out_first=True)
        found += labelled((weight, None if labels is None else labels.reshape(shape)))
    if isinstance(bias, Node) and mine is not None:
        channels = torch.arange(value(bias).numel()).reshape(-1, *[1] * (mine.ndim - 2)).expand(mine.shape)
        found.append((bias, collect(channels, mine, value(bias).numel())))
    return found


@_rule("embedding")
def _embedding(node: Node, mine: Tensor | None) -> Labelled:
    weight = node.args[0]
    assert isinstance(weight, Node)
    rows, _ = value(weight).shape
    if argument(node, "scale_grad_by_freq"):
        return []  # torch's gradient is not the derivative
    labels = _weight_labels(per_row(mine), rows, out_first=False)
    still = padding_row(node)
    if labels is not None and still is not None:
        labels = labels.clone()
        labels[still] = NONE  # nothing trains it
    return labelled((weight, labels))


def _weight_labels(outputs: Tensor | None, rest: int, *, out_first: bool) -> Tensor | None:
    """Labels of a weight from the partition of its outputs: one for each class and each input."""
    if outputs is None:
        return None
    labels = torch.where(outputs[:, None] == NONE, NONE, outputs[:, None] * rest + torch.arange(rest))
    return labels if out_first else labels.T
