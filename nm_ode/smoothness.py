"""Is the loss a smooth function of theta? Read off the operations in its autograd graph."""

from __future__ import annotations

import re

from nm_ode.problem import Problem

_KINKED = {
    "Abs": "abs",
    "AdaptiveMaxPool": "max-pooling",
    "Amax": "max",
    "Amin": "min",
    "Aminmax": "min/max",
    "Ceil": "ceil",
    "Clamp": "clamp",
    "FractionalMaxPool": "max-pooling",
    "Hardshrink": "hardshrink",
    "Hardsigmoid": "hardsigmoid",
    "Hardswish": "hardswish",
    "Hardtanh": "hardtanh / ReLU6",
    "LeakyRelu": "LeakyReLU",
    "Max": "max",
    "MaxPool": "max-pooling",
    "Maximum": "maximum",
    "Median": "median",
    "Min": "min",
    "Minimum": "minimum",
    "MkldnnMaxPool": "max-pooling",
    "MultiMargin": "margin loss",
    "Nanmedian": "median",
    "Prelu": "PReLU",
    "PreluKernel": "PReLU",
    "Relu": "ReLU",
    "Round": "round",
    "Rrelu": "RReLU",
    "RreluWithNoise": "RReLU",
    "Sign": "sign",
    "Softshrink": "softshrink",
    "Sort": "sort",
    "Threshold": "threshold",
    "Topk": "top-k",
    "Where": "where",
}


def kinks(problem: Problem) -> tuple[str, ...]:
    """Operations between theta and the loss whose derivative jumps, as readable names; () if smooth.

    Only operations that the gradient passes through count: a kink in preparing the inputs does not.
    Operations with a continuous first derivative (ELU, Huber loss) count as smooth.
    """
    found: set[str] = set()
    seen: set[object] = set()
    waiting = [problem.loss_graph().grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        operation = re.sub(r"(WithIndices)?([123]D)?(WithIndices)?Backward\d*$", "", node.name())
        if operation in _KINKED:
            found.add(_KINKED[operation])
        waiting.extend(following for following, _ in node.next_functions)
    return tuple(sorted(found))
