"""A small convolutional network for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias, get_args

import torch
from annotated_types import MinLen
from torch import nn

from nm_ode.errors import ArgumentError
from nm_ode.models.activations import activation as make
from nm_ode.models.options import Activation, Count
from nm_ode.models.seeding import seeded

Pooling: TypeAlias = Literal["max", "average"]


def cnn(
    widths: Annotated[Sequence[Count], MinLen(1)] = (8, 16),
    *,
    classes: Count = 10,
    image: int = 8,
    channels: int = 1,
    activation: Activation = "relu",
    batch_norm: bool = False,
    pooling: Pooling = "max",
    seed: int = 0,
) -> nn.Sequential:
    """3×3 convolutions with a 2×2 pooling after each, then one Linear layer; in float64.

    Args:
        widths: channels of each convolution.
        classes: number of outputs.
        image: side of the square images; each pooling halves it, rounding down.
        channels: of the images.
        activation: a key of ACTIVATIONS.
        batch_norm: a BatchNorm after each convolution.
        pooling: "max", which has kinks, or "average", which has none.
        seed: of the initialisation; torch's global random state is left as it was.

    Raises:
        ArgumentError: no widths, an image that the poolings leave nothing of, or an unknown pooling.
        UnknownNameError: unknown activation.

    Example:
        >>> import torch
        >>> from nm_ode.models import cnn
        >>> model = cnn([8, 16], classes=10, image=8, pooling="average")
        >>> model(torch.ones(5, 1, 8, 8, dtype=torch.float64)).shape
        torch.Size([5, 10])
        >>> [name for name, _ in model.named_children()]
        ['conv1', 'relu1', 'pool1', 'conv2', 'relu2', 'pool2', 'flatten', 'linear']
    """
    side = image >> len(widths)
    if not widths or side < 1:
        raise ArgumentError(f"{len(widths)} poolings leave nothing of an image of side {image}")
    if pooling not in get_args(Pooling):
        raise ArgumentError(f"pooling must be one of {', '.join(get_args(Pooling))}; {pooling!r} was given")
    with seeded(seed):
        model = nn.Sequential()
        given = channels
        for i, made in enumerate(widths, start=1):
            model.add_module(f"conv{i}", nn.Conv2d(given, made, 3, padding=1))
            if batch_norm:
                model.add_module(f"norm{i}", nn.BatchNorm2d(made))
            model.add_module(f"{activation}{i}", make(activation))
            model.add_module(f"pool{i}", nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2))
            given = made
        model.add_module("flatten", nn.Flatten())
        model.add_module("linear", nn.Linear(given * side * side, classes))
    return model.to(torch.float64)
