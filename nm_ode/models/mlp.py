"""Multilayer perceptron; with two widths, linear regression."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, TypeAlias, get_args

import torch
from annotated_types import MinLen
from torch import nn

from nm_ode.errors import ArgumentError
from nm_ode.models.activations import activation as make
from nm_ode.models.options import Activation, Count
from nm_ode.models.seeding import seeded

Norm: TypeAlias = Literal["none", "batch", "layer"]


def mlp(
    widths: Annotated[Sequence[Count], MinLen(2)],
    activation: Activation = "tanh",
    *,
    bias: bool = True,
    norm: Norm = "none",
    seed: int = 0,
) -> nn.Sequential:
    """Linear layers of the given widths with an activation between; torch's initialisation in float64.

    Args:
        widths: input, hidden and output widths, at least two; layers are named linear1, tanh1, linear2, …
        activation: a key of ACTIVATIONS.
        bias: have the linear layers one?
        norm: "batch" or "layer" for a normalisation before each activation, named norm1, norm2, …
        seed: of the initialisation; torch's global random state is left as it was.

    Raises:
        ArgumentError: fewer than two widths, one below 1, or an unknown norm.
        UnknownNameError: unknown activation.

    Example:
        >>> from nm_ode.models import mlp
        >>> mlp([64, 16, 10], "relu")
        Sequential(
          (linear1): Linear(in_features=64, out_features=16, bias=True)
          (relu1): ReLU()
          (linear2): Linear(in_features=16, out_features=10, bias=True)
        )
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ArgumentError(f"widths must be at least two positive numbers; {list(widths)} was given")
    if norm not in get_args(Norm):
        raise ArgumentError(f"norm must be one of {', '.join(get_args(Norm))}; {norm!r} was given")
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    with seeded(seed):
        for i, (n_in, n_out) in enumerate(pairwise(widths), start=1):
            modules[f"linear{i}"] = nn.Linear(n_in, n_out, bias=bias, dtype=torch.float64)
            if i < len(widths) - 1:
                if norm != "none":
                    kind = nn.BatchNorm1d if norm == "batch" else nn.LayerNorm
                    modules[f"norm{i}"] = kind(n_out, dtype=torch.float64)
                modules[f"{activation}{i}"] = make(activation)
    return nn.Sequential(modules)
