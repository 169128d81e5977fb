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


def activation(name: str) -> nn.Module:
    """A new module of this name.

    Raises:
        UnknownNameError: there is none.
    """
    return ACTIVATIONS[name]()
