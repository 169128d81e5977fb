"""What becomes of uint8 images before a model sees them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Augmentation:
    """Seeded changes of an image that keep its class.

    Attributes:
        flip: half of the images are mirrored left to right.
        pad: so many zeros are put around an image, and a part of its own size is cut out anywhere.
        seed: of the random numbers.
    """

    flip: bool
    pad: int
    seed: int


@dataclass(frozen=True)
class Preparation:
    """(x / 255 − mean) / std, one mean and std for each channel.

    Attributes:
        augment: of training samples alone, before that.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augmentation | None = None
