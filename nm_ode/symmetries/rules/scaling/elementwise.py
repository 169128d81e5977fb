"""Factors through operations that act entry by entry: activations, sums, products, powers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.fx import Node

from nm_ode.symmetries.labels import compressed
from nm_ode.symmetries.operations import argument, operation, registering, value
from nm_ode.symmetries.rules.scaling.traversal import EpsilonTerm, Rule, ScalingTraversal, zeros
from nm_ode.symmetries.rules.scaling.variables import ZERO

_SMALL = 1e-3  # a number up to this under a root or in a denominator is taken for a normalisation's ε

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule("relu", "leaky_relu", "neg", "abs", "rrelu", "dropout", "feature_dropout")
def _homogeneous(s: ScalingTraversal, node: Node) -> Any:
    return s.labels(node.args[0])


@_rule("prelu")
def _prelu(s: ScalingTraversal, node: Node) -> Any:
    s.variables.zero(s.labels(node.args[1]))
    return s.labels(node.args[0])


@_rule("native_dropout")
def _native_dropout(s: ScalingTraversal, node: Node) -> Any:
    labels = s.labels(node.args[0])
    return labels, zeros(labels)


@_rule("clamp_min", "clamp")
def _clamp(s: ScalingTraversal, node: Node) -> Any:
    low, high = argument(node, "min"), argument(node, "max")
    # A small floor under a norm, as in F.normalize, is met by no norm that is not zero.
    if high is None and isinstance(low, float | int) and (low == 0 or 0 < low <= _SMALL):
        return s.labels(node.args[0])
    return None


@_rule("masked_fill")
def _masked_fill(s: ScalingTraversal, node: Node) -> Any:
    filler = node.args[2]
    if isinstance(filler, float | int) and (filler == 0 or np.isinf(filler)):
        return s.labels(node.args[0]).expand(tuple(value(node).shape))
    return None


@_rule("add", "sub", "rsub", "maximum", "minimum")
def _sum(s: ScalingTraversal, node: Node) -> Any:
    a, b = node.args[:2]
    for one, other in ((a, b), (b, a)):
        if isinstance(other, float | int):
            labels = s.labels(one)
            if other != 0:
                if not (0 < other <= _SMALL and operation(node) == "add" and _is_under_root(node)):
                    return None
                s.epsilons.append(EpsilonTerm(node, compressed(labels), 1.0, float(other)))
            return labels
    labels = torch.broadcast_tensors(s.labels(a), s.labels(b))
    s.variables.equal(*labels)
    return labels[0] if not bool((compressed(labels[0]) == ZERO).all()) else labels[1]


def _is_under_root(node: Node) -> bool:
    return all(
        operation(user) in ("rsqrt", "sqrt", "reciprocal")
        or (operation(user) == "pow" and user.args[1] in (-0.5, 0.5, -1))
        or (operation(user) == "div" and user.args[1] is node)
        for user in node.users
    )


@_rule("mul")
def _product(s: ScalingTraversal, node: Node) -> Any:
    labels = s.variables.combine(*((1.0, s.labels(part)) for part in node.args[:2]))
    return labels.expand(tuple(value(node).shape))


@_rule("div")
def _quotient(s: ScalingTraversal, node: Node) -> Any:
    if argument(node, "rounding_mode") is not None:
        return None
    top, bottom = (s.labels(part) for part in node.args[:2])
    return s.variables.combine((1.0, top), (-1.0, bottom)).expand(tuple(value(node).shape))


@_rule("square", "sqrt", "rsqrt", "reciprocal", "pow")
def _power(s: ScalingTraversal, node: Node) -> Any:
    powers = {"square": 2.0, "sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}
    power = powers.get(operation(node), node.args[1] if len(node.args) > 1 else None)
    if not isinstance(power, float | int):
        return None
    return s.variables.combine((float(power), s.labels(node.args[0]))).expand(tuple(value(node).shape))
