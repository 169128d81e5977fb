"""Factors through an einsum of two operands."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.operations import registering, value
from nm_ode.symmetries.rules.scaling.contractions import contract
from nm_ode.symmetries.rules.scaling.traversal import Rule, ScalingTraversal, Term, Use
from nm_ode.symmetries.rules.weights import described

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule("einsum")
def _einsum(s: ScalingTraversal, node: Node) -> Tensor | None:
    """Two operands without repeated or summed-out letters, as a batched matrix product."""
    equation, operands = node.args[0], node.args[1]
    plan = einsum_plan(equation, operands)
    if plan is None:
        return None
    (first, second), (order_a, order_b, order_out), sizes = plan
    a, b = operands[0], operands[1]  # type: ignore[index]
    batch, m, k, n = sizes
    right = s.weight(b)
    if right is not None and not batch:
        view = right.view.permute(order_b)
        x = s.labels(a).permute(order_a)
        kept = s.variables.merge(x, tuple(range(len(m), len(m) + len(k))))
        y = s.variables.new(int(np.prod([value(b).shape[second.index(c)] for c in n] or [1])))
        axes_k, axes_n = tuple(range(len(k))), tuple(range(len(k), len(k) + len(n)))
        kept_view = described(right.name, view)
        s.uses.append(Use(kept_view, (Term(axes_n, y, 1.0), Term(axes_k, kept.reshape(-1), -1.0))))
        shape_m = [value(a).shape[first.index(c)] for c in m]
        shape_n = [value(b).shape[second.index(c)] for c in n]
        out = y.reshape(*[1] * len(m), *shape_n).expand(*shape_m, *shape_n)
        return out.permute(order_out)
    x, w = s.labels(a).permute(order_a), s.labels(b).permute(order_b)
    nb, nm, nk = len(batch), len(m), len(k)
    a3 = x.reshape(*x.shape[:nb], int(np.prod(x.shape[nb : nb + nm])), -1)
    b3 = w.reshape(*w.shape[:nb], int(np.prod(w.shape[nb : nb + nk])), -1)
    out = contract(s.variables, a3, b3)
    return out.reshape(*x.shape[: nb + nm], *w.shape[nb + nk :]).permute(order_out)


def einsum_plan(equation: Any, operands: Any) -> Any:
    """Letters and permutations that make an einsum of two operands a batched matrix product; None if it is not."""
    if len(operands) != 2 or "->" not in equation or "." in equation:
        return None
    inputs, out = equation.replace(" ", "").split("->")
    first, second = inputs.split(",")
    if len(set(first)) < len(first) or len(set(second)) < len(second):
        return None
    batch = [c for c in first if c in second and c in out]
    k = [c for c in first if c in second and c not in out]
    m = [c for c in first if c not in second]
    n = [c for c in second if c not in first]
    if not k or any(c not in out for c in m + n):
        return None
    order_a = [first.index(c) for c in batch + m + k]
    order_b = [second.index(c) for c in batch + k + n]
    made = batch + m + n
    return (first, second), (order_a, order_b, [made.index(c) for c in out]), (batch, m, k, n)
