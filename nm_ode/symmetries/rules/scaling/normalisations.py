"""Factors through normalisations, which take them away but for an ε."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.labels import at
from nm_ode.symmetries.operations import argument, registering, value
from nm_ode.symmetries.rules.scaling.traversal import Rule, ScalingTraversal, zeros

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule("batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional", "native_batch_norm")
def _batch_norm(s: ScalingTraversal, node: Node) -> Any:
    result = value(node)
    parts = tuple(result) if isinstance(result, tuple | list) else None
    x = s.labels(node.args[0])
    training = argument(node, "training", argument(node, "train", True))
    if training:
        s.absorb(node, s.variables.merge(x, (1,)))
    else:
        s.variables.zero(x)  # fixed statistics: an affine map
    y = _affine(s, node, x.shape[1:2])
    out = at(y.expand(x.shape[1]), 1, x.ndim).expand(x.shape)
    return out if parts is None else (out, *(zeros(part) for part in parts[1:]))


@_rule("instance_norm")
def _instance_norm(s: ScalingTraversal, node: Node) -> Any:
    x = s.labels(node.args[0])
    if not argument(node, "use_input_stats"):
        return None
    s.absorb(node, s.variables.merge(x, (0, 1)))
    y = _affine(s, node, x.shape[1:2])
    return at(y.expand(x.shape[1]), 1, x.ndim).expand(x.shape)


@_rule("layer_norm", "rms_norm")
def _layer_norm(s: ScalingTraversal, node: Node) -> Any:
    x, normalised = s.labels(node.args[0]), argument(node, "normalized_shape")
    leading = x.ndim - len(normalised)
    s.absorb(node, s.variables.merge(x, tuple(range(leading))))
    return _affine(s, node, tuple(normalised)).expand(x.shape)


@_rule("group_norm")
def _group_norm(s: ScalingTraversal, node: Node) -> Any:
    x, groups = s.labels(node.args[0]), argument(node, "num_groups")
    s.absorb(node, s.variables.merge(x.unflatten(1, (groups, -1)), (0, 1)))
    y = _affine(s, node, x.shape[1:2])
    return at(y.expand(x.shape[1]), 1, x.ndim).expand(x.shape)


def _affine(s: ScalingTraversal, node: Node, shape: Any) -> Tensor:
    """Labels after a normalisation's own γ and β, in the shape of γ; zero without them."""
    weight, bias = argument(node, "weight"), argument(node, "bias")
    y = s.labels(weight) if weight is not None else torch.zeros((), dtype=torch.int64)
    if bias is not None:
        s.variables.equal(y.expand(tuple(shape)), s.labels(bias))
    return y


@_rule("_weight_norm", "_weight_norm_interface")
def _weight_norm(s: ScalingTraversal, node: Node) -> Any:
    """W = g v/‖v‖: the norm takes v's factor away, exactly (Salimans & Kingma 2016)."""
    v, g = s.labels(node.args[0]), s.labels(node.args[1])
    dim = argument(node, "dim", 0) % v.ndim
    s.variables.merge(v, (dim,))
    if isinstance(value(node), tuple | list):
        return g.expand(v.shape), zeros(g)
    return g.expand(v.shape)
