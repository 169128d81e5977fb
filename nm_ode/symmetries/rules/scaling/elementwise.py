"""Factors through what the table of operations cannot say: sums with an ε, floors under a norm, fillers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.fx import Node

from nm_ode.symmetries.labels import placed
from nm_ode.symmetries.operations import argument, dims_of, operation, registering, value
from nm_ode.symmetries.rules.scaling.by_table import by_table
from nm_ode.symmetries.rules.scaling.traversal import Rule, ScalingTraversal

_SMALL = 1e-3  # a number up to this under a root or in a denominator is taken for a normalisation's ε
_MANY = 64  # factors of a product of which each may be another

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule("add")
def _sum(s: ScalingTraversal, node: Node) -> Any:
    """As declared, but for a small number under a root or in a denominator: an ε."""
    for number in node.args[:2]:
        if isinstance(number, float | int) and 0 < number <= _SMALL and _is_under_root(node):
            return s.beside(node, float(number))
    return by_table(s, node)


def _is_under_root(node: Node) -> bool:
    """By itself, or in a product with others."""
    return bool(node.users) and all(
        operation(user) in ("rsqrt", "sqrt", "reciprocal")
        or (operation(user) == "pow" and user.args[1] in (-0.5, 0.5, -1))
        or (operation(user) == "div" and user.args[1] is node)
        or (operation(user) == "mul" and _is_under_root(user))
        for user in node.users
    )


@_rule("clamp_min", "clamp")
def _clamp(s: ScalingTraversal, node: Node) -> Any:
    """As declared, but for a small floor under a norm, as in F.normalize: no norm that is not zero meets it."""
    low, high = argument(node, "min"), argument(node, "max")
    norm = operation(node.args[0]) in ("linalg_vector_norm", "norm", "sqrt")  # type: ignore[arg-type]
    if norm and high is None and isinstance(low, float | int) and 0 < low <= _SMALL:
        return s.labels(node.args[0])
    return by_table(s, node)


@_rule("masked_fill")
def _masked_fill(s: ScalingTraversal, node: Node) -> Any:
    filler = node.args[2]
    zero = s.is_zero(filler) or (isinstance(filler, float | int) and (filler == 0 or np.isinf(filler)))
    return s.labels(node.args[0]).expand(tuple(value(node).shape)) if zero else None


@_rule("addcmul", "addcdiv")
def _sum_with_product(s: ScalingTraversal, node: Node) -> Any:
    """x + number · a · b, or a/b."""
    x, a, b = node.args[:3]
    shape = tuple(value(node).shape)
    sign = 1.0 if operation(node) == "addcmul" else -1.0
    made = s.variables.combine((1.0, s.labels(a)), (sign, s.labels(b))).expand(shape)
    if not s.is_zero(x):
        s.variables.equal(made, s.labels(x).expand(shape))
    return made


@_rule("prod")
def _product(s: ScalingTraversal, node: Node) -> Any:
    """Along a dimension every factor may be another."""
    labels, dim = s.labels(node.args[0]), argument(node, "dim")
    if dim is None or labels.shape[dim] > _MANY:
        return by_table(s, node)
    made = s.variables.combine(*((1.0, labels.select(dim, i)) for i in range(labels.shape[dim])))
    return made.reshape(tuple(value(node).shape))


@_rule("var_mean", "std_mean")
def _spread_and_mean(s: ScalingTraversal, node: Node) -> Any:
    x, gone = s.labels(node.args[0]), dims_of(node)
    kept = s.variables.merge(x, tuple(dim for dim in range(x.ndim) if dim not in gone))
    power = 2.0 if operation(node) == "var_mean" else 1.0
    shape = tuple(value(node)[0].shape)
    return s.variables.combine((power, kept)).reshape(shape), kept.reshape(shape)


@_rule("cdist", "_cdist_forward")
def _distances(s: ScalingTraversal, node: Node) -> Any:
    """Each row of one with each of the other: all have one factor."""
    a, b = (s.labels(one) for one in node.args[:2])
    kept = [s.variables.merge(one, tuple(range(one.ndim - 2))) for one in (a, b)]
    s.variables.equal(*torch.broadcast_tensors(*kept))
    return kept[0][..., None, None].expand(tuple(value(node).shape))


@_rule("constant_pad_nd", "pad")
def _pad(s: ScalingTraversal, node: Node) -> Any:
    """A zero stays zero whatever its factor; other modes put in copies of a channel's own entries."""
    mode, filler = argument(node, "mode", "constant"), argument(node, "value", 0)
    if mode != "constant":
        return by_table(s, node)
    if filler not in (None, 0, 0.0):
        return None
    if node in s.graph.sized:  # by how much is the batch's: then all along what is padded have one factor
        shape, pads = tuple(value(node).shape), node.meta["with_sizes"][1]
        padded_dims = {len(shape) - 1 - i // 2 for i, n in enumerate(pads) if n != 0}
        keep = tuple(dim for dim in range(len(shape)) if dim not in padded_dims)
        return placed(s.merged(node.args[0], keep), keep, len(shape)).expand(shape)  # type: ignore[arg-type]
    padded = torch.nn.functional.pad(s.labels(node.args[0]), node.args[1], value=-1)  # type: ignore[arg-type]
    return s.with_zeros(padded)


@_rule("view_as_real")
def _pairs(s: ScalingTraversal, node: Node) -> Any:
    """Both parts of a complex number have its factor."""
    return s.labels(node.args[0])[..., None].expand(tuple(value(node).shape))


@_rule("diag_embed")
def _diagonal_matrix(s: ScalingTraversal, node: Node) -> Any:
    return s.with_zeros(torch.diag_embed(s.labels(node.args[0]) + 1, *node.args[1:], **node.kwargs) - 1)  # type: ignore[arg-type]


@_rule("im2col", "unfold", "col2im")
def _windows(s: ScalingTraversal, node: Node) -> Any:
    """Windows of images as columns, and back: a channel's entries have one factor."""
    x, result = node.args[0], value(node)
    assert isinstance(x, Node)
    if operation(node) == "unfold":
        return None if node in s.graph.sized else s.labels(x).unfold(*node.args[1:])  # type: ignore[arg-type]
    if value(x).ndim != (4 if operation(node) == "im2col" else 3):
        return None
    size = argument(node, "kernel_size")
    if operation(node) == "im2col":
        channels = s.merged(x, (0, 1)).repeat_interleave(size[0] * size[1], 1)
        return channels[..., None].expand(tuple(result.shape))
    apart = s.labels(x).unflatten(1, (result.shape[1], -1))
    return s.variables.merge(apart, (0, 1))[..., None, None].expand(tuple(result.shape))
