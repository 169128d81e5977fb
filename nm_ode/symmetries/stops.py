"""Where gradients stop: blocks under `torch.no_grad`, which an exported graph would run like any other."""

from __future__ import annotations

import operator

import torch
from torch.fx import GraphModule, Node

_WITH_GRADIENTS_SET = torch.ops.higher_order.wrap_with_set_grad_enabled


def find_stops(module: GraphModule, *, keep: bool) -> bool:
    """Are there blocks without gradients? To `keep` them, what comes out is detached, since blocks are inlined.

    Nothing that moves may enter a `detach` (no rule knows it), which is what makes the proof hold: the gradient that
    trains is then the derivative along all that the symmetry moves.
    """
    found = False
    for inner in list(module.modules()):
        if isinstance(inner, GraphModule):
            for node in list(inner.graph.nodes):
                if node.target is _WITH_GRADIENTS_SET and node.args[0] is False:
                    found = True
                    for result in list(node.users) if keep else ():
                        _detached(inner, result)
            inner.recompile()
    return found


def _detached(module: GraphModule, node: Node) -> None:
    value = node.meta.get("val")
    if node.target is not operator.getitem or not isinstance(value, torch.Tensor):
        return
    if not value.is_floating_point():
        return
    with module.graph.inserting_after(node):
        stopped = module.graph.call_function(torch.ops.aten.detach.default, (node,))
    stopped.meta = dict(node.meta)
    node.replace_all_uses_with(stopped, delete_user_cb=lambda user: user is not stopped)
