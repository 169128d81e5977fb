"""Shifts through sums, factors that are numbers, and the softmax, which takes away what all its entries share."""

from __future__ import annotations

from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.operations import argument, operation, registering, value
from nm_ode.symmetries.rules.translation.partitions import tied_along
from nm_ode.symmetries.rules.translation.traversal import Labelled, Rule, broadcast_back, labelled

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule("add", "sub", "rsub")
def _sum(node: Node, mine: Tensor | None) -> Labelled:
    return labelled(*((part, broadcast_back(part, mine)) for part in node.args[:2] if isinstance(part, Node)))


@_rule("mul", "div")
def _by_a_number(node: Node, mine: Tensor | None) -> Labelled:
    a, b = node.args[:2]
    if isinstance(b, float | int):
        return labelled((a, mine))
    if isinstance(a, float | int) and operation(node) == "mul":
        return labelled((b, mine))
    return labelled((a, None), (b, None))


@_rule("dropout")
def _dropout(node: Node, mine: Tensor | None) -> Labelled:
    active = argument(node, "train") and argument(node, "p") > 0
    return labelled((node.args[0], None if active else mine))


@_rule("neg")
def _negative(node: Node, mine: Tensor | None) -> Labelled:
    return labelled((node.args[0], mine))


@_rule("softmax", "log_softmax", "_softmax", "_log_softmax")
def _softmax(node: Node, mine: Tensor | None) -> Labelled:
    x = node.args[0]
    assert isinstance(x, Node)
    return labelled((x, tied_along(value(x).shape, [argument(node, "dim")])))


@_rule("cross_entropy_loss")
def _cross_entropy(node: Node, mine: Tensor | None) -> Labelled:
    x = node.args[0]
    assert isinstance(x, Node)
    shape = value(x).shape
    return labelled((x, tied_along(shape, [1 if len(shape) > 1 else 0])))
