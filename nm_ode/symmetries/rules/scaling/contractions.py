"""Factors through contractions: matrix products, convolutions, lookups, attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.labels import at
from nm_ode.symmetries.operations import argument, operation, registering, value
from nm_ode.symmetries.padding import padding_row, stays_zero
from nm_ode.symmetries.rules.scaling.traversal import Rule, ScalingTraversal, Term, Use
from nm_ode.symmetries.rules.scaling.variables import Variables
from nm_ode.symmetries.rules.weights import described

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule("linear", "addmm", "mm", "bmm", "matmul", "baddbmm", "mv")
def _linear(s: ScalingTraversal, node: Node) -> Any:
    """y[m, n] = Σ_k a[m, k] b[k, n], in its many spellings."""
    name = operation(node)
    added = None
    if name == "linear":
        a, b, added = node.args[0], node.args[1], argument(node, "bias")
    elif name in ("addmm", "baddbmm"):
        added, a, b = node.args[:3]
    else:
        a, b = node.args[:2]
    result = tuple(value(node).shape)
    out = _contracted(s, a, b, transposed=name == "linear")
    if out is None:
        return None
    out = out.expand(result) if out.ndim == len(result) else out.reshape(result)
    if added is not None:
        bias = s.labels(added).expand(result)
        s.variables.equal(out, bias)
    return out


def _contracted(s: ScalingTraversal, a: Any, b: Any, *, transposed: bool = False) -> Tensor | None:
    left, right = s.weight(a), s.weight(b)
    if right is not None and right.view.ndim == 2:
        x = s.labels(a)
        axis_n, axis_k = (0, 1) if transposed else (1, 0)
        k = s.variables.merge(x, (-1,))
        y = s.variables.new(right.view.shape[axis_n])
        s.uses.append(
            Use(described(right.name, right.view), (Term((axis_n,), y, 1.0), Term((axis_k,), k, -1.0)))
        )
        return at(y, -1, x.ndim).expand(*x.shape[:-1], -1)
    if left is not None and left.view.ndim == 2 and not transposed and s.labels(b).ndim == 2:
        x = s.labels(b)
        k = s.variables.merge(x, (0,))
        y = s.variables.new(left.view.shape[0])
        s.uses.append(Use(described(left.name, left.view), (Term((0,), y, 1.0), Term((1,), k, -1.0))))
        return y[:, None].expand(-1, x.shape[1])
    labels = s.labels(a), s.labels(b)
    if labels[0].ndim < 2 or labels[1].ndim < 2:
        return None
    return contract(s.variables, labels[0], labels[1].mT if transposed else labels[1])


def contract(variables: Variables, a: Tensor, b: Tensor) -> Tensor:
    """Labels of a @ b for a (…, M, K) and b (…, K, N), neither of them a parameter.

    a[m,k] + b[k,n] must be the same for all k. Where either is uniform in k both must be; where both vary, what
    is taken is a[k] + b[k] = y, which loses only factors of single rows.
    """
    if variables.uniform(a, -1) or variables.uniform(b, -2):
        rows = variables.merge(a, tuple(range(a.ndim - 1)))[..., :, None]
        columns = variables.merge(b, (*range(b.ndim - 2), b.ndim - 1))[..., None, :]
        rows, columns = torch.broadcast_tensors(rows, columns)
        return variables.combine((1.0, rows), (1.0, columns)).expand(rows.shape)
    k_of_a = variables.merge(a, (*range(a.ndim - 2), a.ndim - 1))
    k_of_b = variables.merge(b, tuple(range(b.ndim - 1)))
    total = variables.combine((1.0, k_of_a), (1.0, k_of_b))
    y = variables.merge(total, tuple(range(total.ndim - 1)))
    return y[..., None, None].expand(*y.shape, a.shape[-2], b.shape[-1])


@_rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _convolution(s: ScalingTraversal, node: Node) -> Any:
    x, result = s.labels(node.args[0]), value(node)
    if x.ndim != result.ndim or x.ndim < 3:
        return None
    groups = argument(node, "groups", 1)
    channels = s.variables.merge(x, (1,))
    weight = s.weight(node.args[1])
    if weight is not None:
        y = s.variables.new(result.shape[1])
        view = weight.view.unflatten(0, (groups, -1)) if groups > 1 else weight.view
        # Axes of a convolution's outputs and inputs; a transposed one has them the other way round.
        axes = ((0, 1), (0, 2)) if groups > 1 else ((0,), (1,))
        outputs, inputs = axes[::-1] if "transpose" in operation(node) else axes
        kept_view = described(weight.name, view)
        s.uses.append(Use(kept_view, (Term(outputs, y, 1.0), Term(inputs, channels, -1.0))))
    elif "transpose" in operation(node):
        return None
    else:
        entries = s.labels(node.args[1])
        out, inn = entries.shape[:2]
        kernel_merged = s.variables.merge(entries, (0, 1)).reshape(groups, out // groups, inn)
        y = contract(s.variables, channels.reshape(groups, 1, inn), kernel_merged.mT).reshape(-1)
    bias = argument(node, "bias")
    if bias is not None:
        s.variables.equal(y, s.labels(bias))
    return at(y, 1, result.ndim).expand(tuple(result.shape))


@_rule("embedding")
def _embedding(s: ScalingTraversal, node: Node) -> Any:
    weight = s.weight(node.args[0])
    if weight is None:
        return None
    if argument(node, "scale_grad_by_freq"):
        return None  # torch's gradient is not the derivative
    y = s.variables.new(weight.view.shape[1])
    s.uses.append(Use(described(weight.name, weight.view), (Term((1,), y, 1.0),)))
    if padding_row(node) is not None and not stays_zero(s.graph, node):
        s.variables.zero(y)  # a row that is not zero, and that nothing trains
    shape = tuple(value(node).shape)
    return at(y, -1, len(shape)).expand(shape)


@_rule("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu")
def _attention(s: ScalingTraversal, node: Node) -> Any:
    query, key, values = (s.labels(part) for part in node.args[:3])
    if argument(node, "enable_gqa", False) or isinstance(value(node), tuple | list):
        return None
    mask = argument(node, "attn_mask")
    if mask is not None:
        s.variables.zero(s.labels(mask))
    s.variables.zero(contract(s.variables, query, key.mT))
    tokens = s.variables.merge(values, (*range(values.ndim - 2), values.ndim - 1))
    return tokens[..., None, :].expand(tuple(value(node).shape))
