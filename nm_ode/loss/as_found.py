"""A user's own model at work beside its training: afterwards everything is as it was found."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nm_ode.loss.randomness import generators
from nm_ode.loss.reachable import reachable

_CONTAINERS: tuple[type, ...] = (dict, list, set)
_BACKWARD_HOOKS = ("_backward_hooks", "_backward_pre_hooks")


class AsFound:
    """A context in which modules may be evaluated, and parameters, buffers, flags and hooks be exchanged.

    At the end each module has the attributes that it had: the same objects, lists and dicts with the same contents, its
    plain tensors with the same values. In between its buffers are copies, its hooks on gradients are off (they would
    change what is differentiated; those of forward passes stay, for they may be part of what is computed), and torch's,
    NumPy's and Python's generators, those on other devices and those that the roots hold, have their states back
    afterwards.

    What a forward pass changes in objects that are neither modules nor generators stays changed.

    Args:
        roots: models and functions; modules that a function can reach count.
        training: the mode of the first root meanwhile; as it was found if None.
        dtype: of floating-point buffers meanwhile; their own if None.
        seed: of torch's, NumPy's and Python's generators inside.

    Attributes:
        part: which part of a batch is evaluated; each draws other numbers.
    """

    def __init__(
        self,
        *roots: Any,
        training: bool | None = None,
        dtype: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        self._roots, self._training, self._dtype, self._seed = roots, training, dtype, seed
        self.part = 0

    def __enter__(self) -> AsFound:
        found = {id(one): one for _, one in reachable(self._roots) if isinstance(one, nn.Module)}
        self.modules: Sequence[nn.Module] = list(
            {id(part): part for one in found.values() for part in one.modules()}.values()
        )
        self._kept = [_Kept(module) for module in self.modules]
        self._generators = [(one, one.get()) for one in generators(*self._roots)]
        try:
            self._prepare()
        except BaseException:
            self._put_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._put_back()

    def _prepare(self) -> None:
        if self._training is not None:
            for module in self._roots[0].modules():
                module.training = self._training  # not by `train`, which a user may have written anew
        for module in self.modules:
            for name in _BACKWARD_HOOKS:
                vars(module)[name].clear()
        self.rewind()

    def _put_back(self) -> None:
        for kept in self._kept:
            kept.put_back()
        self._put_back_generators()

    def rewind(self) -> None:
        """Buffers are copies of what was found, and the next random numbers the first ones of the seed."""
        copies: dict[int, Tensor] = {}
        for kept in self._kept:
            for name, buffer in kept.buffers.items():
                if buffer is not None and id(buffer) not in copies:
                    copies[id(buffer)] = self._copy(buffer)
                kept.module._buffers[name] = None if buffer is None else copies[id(buffer)]
        self._put_back_generators()
        seed = self._seed + self.part
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed CUDA to come
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 (the global one is meant)
        random.seed(seed)
        self._started = [one.state() for one, _ in self._generators]

    @property
    def drew(self) -> bool:
        """Were random numbers drawn since the last `rewind`?"""
        return any(
            one.state() != state for (one, _), state in zip(self._generators, self._started, strict=True)
        )

    def _put_back_generators(self) -> None:
        for generator, state in self._generators:
            generator.set(state)

    def _copy(self, buffer: Tensor) -> Tensor:
        copy = buffer.detach().clone()
        return copy.to(self._dtype) if self._dtype is not None and copy.is_floating_point() else copy


class _Kept:
    """What one module holds."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.buffers = dict(module._buffers)
        self._attributes = dict(vars(module))
        self._contents = [
            (value, plain(value))
            for value in self._attributes.values()
            for plain in _CONTAINERS
            if isinstance(value, plain)
        ]
        self._tensors = [
            (value, value.detach().clone())
            for value in self._attributes.values()
            if isinstance(value, Tensor)
        ]

    def put_back(self) -> None:
        """The module holds it again."""
        _fill(vars(self.module), self._attributes)
        for container, contents in self._contents:
            _fill(container, contents)
        with torch.no_grad():
            for tensor, value in self._tensors:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)


def _fill(container: Any, contents: Any) -> None:
    """Give a dict, list or set its contents back; one that has them is not touched."""
    if isinstance(container, dict):
        same = list(map(id, container.values())) == list(map(id, contents.values()))
        if not (same and list(container) == list(contents)):
            container.clear()
            container.update(contents)
    elif isinstance(container, list):
        if list(map(id, container)) != list(map(id, contents)):
            container[:] = contents
    elif container != contents:
        container.clear()
        container.update(contents)
