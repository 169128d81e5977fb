"""Multilayer perceptron; with two widths, linear regression."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "identity": nn.Identity,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


def mlp(
    widths: Sequence[int], activation: str = "tanh", *, bias: bool = True, seed: int = 0
) -> nn.Sequential:
    """Linear layers of the given widths with an activation between; torch's initialisation in float64.

    Args:
        widths: input, hidden and output widths, at least two; layers are named linear1, tanh1, linear2, …
        activation: a key of ACTIVATIONS.
        seed: of the initialisation; torch's global random state is left as it was.

    Raises:
        ValueError: fewer than two widths, or one below 1.
        KeyError: unknown activation.
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths must be at least two positive numbers; {list(widths)} was given")
    between = ACTIVATIONS[activation]
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for i, (n_in, n_out) in enumerate(pairwise(widths), start=1):
            modules[f"linear{i}"] = nn.Linear(n_in, n_out, bias=bias, dtype=torch.float64)
            if i < len(widths) - 1:
                modules[f"{activation}{i}"] = between()
    return nn.Sequential(modules)
