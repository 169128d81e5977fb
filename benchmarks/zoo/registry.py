"""What a network of the zoo is: a model with an objective on a batch, small, of random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Net:
    """objective(model, batch) -> scalar; the batch is a tree of tensors, samples along the first axis.

    Attributes:
        columns: do the columns of integers mean different things?
        single: the problem is in float32, since an operation has no float64.
    """

    model: nn.Module
    objective: Callable[[Any, Any], Tensor]
    batch: Any
    columns: bool = False
    single: bool = False


@dataclass(frozen=True)
class Entry:
    """An architecture.

    Attributes:
        name: as people call it.
        family: what it is for.
        source: whose code it is: a library's name, or "written out" here.
        loss: in a few words.
        build: makes it anew, from the global random numbers.
    """

    name: str
    family: str
    source: str
    loss: str
    build: Callable[[], Net]


ZOO: dict[str, Entry] = {}


def network(
    name: str, family: str, source: str, loss: str
) -> Callable[[Callable[[], Net]], Callable[[], Net]]:
    """Decorator: this function builds the architecture of this name."""

    def register(build: Callable[[], Net]) -> Callable[[], Net]:
        ZOO[name] = Entry(name, family, source, loss, build)
        return build

    return register


def built(name: str, seed: int = 0) -> Net:
    """One network, with every parameter moved off what it starts from: zeros, ones and faint weights hide much."""
    torch.manual_seed(seed)
    net = ZOO[name].build()
    with torch.no_grad():
        for parameter in net.model.parameters():
            size = float(parameter.square().mean().sqrt()) if parameter.numel() else 0.0
            noise = torch.randn(parameter.shape, dtype=parameter.dtype)
            parameter.add_(noise, alpha=max(0.2 * size, 0.3))
        for module in net.model.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0
    return net


def supervised(model: nn.Module, loss: Callable[[Any, Any], Tensor], x: Any, y: Any) -> Net:
    """The loss of what the model says of x, and y."""
    return Net(model, lambda model, batch: loss(model(batch[0]), batch[1]), (x, y))


def classified(model: nn.Module, x: Any, classes: int) -> Net:
    """Cross entropy with random classes."""
    return supervised(model, F.cross_entropy, x, tokens(classes, len(x)))


def regressed(model: nn.Module, x: Any, *shape: int) -> Net:
    """Squared error to random targets."""
    return supervised(model, F.mse_loss, x, torch.randn(len(x), *shape))


def tokens(vocabulary: int, *shape: int) -> Tensor:
    """Random ids, the least and the largest among them."""
    ids = torch.randint(vocabulary, shape)
    ids[0], ids[-1] = 0, vocabulary - 1
    return ids


def of_tokens(logits: Tensor, ids: Tensor) -> Tensor:
    """Cross entropy of every position."""
    return F.cross_entropy(logits.flatten(0, -2), ids.flatten())
