"""What a case file needs to know of a network before it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Network:
    """An entry of `MODELS`.

    Args:
        build: its keyword parameters, with their types and defaults, are the options in a case file. A parameter
            `seed` is given the case's seed.
        takes_images: are the samples images? Then `build` is also given `image`, their side, and `channels`, and the
            data become (n, channels, side, side). Else they are vectors.
        inputs, outputs: which option says the number of inputs and of outputs, as it is written: "inputs",
            "widths[0]", "widths[-1]". A case must set that option, and it is checked against the data. None for
            what the network takes as it comes.

    Example:
        >>> from nm_ode.models import MODELS, Network, linear
        >>> Network(linear, inputs="inputs", outputs="outputs") == MODELS["linear"]
        True
        >>> MODELS["vgg"].takes_images, MODELS["mlp"].inputs
        (True, 'widths[0]')
    """

    build: Callable[..., nn.Module]
    takes_images: bool = False
    inputs: str | None = None
    outputs: str | None = None
