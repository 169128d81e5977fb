"""Factors through normalisations, which take them away but for an ε."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from nm_ode.symmetries.operations import argument, registering, value
from nm_ode.symmetries.operations.normalisations import NORMALISATIONS, normalisation_of
from nm_ode.symmetries.rules.scaling.by_table import first_alone, with_others
from nm_ode.symmetries.rules.scaling.traversal import Rule, ScalingTraversal

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule(*NORMALISATIONS)
def _normalisation(s: ScalingTraversal, node: Node) -> Any:
    form = normalisation_of(node)
    if form is None or not first_alone(s, node):  # mean and spread scale as x does
        return None
    x = s.labels(form.x)
    if form.own:
        apart = form.apart(x)
        keep = tuple(dim for dim in range(apart.ndim) if dim not in form.over)
        s.absorb(node, s.variables.merge(apart, keep), form.epsilon)
    else:
        s.variables.zero(x)  # fixed statistics: an affine map
    y = torch.zeros((), dtype=torch.int64) if form.weight is None else s.labels(form.weight)
    if form.bias is not None and not s.is_zero(form.bias):
        bias = s.labels(form.bias)
        s.variables.equal(y.expand(bias.shape), bias)
    return with_others(form.placed(y, x.ndim).expand(x.shape), value(node))


@_rule("_weight_norm", "_weight_norm_interface")
def _weight_norm(s: ScalingTraversal, node: Node) -> Any:
    """W = g v/‖v‖: the norm takes v's factor away, exactly (Salimans & Kingma 2016)."""
    v, g = s.labels(node.args[0]), s.labels(node.args[1])
    dim = argument(node, "dim", 0) % v.ndim
    s.variables.merge(v, (dim,))
    return with_others(g.expand(v.shape), value(node))
