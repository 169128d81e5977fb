"""Images as a network takes them: from bytes to numbers, normalised and augmented, on the device that they lie on."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nm_ode.data.base import DataError
from nm_ode.data.indices import Samples, indices_of, samples_of
from nm_ode.data.sources import ArraySource, Source, TensorSource
from nm_ode.data.trees import flatten
from nm_ode.memory import available_on
from nm_ode.required import as_seed

H = TypeVar("H", int, Tensor)

_BITS = 0xFFFFFFFF
_ROOM = 4  # of a device's free memory, images take at most one part in so many


@dataclass(frozen=True)
class Augmentation:
    """Random flips and crops, the same for the same seed and virtual index on any device.

    Of N samples, index i < N is sample i as it is, and i + N·e with e ≥ 1 its e-th augmentation. What is drawn for it
    is a hash of seed and index, so that it depends neither on the order nor on who asks. In `train` each epoch has the
    next augmentation; a step on all samples (batch_size="full") takes them as they are, as do `full_loss` and flows.

    Args:
        flip: left to right, with probability ½.
        pad: so many black pixels are added on each side, of which a window of the image's size is cut; 0 for no crops.
        seed: of what is drawn.

    Raises:
        DataError: numbers out of range, or nothing to do.

    Example:
        >>> import torch
        >>> from nm_ode.data import Augmentation
        >>> augment = Augmentation(flip=True, pad=2)
        >>> print(augment)
        flips, crops by up to 2 pixels, seed 0
        >>> images = torch.arange(2 * 64).reshape(2, 1, 8, 8)
        >>> augment.augmented(images, indices=torch.tensor([0, 3]), plain=2).shape
        torch.Size([2, 1, 8, 8])
    """

    flip: bool = True
    pad: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.pad, bool) or not isinstance(self.pad, int) or self.pad < 0:
            raise DataError(f"pad must be a number of pixels, at least 0; {self.pad!r} was given")
        if not isinstance(self.flip, bool):
            raise DataError(f"flip must be True or False; {self.flip!r} was given")
        if not (self.flip or self.pad):
            raise DataError(
                "an Augmentation without flips and crops changes nothing: leave it out (augment=None)"
            )
        object.__setattr__(self, "seed", as_seed(self.seed))

    def __str__(self) -> str:
        """ "flips, crops by up to 4 pixels, seed 0"."""
        crops = f"crops by up to {self.pad} pixels" if self.pad else ""
        return ", ".join(filter(None, ["flips" if self.flip else "", crops, f"seed {self.seed}"]))

    def augmented(self, images: Tensor, indices: Tensor, plain: int) -> Tensor:
        """The images in their augmentations; those with an index below `plain` as they are.

        Args:
            images: shape (n, channels, height, width).
            indices: virtual ones, shape (n,), int64.
            plain: N, how many samples there are.
        """
        indices = indices.to(images.device, non_blocking=True)
        is_augmented = indices >= plain
        channels, height, width = images.shape[1:]
        x = torch.arange(width, device=images.device).expand(len(images), -1)
        y = torch.arange(height, device=images.device).expand(len(images), -1)
        if self.flip:
            flipped = (_hashed(self.seed, indices, 0) & 1).bool() & is_augmented
            x = torch.where(flipped[:, None], width - 1 - x, x)
        if self.pad:
            for_rows, for_columns = (
                torch.where(is_augmented, _hashed(self.seed, indices, i) % (2 * self.pad + 1), self.pad)
                for i in (1, 2)
            )
            images = nn.functional.pad(images, (self.pad,) * 4)
            y, x = y + for_rows[:, None], x + for_columns[:, None]
        # By places in whole images, which is several times as fast as by rows and columns.
        places = (y[:, :, None] * images.shape[-1] + x[:, None, :]).flatten(1)
        taken = images.flatten(2).gather(2, places[:, None].expand(-1, channels, -1))
        return taken.reshape(-1, channels, height, width)


@dataclass(frozen=True)
class Preparation:
    """(pixel/255 − mean)/std of each channel, of images that may be augmented before.

    Args:
        mean, std: of each channel, of pixels from 0 to 1.
        augment: random flips and crops; None for none.
        flat: at last, an image becomes a vector, for networks that take no images.

    Raises:
        DataError: other than one finite mean and one positive standard deviation for each channel.

    Example:
        >>> import torch
        >>> from nm_ode.data import Preparation
        >>> preparation = Preparation(mean=(0.5,), std=(0.25,))
        >>> images = torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)
        >>> prepared = preparation.prepared(images, indices=None, plain=2, dtype=torch.float64)
        >>> tuple(prepared.shape), float(prepared.max())
        ((2, 1, 8, 8), 2.0)
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    augment: Augmentation | None = None
    flat: bool = False

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        if len(self.mean) != len(self.std) or not self.mean:
            raise DataError(
                f"mean and std must have a number for each channel; {len(self.mean)} and {len(self.std)} were given"
            )
        if not all(map(math.isfinite, self.mean)) or not all(0 < one < math.inf for one in self.std):
            raise DataError(f"mean {self.mean} and std {self.std} must be finite, and std above 0")
        if self.augment is not None and not isinstance(self.augment, Augmentation):
            raise DataError(f"augment must be an Augmentation or None; {self.augment!r} was given")

    @property
    def plain(self) -> Preparation:
        """The same without augmentation: of samples that a network is tested on."""
        return replace(self, augment=None)

    def prepared(self, images: Tensor, indices: Tensor | None, plain: int, dtype: torch.dtype) -> Tensor:
        """Bytes as numbers, where they lie.

        Args:
            images: uint8, shape (n, channels, height, width).
            indices: virtual ones, shape (n,); None for samples as they are.
            plain: how many samples there are.
            dtype: of what is returned.
        """
        if self.augment is not None and indices is not None:
            images = self.augment.augmented(images, indices, plain)
        mean, std = (_of_channels(one, images.device, dtype) for one in (self.mean, self.std))
        numbers = images.to(dtype).div_(255).sub_(mean).div_(std)
        return numbers.flatten(1) if self.flat else numbers


