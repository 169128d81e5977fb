"""torch's operations at which a derivative may jump, and on which side of it each entry of a tensor is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

COMPARISON = "comparison"
"""A tensor's entries compared with something: a choice by theta, if anything is made of it."""

GUARD = "guard"
"""A lower bound so small that it keeps a logarithm or a division away from zero, and is no kink unless it is met."""

_TINY = 1e-4


@dataclass(frozen=True, eq=False)
class Unit:
    """One operation on what depends on theta.

    Attributes:
        name: for a reader.
        side: which side of the kink each entry is on, of any shape; None where it cannot be said.
    """

    name: str
    side: Tensor | None


class Operations(TorchDispatchMode):
    """The kinked operations on whatever is computed from theta, in the order of the forward pass.

    It looks at the operations themselves, whether a module or a function called them, and follows what is computed
    from theta, detached or not, by its memory.
    """

    def __init__(self, theta: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.units: list[Unit] = []
        self._alive = [theta]  # so that no memory is used twice
        self._from_theta = {None, _memory(theta)}  # what cannot be followed counts as computed from theta
        self._compared: dict[int | None, int] = {}  # memory of a mask → which unit it is

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(self._depends(leaf) for leaf in pytree.tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__.removesuffix("_")
        before = _BEFORE.get(name)
        unit = None if before is None else before(*args, **kwargs)
        made = func(*args, **kwargs)
        if unit is None and name in _AFTER:
            label, output = _AFTER[name]
            unit = Unit(label, made[output] if isinstance(made, tuple) else made if output == 0 else None)
        tensors = [leaf for leaf in pytree.tree_leaves(made) if isinstance(leaf, Tensor)]
        self._alive.extend(tensors)
        self._from_theta.update(map(_memory, tensors))
        if unit is not None:
            self._keep(unit, tensors)
        return made

    def _keep(self, unit: Unit, made: Sequence[Tensor]) -> None:
        if unit.name == COMPARISON:
            self._compared |= {_memory(mask): len(self.units) for mask in made}
        elif unit.name in _CHOOSES and unit.side is not None:
            if not self._depends(unit.side):
                return  # a choice by a mask that does not depend on theta
            compared = self._compared.get(_memory(unit.side))
            if compared is not None:
                self.units[compared] = Unit(unit.name, unit.side.clone())
                return
        # A side may be a view of what is written to later.
        self.units.append(unit if unit.side is None else replace(unit, side=unit.side.clone()))

    def _depends(self, leaf: Any) -> bool:
        return isinstance(leaf, Tensor) and _memory(leaf) in self._from_theta


def _memory(tensor: Tensor) -> int | None:
    """Of what a tensor views; None for a sparse one, which has none of its own."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else None


def _positive(name: str) -> Callable[..., Unit | None]:
    """Of complex numbers the size and the phase have a kink at 0 alone, which nothing passes from side to side."""
    return lambda x, *_, **__: None if x.is_complex() else Unit(name, x > 0)


def _band(name: str, low: float, high: float) -> Callable[..., Unit]:
    return lambda x, *_, **__: Unit(name, _between(x, low, high))


def _between(x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    side = torch.zeros_like(x, dtype=torch.int8)
    if low is not None:
        side = side + (x > low)
    if high is not None:
        side = side + (x > high)
    return side


def _is_tiny(bound: Any) -> bool:
    if isinstance(bound, Tensor):
        return bool(((bound > 0) & (bound <= _TINY)).all())
    return bound is not None and 0 < bound <= _TINY


def _clamp(x: Tensor, min: Any = None, max: Any = None) -> Unit:
    guards = max is None and _is_tiny(min)
    return Unit(GUARD if guards else "clamp", _between(x, min, max))


def _elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Unit | None:
    return None if alpha * input_scale == 1 else Unit("ELU / SELU", x > 0)


def _winner(name: str, sign: int) -> Callable[..., Unit]:
    def unit(x: Tensor, dim: Any = (), *_: Any, **__: Any) -> Unit:
        dims = [dim] if isinstance(dim, int) else list(dim or ())
        over = sorted({d % x.ndim for d in dims}) if dims else list(range(x.ndim))
        kept = [i for i in range(x.ndim) if i not in over]
        rows = (sign * x).permute(*kept, *over).reshape([*(x.shape[i] for i in kept), -1])
        return Unit(name, rows.argmax(-1))

    return unit


def _extreme(name: str, sign: int) -> Callable[..., Unit | None]:
    """`max` and `min`: over a dimension they say themselves which entry won; of two tensors the larger wins."""

    def unit(x: Tensor, other: Any = None, *_: Any, **__: Any) -> Unit | None:
        if isinstance(other, Tensor):
            return Unit(name, x > other)
        return Unit(name, (sign * x).reshape(-1).argmax()) if other is None else None

    return unit


def _norm(x: Tensor, p: Any = 2, *_: Any, **__: Any) -> Unit | None:
    order = 2.0 if p is None else float(p)
    if order == 1:
        return None if x.is_complex() else Unit("1-norm", x > 0)
    if math.isinf(order):
        return Unit("max-norm", (x.abs() * math.copysign(1, order)).reshape(-1).argmax())
    return None if order > 1 or x.is_complex() else Unit("norm", x > 0)


def _distance(x: Tensor, y: Tensor, p: float = 2.0, *_: Any) -> Unit | None:
    if p == 1:
        return Unit("1-norm", x.unsqueeze(-2) > y.unsqueeze(-3))
    return None if 1 < p < math.inf else Unit("max-norm", None)


def _chosen(x: Tensor, indices: Sequence[Tensor | None], *_: Any, **__: Any) -> Unit | None:
    masks = [index for index in indices if index is not None and index.dtype == torch.bool]
    return Unit("selection", masks[0]) if masks else None


def _compared(x: Any, other: Any) -> Unit | None:
    floating = [part for part in (x, other) if isinstance(part, Tensor) and part.is_floating_point()]
    return Unit(COMPARISON, torch.gt(x, other)) if floating else None


def _read(x: Tensor) -> Unit | None:
    """A number that Python reads, and may choose by."""
    return Unit(COMPARISON, x > 0) if x.is_floating_point() else None


_CHOOSES = ("where", "selection")

_BEFORE: Mapping[str, Callable[..., Unit | None]] = {
    "relu": _positive("ReLU"),
    "leaky_relu": _positive("LeakyReLU"),
    "_prelu_kernel": _positive("PReLU"),
    "rrelu_with_noise": _positive("RReLU"),
    "elu": _elu,
    "abs": _positive("abs"),
    "sign": _positive("sign"),
    "sgn": _positive("sign"),
    "heaviside": _positive("step"),
    "hardtanh": lambda x, low=-1.0, high=1.0: Unit("hardtanh / ReLU6", _between(x, low, high)),
    "clamp": _clamp,
    "clamp_min": lambda x, low: _clamp(x, low),
    "clamp_max": lambda x, high: _clamp(x, None, high),
    "threshold": lambda x, threshold, value: Unit("threshold", x > threshold),
    "hardshrink": lambda x, width=0.5: Unit("hardshrink", _between(x, -width, width)),
    "softshrink": lambda x, width=0.5: Unit("softshrink", _between(x, -width, width)),
    "hardswish": _band("hardswish", -3.0, 3.0),
    "hardsigmoid": _band("hardsigmoid", -3.0, 3.0),
    "floor": lambda x: Unit("floor", x.floor()),
    "ceil": lambda x: Unit("ceil", x.ceil()),
    "round": lambda x, **_: Unit("round", x.round()),
    "trunc": lambda x: Unit("trunc", x.trunc()),
    "frac": lambda x: Unit("frac", x.trunc()),
    "remainder": lambda x, y: Unit("remainder", torch.floor(x / y)),
    "fmod": lambda x, y: Unit("remainder", torch.trunc(x / y)),
    "where": lambda condition, *_: Unit("where", condition),
    "masked_fill": lambda x, mask, *_: Unit("where", mask),
    "masked_select": lambda x, mask: Unit("selection", mask),
    "masked_scatter": lambda x, mask, *_: Unit("selection", mask),
    "index": _chosen,
    "index_put": _chosen,
    "_local_scalar_dense": _read,
    "gt": _compared,
    "ge": _compared,
    "lt": _compared,
    "le": _compared,
    "amax": _winner("max", 1),
    "amin": _winner("min", -1),
    "maximum": lambda x, y: Unit("maximum", x > y),
    "minimum": lambda x, y: Unit("minimum", x > y),
    "fmax": lambda x, y: Unit("maximum", x > y),
    "fmin": lambda x, y: Unit("minimum", x > y),
    "max": _extreme("max", 1),
    "min": _extreme("min", -1),
    "norm": _norm,
    "linalg_vector_norm": _norm,
    "_cdist_forward": _distance,
    "multi_margin_loss": lambda *_, **__: Unit("margin loss", None),
    "multilabel_margin_loss_forward": lambda *_, **__: Unit("margin loss", None),
}
"""Looked at before the operation, which may write in place."""

_AFTER: Mapping[str, tuple[str, int]] = {
    "max": ("max", 1),
    "min": ("min", 1),
    "argmax": ("max", 0),
    "argmin": ("min", 0),
    "cummax": ("max", 1),
    "cummin": ("min", 1),
    "median": ("median", 1),
    "nanmedian": ("median", 1),
    "kthvalue": ("sort", 1),
    "mode": ("sort", 1),
    "sort": ("sort", 1),
    "argsort": ("sort", 0),
    "topk": ("top-k", 1),
    "bucketize": ("step", 0),
    "searchsorted": ("step", 0),
    "max_pool2d_with_indices": ("max-pooling", 1),
    "max_pool3d_with_indices": ("max-pooling", 1),
    "adaptive_max_pool2d": ("max-pooling", 1),
    "adaptive_max_pool3d": ("max-pooling", 1),
    "fractional_max_pool2d": ("max-pooling", 1),
    "fractional_max_pool3d": ("max-pooling", 1),
}
"""Which output says which entry won."""
