"""Where each parameter lies in the flat vector theta."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor, nn


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

    @classmethod
    def of(cls, model: nn.Module) -> Layout:
        """The trainable parameters in the model's order, tied ones once."""
        slots: list[Slot] = []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                start = slots[-1].slice.stop if slots else 0
                slots.append(Slot(name, tuple(parameter.shape), start))
        return cls(tuple(slots))

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

    @cached_property
    def _sizes(self) -> list[int]:
        return [slot.size for slot in self.slots]

    def split(self, vector: Tensor) -> list[Tensor]:
        """Views of a vector, shape (P,), in the shapes of the parameters."""
        pieces = torch.split(vector, self._sizes)
        return [piece.view(slot.shape) for piece, slot in zip(pieces, self.slots, strict=True)]

    def __getitem__(self, name: str) -> Slot:
        for slot in self.slots:
            if slot.name == name:
                return slot
        raise KeyError(name)

    def layer_norms(self, vectors: Tensor) -> Tensor:
        """2-norm of each layer's part; shape (..., P) to (..., layers), on the device of `vectors`."""
        norms = []
        for first, *others in self._layer_runs:
            part = vectors[..., first]
            if others:
                part = torch.cat([part, *(vectors[..., other] for other in others)], dim=-1)
            norms.append(torch.linalg.vector_norm(part, dim=-1))
        return torch.stack(norms, dim=-1)

    @cached_property
    def _layer_runs(self) -> list[list[slice]]:
        """Each layer's pieces of theta, those that follow one another as one: a layer's weight and bias mostly do."""
        runs: list[list[slice]] = []
        for pieces in self.layers.values():
            merged = [pieces[0]]
            for piece in pieces[1:]:
                if piece.start == merged[-1].stop:
                    merged[-1] = slice(merged[-1].start, piece.stop)
                else:
                    merged.append(piece)
            runs.append(merged)
        return runs
