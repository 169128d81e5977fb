"""Factors through pooling: entries that one window sees have one factor, not all of a channel."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from nm_ode.symmetries.labels import NONE
from nm_ode.symmetries.operations import argument, registering, value
from nm_ode.symmetries.operations.declared import declared
from nm_ode.symmetries.rules.scaling.by_table import by_table, with_others
from nm_ode.symmetries.rules.scaling.traversal import Rule, ScalingTraversal

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices")
@_rule("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _pool(s: ScalingTraversal, node: Node) -> Any:
    """As declared, but where places have factors of their own: then window by window."""
    results = value(node)
    first = results[0] if isinstance(results, tuple | list) else results
    entry, labels = declared(node), s.labels(node.args[0])
    assert entry is not None
    space = entry.along(node)
    count = len(space)
    if all(s.variables.uniform(labels, dim) for dim in space):
        return by_table(s, node)

    def numbers(name: str, default: int) -> list[int]:
        given = argument(node, name, default)
        given = given if isinstance(given, list | tuple) else [given]
        return list(given) * count if len(given) == 1 else list(given)

    size, padding = numbers("kernel_size", 1), numbers("padding", 0)
    step = numbers("stride", 1) if argument(node, "stride") else size
    if any(n != 1 for n in numbers("dilation", 1)) or argument(node, "ceil_mode", False):
        return by_table(s, node)
    around = [n for pad in reversed(padding) for n in (pad, pad)]
    windows = s.with_zeros(torch.nn.functional.pad(labels, around, value=NONE))
    for dim, n, stride in zip(space, size, step, strict=True):
        windows = windows.unfold(dim, n, stride)
    if windows.shape[: labels.ndim] != first.shape:
        return by_table(s, node)
    made = s.variables.merge(windows, tuple(range(labels.ndim)))
    return with_others(made, results)
