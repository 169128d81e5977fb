"""Where each parameter lies in the flat vector theta."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor, nn

_WRAPPERS = (nn.parallel.DistributedDataParallel, nn.DataParallel)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module itself, without the wrappers of torch.compile and of several devices."""
    while True:
        if isinstance(model, _WRAPPERS):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


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


class Parts(Mapping[str, Tensor]):
    """A vector of theta's size that lies in the parameters' own tensors: name → tensor, in the order of the layout.

    It is read where it lies; half precision is read in float32, and what is not contiguous is copied.

    Args:
        slots: of the layout.
        tensors: one for each slot, of its shape; None for zeros.
        like: a tensor of the device and dtype of zeros.
    """

    def __init__(self, slots: Sequence[Slot], tensors: Sequence[Tensor | None], like: Tensor) -> None:
        self._slots = slots
        self._like = (
            like if like.dtype in (torch.float32, torch.float64) else like.new_empty(0, dtype=torch.float32)
        )
        self._tensors = {
            slot.name: self._zeros(slot) if tensor is None else _readable(tensor, self.dtype)
            for slot, tensor in zip(slots, tensors, strict=True)
        }

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def tensors(self) -> list[Tensor]:
        """In the order of the slots."""
        return list(self._tensors.values())

    @property
    def dtype(self) -> torch.dtype:
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        return self._like.device

    def new_zeros(self, shape: int | tuple[int, ...]) -> Tensor:
        """As a tensor's: of its dtype and device."""
        return self._like.new_zeros(shape)

    def flat(self) -> Tensor:
        """In one vector, shape (P,); a copy."""
        return torch.cat([tensor.reshape(-1) for tensor in self._tensors.values()])

    def _zeros(self, slot: Slot) -> Tensor:
        return self._like.new_zeros(slot.shape)


def _readable(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype).contiguous()


class Difference(Parts):
    """after − before, made where it is first read: who reads it some rows at a time needs no memory for it.

    Args:
        after: of the minuend; it must be unchanged as long as the difference is read.
        before: of the subtrahend, the same.
        room: tensors of their shapes, into which the difference is written when it is read as a whole; they are made
            if there are none yet.

    Attributes:
        after, before: as they were given.
    """

    def __init__(self, slots: Sequence[Slot], after: Parts, before: Parts, room: list[Tensor]) -> None:
        self._slots, self._like, self._room = slots, after._like, room
        self.after, self.before = after, before
        self._made: dict[str, Tensor] | None = None

    @property
    def is_made(self) -> bool:
        """Has it been read as a whole?"""
        return self._made is not None

    @property
    def _tensors(self) -> dict[str, Tensor]:  # type: ignore[override]
        if self._made is None:
            if not self._room:
                self._room.extend(torch.empty_like(one) for one in self.after.tensors)
            for one, after, before in zip(self._room, self.after.tensors, self.before.tensors, strict=True):
                torch.sub(after, before, out=one)
            self._made = dict(zip(self.after, self._room, strict=True))
        return self._made


class Scaled(Parts):
    """Another vector's parts, each times a number, made where they are first read as a whole.

    Args:
        slots: of the layout.
        base: the vector.
        factors: name → number.

    Attributes:
        base, factors: as they were given.
    """

    def __init__(self, slots: Sequence[Slot], base: Parts, factors: Mapping[str, float]) -> None:
        self._slots, self._like = slots, base._like
        self.base, self.factors = base, factors

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:  # type: ignore[override]
        return {name: one * self.factors[name] for name, one in self.base.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self.base)

    def __len__(self) -> int:
        return len(self.base)


Vector: TypeAlias = Tensor | Parts
"""A vector of theta's size: flat, shape (P,), or in the parameters' own tensors."""


@dataclass(frozen=True, repr=False)
class Layout:
    """The parameters in the order of theta, gathered into layers (modules that own parameters)."""

    slots: tuple[Slot, ...]

    def __repr__(self) -> str:
        return f"<Layout: {self.size} entries of {len(self.slots)} parameters in {len(self.layers)} layers>"

    @classmethod
    def of(cls, model: nn.Module) -> Layout:
        """The trainable parameters in the model's order, tied ones once."""
        return cls.of_parameters({name: one for name, one in model.named_parameters() if one.requires_grad})

    @classmethod
    def of_parameters(cls, parameters: Mapping[str, Tensor]) -> Layout:
        """These, in their order."""
        slots: list[Slot] = []
        for name, parameter in parameters.items():
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

    def layer_norms(self, vectors: Vector) -> Tensor:
        """2-norm of each layer's part; shape (..., P) to (..., layers), on the device of `vectors`."""
        if isinstance(vectors, Parts):
            return self.sum_layers(torch.stack(torch._foreach_norm(vectors.tensors)) ** 2).sqrt()
        norms = []
        for first, *others in self._layer_runs:
            part = vectors[..., first]
            if others:
                part = torch.cat([part, *(vectors[..., other] for other in others)], dim=-1)
            norms.append(torch.linalg.vector_norm(part, dim=-1))
        return torch.stack(norms, dim=-1)

    def sum_layers(self, of_slots: Tensor) -> Tensor:
        """One number for each parameter, shape (slots,), to their sum in each layer, shape (layers,)."""
        of_layers = of_slots.new_zeros(len(self.layers))
        return of_layers.index_add_(0, self._layer_of_slot(of_slots.device), of_slots)

    def _layer_of_slot(self, device: torch.device) -> Tensor:
        """The number of each slot's layer, shape (slots,); int64."""
        if device not in self._slot_layers:
            numbers = {name: i for i, name in enumerate(self.layers)}
            found = torch.tensor([numbers[slot.layer] for slot in self.slots], device="cpu")
            self._slot_layers[device] = found.to(device)
        return self._slot_layers[device]

    @cached_property
    def _slot_layers(self) -> dict[torch.device, Tensor]:
        return {}

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
