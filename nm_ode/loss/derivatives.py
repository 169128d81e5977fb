"""Second and third derivatives of what torch fuses: where its own are missing or wrong, elementary operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Fused attention, cuDNN's recurrences and weight normalisation have no second derivative, or a wrong one."""
    with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False), _WeightNormWrittenOut():
        yield


@contextmanager
def thrice_differentiable() -> Iterator[None]:
    """As `twice_differentiable`, for third derivatives."""
    with twice_differentiable(), _NormalisationsWrittenOut():
        yield


class _WrittenOut(TorchFunctionMode):
    """Puts functions made of elementary operations in the place of torch's fused ones."""

    instead: ClassVar[dict[Any, Callable[..., Tensor]]]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.instead.get(func, func)(*args, **(kwargs or {}))


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """`F.layer_norm` and `torch.layer_norm`, differentiable any number of times."""
    over = tuple(range(-len(normalized_shape), 0))
    centred = x - x.mean(over, keepdim=True)
    normed = centred * (centred.square().mean(over, keepdim=True) + eps).rsqrt()
    normed = normed if weight is None else normed * weight
    return normed if bias is None else normed + bias


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm` without its side effect on the running statistics, differentiable any number of times."""
    over = tuple(i for i in range(x.ndim) if i != 1)
    return _normalised(x, over, weight, bias, running_mean, running_var, training, eps)


def instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.instance_norm` without its side effect, differentiable any number of times."""
    over = tuple(range(2, x.ndim))
    return _normalised(x, over, weight, bias, running_mean, running_var, use_input_stats, eps)


def _normalised(
    x: Tensor,
    over: tuple[int, ...],
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    own: bool,
    eps: float,
) -> Tensor:
    """Centred and scaled by its own statistics over some dimensions, or by running ones; channels come second."""

    def by_channel(vector: Tensor) -> Tensor:
        return vector.reshape(1, -1, *[1] * (x.ndim - 2))

    if own or running_mean is None or running_var is None:
        centred = x - x.mean(over, keepdim=True)
        variance = centred.square().mean(over, keepdim=True)
    else:
        centred, variance = x - by_channel(running_mean), by_channel(running_var)
    normed = centred * (variance + eps).rsqrt()
    normed = normed if weight is None else normed * by_channel(weight)
    return normed if bias is None else normed + by_channel(bias)


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v/‖v‖, the norm over all dimensions but `dim` (Salimans & Kingma 2016); differentiable any number of times."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


class _WeightNormWrittenOut(_WrittenOut):
    """torch's own (seen with 2.13) takes ‖v‖ for a constant in its second derivative, silently."""

    instead: ClassVar = {torch._weight_norm: weight_norm}


class _NormalisationsWrittenOut(_WrittenOut):
    """torch's own (seen with 2.13) take mean and variance for constants in their third derivative, silently."""

    instead: ClassVar = {
        F.layer_norm: layer_norm,
        torch.layer_norm: layer_norm,
        F.batch_norm: batch_norm,
        F.instance_norm: instance_norm,
    }
