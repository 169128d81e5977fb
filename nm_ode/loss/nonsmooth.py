"""Is the loss a smooth function of theta, and how often does a path cross its kinks?"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from nm_ode.loss.problem import Problem

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

    Only operations that the gradient passes through count: a kink in preparing the inputs does not, nor does a choice
    by a mask that does not depend on theta. Operations with a continuous first derivative (ELU, Huber loss) count as
    smooth.
    """
    choices = _Choices(problem.theta0)
    with choices:
        loss = problem.loss_graph()
    found: set[str] = set()
    seen: set[object] = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        operation = re.sub(r"(WithIndices)?([123]D)?(WithIndices)?Backward\d*$", "", node.name())
        if operation in _KINKED and (operation != "Where" or choices.by_theta):
            found.add(_KINKED[operation])
        waiting.extend(following for following, _ in node.next_functions)
    return tuple(sorted(found))


def sides(problem: Problem, theta: Tensor) -> list[Tensor]:
    """On which side of its kink each unit is, operation by operation in the order of the forward pass.

    A unit is an entry of what goes into a ReLU (leaky ReLU, hardtanh, clamp, abs, maximum …), for each sample, or a
    window of a max-pooling.
    """
    recorder = _Sides()
    for batch in problem.chunks():
        with torch.no_grad(), recorder:  # what reading the batch does is no part of the loss
            problem.loss_on(theta, batch)
    return recorder.found


def changed_share(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Share of units that are on another side after than before; NaN if there is none."""
    count = sum(side.numel() for side in before)
    changed = sum(int((one != other).sum()) for one, other in zip(before, after, strict=True))
    return changed / count if count else math.nan


class _Choices(TorchDispatchMode):
    """Does a `torch.where` choose by theta? Follows what is computed from theta, detached or not, by its memory."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_theta = False
        self._alive = [theta]  # so that no memory is used twice
        self._from_theta = {None, _memory(theta)}  # what cannot be followed counts as computed from theta

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        depends = any(self._depends(leaf) for leaf in pytree.tree_leaves((args, kwargs)))
        if func.overloadpacket is _aten.where and self._depends(args[0]):
            self.by_theta = True
        made = func(*args, **(kwargs or {}))
        if depends:
            tensors = [leaf for leaf in pytree.tree_leaves(made) if isinstance(leaf, Tensor)]
            self._alive.extend(tensors)
            self._from_theta.update(map(_memory, tensors))
        return made

    def _depends(self, leaf: Any) -> bool:
        return isinstance(leaf, Tensor) and _memory(leaf) in self._from_theta


def _memory(tensor: Tensor) -> int | None:
    """Of what a tensor views; None for a sparse one, which has none of its own."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else None


class _Sides(TorchDispatchMode):
    """Looks at the operations themselves, whether a module or a function called them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        side = _SIDE.get(func.overloadpacket)
        if side is not None:
            self.found.append(side(*args, **(kwargs or {})))
        made = func(*args, **(kwargs or {}))
        winner = _WINNER.get(func.overloadpacket)
        if winner is not None and isinstance(made, tuple):
            self.found.append(made[winner])
        return made


def _positive(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x > 0


def _between(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    side = torch.zeros_like(x, dtype=torch.int8)
    if low is not None:
        side += x > low
    if high is not None:
        side += x > high
    return side


def _winner(x: Tensor, dim: Sequence[int]) -> Tensor:
    kept = [i for i in range(x.ndim) if i not in {d % x.ndim for d in dim}] if dim else []
    over = [i for i in range(x.ndim) if i not in kept]
    return x.permute(*kept, *over).reshape([*(x.shape[i] for i in kept), -1]).argmax(-1)


_aten = torch.ops.aten
_SIDE: dict[Any, Callable[..., Tensor]] = {
    _aten.relu: _positive,
    _aten.relu_: _positive,
    _aten.leaky_relu: _positive,
    _aten.leaky_relu_: _positive,
    _aten._prelu_kernel: _positive,
    _aten.abs: _positive,
    _aten.hardtanh: lambda x, low=-1.0, high=1.0: _between(x, low, high),
    _aten.hardtanh_: lambda x, low=-1.0, high=1.0: _between(x, low, high),
    _aten.clamp: _between,
    _aten.clamp_min: lambda x, low: _between(x, low),
    _aten.clamp_max: lambda x, high: _between(x, high),
    _aten.threshold: lambda x, threshold, value: x > threshold,
    _aten.hardshrink: lambda x, width=0.5: _between(x, -width, width),
    _aten.softshrink: lambda x, width=0.5: _between(x, -width, width),
    _aten.hardswish: lambda x: _between(x, -3.0, 3.0),
    _aten.hardsigmoid: lambda x: _between(x, -3.0, 3.0),
    _aten.where: lambda condition, *_: condition,
    _aten.amax: lambda x, dim=(), keepdim=False: _winner(x, dim),
    _aten.amin: lambda x, dim=(), keepdim=False: _winner(-x, dim),
    _aten.maximum: lambda x, y: x > y,
    _aten.minimum: lambda x, y: x > y,
}
_WINNER = {  # which output says which entry won
    _aten.max_pool2d_with_indices: 1,
    _aten.max_pool3d_with_indices: 1,
    _aten.adaptive_max_pool2d: 1,
    _aten.max: 1,
    _aten.min: 1,
}
