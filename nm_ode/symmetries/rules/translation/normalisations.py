"""Shifts through normalisations, which take away what the entries of one mean share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.operations import argument, registering, value
from nm_ode.symmetries.rules.translation.partitions import collect, tied_along
from nm_ode.symmetries.rules.translation.traversal import Labelled, Rule, labelled

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule("layer_norm")
def _layer_norm(node: Node, mine: Tensor | None) -> Labelled:
    x = node.args[0]
    assert isinstance(x, Node)
    shape = value(x).shape
    normalised = range(len(shape) - len(argument(node, "normalized_shape")), len(shape))
    return _normalisation(node, mine, tied_along(shape, tuple(normalised)), _trailing)


@_rule("batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional", "native_batch_norm")
def _batch_norm(node: Node, mine: Tensor | None) -> Labelled:
    x = node.args[0]
    assert isinstance(x, Node)
    shape = value(x).shape
    others = [dim for dim in range(len(shape)) if dim != 1]
    training = argument(node, "training", argument(node, "train", True))
    return _normalisation(node, mine, tied_along(shape, others) if training else None, _channels)


@_rule("instance_norm")
def _instance_norm(node: Node, mine: Tensor | None) -> Labelled:
    x = node.args[0]
    assert isinstance(x, Node)
    shape = value(x).shape
    own = tied_along(shape, range(2, len(shape))) if argument(node, "use_input_stats") else None
    return _normalisation(node, mine, own, _channels)


@_rule("group_norm")
def _group_norm(node: Node, mine: Tensor | None) -> Labelled:
    x = node.args[0]
    assert isinstance(x, Node)
    n, c, *space = value(x).shape
    groups = argument(node, "num_groups")
    own = tied_along((n, groups, c // groups, *space), range(2, 3 + len(space))).reshape(n, c, *space)
    return _normalisation(node, mine, own, _channels)


@_rule("rms_norm")
def _rms_norm(node: Node, mine: Tensor | None) -> Labelled:
    return _normalisation(node, mine, None, _trailing)


Place = Callable[[Tensor, int], Tensor]


def _channels(vector: Tensor, ndim: int) -> Tensor:
    return vector.reshape(-1, *[1] * (ndim - 2))


def _trailing(vector: Tensor, ndim: int) -> Tensor:
    return vector


def _normalisation(node: Node, mine: Tensor | None, own: Tensor | None, place: Place) -> Labelled:
    """The input by the mean that is subtracted; β like any other summand; γ not at all."""
    found = labelled((node.args[0], own))
    bias = argument(node, "bias")
    if isinstance(bias, Node) and mine is not None:
        size = value(bias).numel()
        numbers = place(torch.arange(size).reshape(tuple(value(bias).shape)), mine.ndim).expand(mine.shape)
        found.append((bias, collect(numbers, mine, size).reshape(tuple(value(bias).shape))))
    return found
