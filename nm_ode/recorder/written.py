"""Who writes to the parameters, or to what the optimiser remembers of them, between two of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_SAMPLED = 8  # entries of each parameter that are looked at after and before each step
_EVERY = 64  # all of them: after steps 1, 2, 4, 8 … and every so many
_ROUNDINGS = 8  # by which two norms of the same numbers may differ
_BITS = {16: torch.int16, 32: torch.int32, 64: torch.int64}


class Writes:
    """What changed between the end of a step and the start of the next.

    torch counts the writes to a tensor, but for those through `.data` and NumPy: these show in the values alone. A few
    entries of each parameter are compared at each step, and a norm of all at some; on an accelerator nothing is waited
    for but then.

    Args:
        optimizer: the user's own.
        followed: name → parameter.
        memory: the name of what the optimiser remembers of each parameter, in its state; None: of no concern.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, followed: Mapping[str, nn.Parameter], memory: str | None
    ) -> None:
        self._optimizer, self._memory = optimizer, memory
        self._names, self._parameters = list(followed), list(followed.values())
        self._counted: list[Any] = []
        self._remembered: list[Any] = []
        self._views: list[Tensor] = []
        self._pointers: list[int] = []
        self._sample: Tensor | None = None
        self._norms: Tensor | None = None
        self._differ: Tensor | None = None
        self._owner: list[int] = []
        coarsest = max(torch.finfo(parameter.dtype).eps for parameter in self._parameters)
        self._rounding = _ROUNDINGS * coarsest
        self._steps = 0

    def after_step(self) -> None:
        """The optimiser's step has been taken."""
        self._steps += 1
        self._counted, self._remembered = self._counts(), self._memories()
        self._sample = self._sampled()
        self._norms = self._all_norms() if self._is_looked_at else None

    def found(self) -> tuple[list[str], list[str]]:
        """Names of the parameters that were written to since the last step, and of those whose memory was."""
        if not self._counted:
            return [], []
        parameters = {
            i for i, (was, now) in enumerate(zip(self._counted, self._counts(), strict=True)) if was != now
        }
        memories = [
            name
            for name, was, now in zip(self._names, self._remembered, self._memories(), strict=True)
            if was != now
        ]
        if not parameters:
            parameters |= self._by_values()
        return [self._names[i] for i in sorted(parameters)], memories

    @property
    def any_at_the_end(self) -> bool:
        """Was a parameter written to since the last step, of which there is no next?"""
        return bool(self._counted) and (self._counted != self._counts() or bool(self._by_values(last=True)))

    @property
    def _is_looked_at(self) -> bool:
        return self._steps & (self._steps - 1) == 0 or self._steps % _EVERY == 0

    def _by_values(self, *, last: bool = False) -> set[int]:
        """Numbers of the parameters whose values are not those that there were after the step."""
        now = self._sampled()
        assert self._sample is not None
        if len(now) != len(self._sample) or now.dtype != self._sample.dtype:
            return set()  # of another form: that is counted
        differ = now != self._sample
        self._differ = (
            differ if self._differ is None or len(self._differ) != len(differ) else self._differ | differ
        )
        if differ.device.type != "cpu" and not (self._is_looked_at or last):
            return set()
        found = {self._owner[i] for i in self._differ.nonzero()[:, 0].tolist()}
        self._differ = None
        if self._norms is not None:
            differ = (self._norms - self._all_norms()).abs() > self._rounding * self._norms
            found |= set(differ.nonzero()[:, 0].tolist())
        return found

    def _counts(self) -> list[Any]:
        return [(p._version, p.data_ptr()) for p in self._parameters]

    def _memories(self) -> list[Any]:
        if self._memory is None:
            return [None] * len(self._parameters)
        state, name = self._optimizer.state, self._memory
        kept = [state[p].get(name) if p in state else None for p in self._parameters]
        return [None if one is None else (id(one), one._version) for one in kept]

    def _sampled(self) -> Tensor:
        """The bits of a few entries of each parameter, which equal themselves where they are no numbers."""
        pointers = [p.data_ptr() for p in self._parameters]
        if pointers != self._pointers:
            self._pointers, self._views, self._owner = pointers, [], []
            for i, parameter in enumerate(self._parameters):
                stored = parameter.detach()
                count = min(_SAMPLED, stored.numel())
                if not _is_dense(stored):
                    stored = stored.flatten()[:0]
                    count = 0
                stride = stored.numel() // count if count else 1
                self._views.append(stored.as_strided((count,), (stride,)))
                self._owner += [i] * count
        with torch.no_grad():
            return _bits(torch.cat(self._views))

    def _all_norms(self) -> Tensor:
        with torch.no_grad():
            norms = torch._foreach_norm([p.detach() for p in self._parameters])
            return torch.stack([norm.double() for norm in norms])


def _is_dense(tensor: Tensor) -> bool:
    """Do its entries lie side by side, in some order?"""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _bits(values: Tensor) -> Tensor:
    return values.view(_BITS[torch.finfo(values.dtype).bits])
