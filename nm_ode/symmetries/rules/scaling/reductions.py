"""Factors through operations that put entries of a channel together: pooling, padding, sums, means, norms."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from nm_ode.symmetries.labels import dims_of, other_dims
from nm_ode.symmetries.operations import argument, operation, registering, value
from nm_ode.symmetries.rules.scaling.traversal import Rule, ScalingTraversal, zeros

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d")
@_rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
@_rule("adaptive_max_pool1d", "adaptive_max_pool2d", "max_pool2d_with_indices", "max_pool1d_with_indices")
@_rule("upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d")
@_rule("reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d", "_pad_circular")
def _pool(s: ScalingTraversal, node: Node) -> Any:
    labels, result = s.labels(node.args[0]), value(node)
    first = result[0] if isinstance(result, tuple | list) else result
    leading = 2 if labels.ndim > 2 and first.ndim == labels.ndim else 1
    channels = s.variables.merge(labels, tuple(range(leading)))
    out = channels.reshape(*channels.shape, *[1] * (first.ndim - leading)).expand(tuple(first.shape))
    return (out, zeros(out)) if isinstance(result, tuple | list) else out


@_rule("constant_pad_nd", "pad")
def _pad(s: ScalingTraversal, node: Node) -> Any:
    mode, filler = argument(node, "mode", "constant"), argument(node, "value", 0)
    if mode != "constant":
        return _pool(s, node)  # copies of a channel's own entries
    if filler not in (None, 0, 0.0) or node in s.graph.sized:  # by how much is the batch's
        return None
    padded = torch.nn.functional.pad(s.labels(node.args[0]), node.args[1], value=-1).clone()  # type: ignore[arg-type]
    holes = padded == -1
    padded[holes] = s.variables.new(int(holes.sum()))  # a zero stays zero whatever its factor
    return padded


@_rule("mean", "sum", "amax", "amin", "linalg_vector_norm", "norm", "std", "var")
def _reduction(s: ScalingTraversal, node: Node) -> Any:
    labels, result = s.labels(node.args[0]), value(node)
    keep = other_dims(labels.ndim, dims_of(node))
    merged = s.variables.merge(labels, keep)
    if operation(node) == "var":
        merged = s.variables.combine((2.0, merged)).expand(merged.shape)
    return merged.reshape(tuple(result.shape))
