"""Where each parameter lies in the flat vector theta."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Slot:
    """One parameter tensor: its name in the model, its shape, its first index in theta."""

    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.size)

    @property
    def layer(self) -> str:
        """The module that owns the parameter; the parameter itself where the model owns it directly."""
        owner, _, _ = self.name.rpartition(".")
        return owner or self.name


@dataclass(frozen=True)
class Layout:
    """The parameters in the order of theta, gathered into layers (modules that own parameters)."""

    slots: tuple[Slot, ...]

    @property
    def size(self) -> int:
        """P, the length of theta."""
        return sum(slot.size for slot in self.slots)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(slot.name for slot in self.slots)

    @cached_property
    def layers(self) -> dict[str, tuple[slice, ...]]:
        """Layer name → the pieces of theta that belong to it, in order of first appearance."""
        layers: dict[str, tuple[slice, ...]] = {}
        for slot in self.slots:
            layers[slot.layer] = (*layers.get(slot.layer, ()), slot.slice)
        return layers

    def __getitem__(self, name: str) -> Slot:
        for slot in self.slots:
            if slot.name == name:
                return slot
        raise KeyError(name)

    def layer_norms(self, vector: NDArray[np.floating]) -> NDArray[np.float64]:
        """2-norm of each layer's part of `vector`; shape (..., P) to (..., layers)."""
        with np.errstate(over="ignore"):  # a diverging run may leave the range: then the norm is inf
            squares = [
                sum(np.square(vector[..., piece]).sum(axis=-1) for piece in pieces)
                for pieces in self.layers.values()
            ]
        norms: NDArray[np.float64] = np.sqrt(np.stack(squares, axis=-1)).astype(np.float64)
        return norms
