"""Activations by the names that cases use."""

from __future__ import annotations

from torch import nn

from nm_ode.registry import Registry

ACTIVATIONS: Registry[type[nn.Module]] = Registry(
    "activation",
    {
        "elu": nn.ELU,
        "gelu": nn.GELU,
        "identity": nn.Identity,
        "leaky_relu": nn.LeakyReLU,
        "relu": nn.ReLU,
        "sigmoid": nn.Sigmoid,
        "silu": nn.SiLU,
        "softplus": nn.Softplus,
        "tanh": nn.Tanh,
    },
)
"""Activations by name: classes of modules that take no arguments.

Example:
    >>> from nm_ode.models import ACTIVATIONS
    >>> sorted(ACTIVATIONS)
    ['elu', 'gelu', 'identity', 'leaky_relu', 'relu', 'sigmoid', 'silu', 'softplus', 'tanh']
    >>> ACTIVATIONS["silu"]()
    SiLU()
"""


def activation(name: str) -> nn.Module:
    """A new module of this name.

    Raises:
        UnknownNameError: there is none.
    """
    return ACTIVATIONS[name]()