class PreparedSource:
    """Images in bytes, of which a batch is prepared when it is taken: pairs (x, y), or trees with the images first.

    In a `Problem` the bytes are what lies in memory or on the device (those on disk stay there, unless a GPU has much
    more room than they take), and a batch is prepared on the device.

    Args:
        source: of trees whose first leaf is uint8 (n, channels, height, width).
        preparation: what is done to it.
        virtual: for a part of the samples, the index of each of them in `source`.

    Raises:
        DataError: a source of something else.

    Example:
        >>> import torch
        >>> from nm_ode.data import Preparation, PreparedSource, TensorSource
        >>> images, y = torch.full((4, 1, 8, 8), 255, dtype=torch.uint8), torch.tensor([0, 1, 1, 0])
        >>> source = PreparedSource(TensorSource((images, y)), Preparation(mean=(0.5,), std=(0.25,)))
        >>> x, _ = source.take(slice(0, 2))
        >>> x.dtype, float(x.max())
        (torch.float64, 2.0)
    """

    def __init__(self, source: Source, preparation: Preparation, virtual: Tensor | None = None) -> None:
        self.source, self.preparation, self._virtual = source, preparation, virtual
        if virtual is None:
            _require_images(source.take(slice(0, 1)), len(preparation.mean))

    def __repr__(self) -> str:
        return f"<PreparedSource of {len(self)} samples, by {self.preparation}>"

    def __len__(self) -> int:
        return len(self.source) if self._virtual is None else len(self._virtual)

    @property
    def in_memory(self) -> bool:
        """Are the bytes?"""
        return isinstance(self.source, TensorSource)

    @property
    def augmentation(self) -> Augmentation | None:
        """Whose virtual indices may be taken; None of a source that has none, as a part has."""
        return self.preparation.augment if self._virtual is None else None

    @property
    def plain(self) -> PreparedSource:
        """The same samples without augmentations."""
        part = None if self._virtual is None else self._virtual % len(self.source)
        return PreparedSource(self.source, self.preparation.plain, part)

    def raw(self, indices: Samples) -> Any:
        """These samples in bytes, where they lie: the same in each augmentation."""
        given = self._indices(indices)
        return self.source.take(indices if given is None else given % len(self.source))

    def prepare(self, batch: Any, indices: Samples, dtype: torch.dtype) -> Any:
        """What `raw` gave of these indices, which may have been moved to a device meanwhile."""
        leaves, rebuild = flatten(batch)
        images = self.preparation.prepared(leaves[0], self._indices(indices), len(self.source), dtype)
        return rebuild([images, *leaves[1:]])

    def take(self, indices: Samples) -> Any:
        """These samples, prepared, in float64."""
        return self.prepare(self.raw(indices), indices, torch.float64)

    def part(self, samples: Tensor | slice) -> PreparedSource:
        """Some of them, each in the augmentation that its index says."""
        indices = self._indices(samples)
        if indices is None:
            indices = indices_of(samples, len(self))
        return PreparedSource(self.source, self.preparation, indices)

    def placed(self, device: torch.device, dtype: torch.dtype) -> PreparedSource:
        """With its bytes on the device, if they are in memory or a GPU has much more room than they take."""
        made, source = copy.copy(self), self.source
        if isinstance(source, ArraySource) and device.type == "cuda" and _fits(source, device):
            source = TensorSource(source.take(None))
        if isinstance(source, TensorSource):
            made.source = source.placed(device, dtype)
        return made

    def _indices(self, indices: Samples) -> Tensor | None:
        """Virtual ones; None where all are samples as they are."""
        if self._virtual is not None:
            return self._virtual if indices is None else self._virtual[indices]
        if not isinstance(indices, Tensor) or self.augmentation is None:
            return None
        wanted = samples_of(indices, len(self), virtual=True)
        assert isinstance(wanted, Tensor)
        # From the end, as tensors count.
        return torch.where(wanted < 0, wanted + len(self.source), wanted)


def _hashed(seed: int, indices: Tensor, stream: int) -> Tensor:
    """Integers from 0 to 2³² − 1, as by chance and the same on any device: int64 that never overflow.

    The mixing function is a bijection of 32 bits (Wellons 2018, "Prospecting for hash functions"), applied to the lower
    and the upper half of the index in turn.
    """
    h = _mixed((indices & _BITS) ^ _mixed(seed & _BITS))
    h = _mixed(h ^ ((indices >> 32) & _BITS) ^ _mixed((seed >> 32) & _BITS))
    return _mixed(h ^ _mixed(stream + 1))


def _mixed(h: H) -> H:
    h = ((h ^ (h >> 16)) * 0x21F0AAAD) & _BITS
    h = ((h ^ (h >> 15)) * 0x735A2D97) & _BITS
    return h ^ (h >> 15)


@lru_cache
def _of_channels(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)[:, None, None]


def _fits(source: ArraySource, device: torch.device) -> bool:
    free = available_on(device)
    return free is not None and source.nbytes * _ROOM <= free


def _require_images(batch: Any, channels: int) -> None:
    leaves = flatten(batch)[0]
    images = leaves[0] if leaves else None
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4:
        what = (
            f"{images.dtype} of shape {tuple(images.shape)}"
            if isinstance(images, Tensor)
            else type(images).__name__
        )
        raise DataError(
            f"images to prepare must be uint8 of shape (samples, channels, height, width), in front; {what} was given"
        )
    if images.shape[1] != channels:
        raise DataError(
            f"images have {images.shape[1]} channels, and mean and std are of {channels}: give a number for each"
        )
