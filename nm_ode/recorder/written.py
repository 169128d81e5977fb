"""Who writes to the parameters, or to what the optimiser remembers of them, between two of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    Attributes:
        steps_back: before how many steps, at most, what `found` found was written.
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
        self._looked_at = 0
        self._differ: Tensor | None = None
        self._owner: list[int] = []
        coarsest = max(torch.finfo(parameter.dtype).eps for parameter in self._parameters)
        self._rounding = _ROUNDINGS * coarsest
        self.steps_back = 1
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
        parameters = set(_differing(self._counted, self._counts()))
        memories = [self._names[i] for i in _differing(self._remembered, self._memories())]
        self.steps_back = 1
        if not parameters:
            parameters |= self._by_values()
        return [self._names[i] for i in sorted(parameters)], memories

    @property
    def any_at_the_end(self) -> bool:
        """Was a parameter written to since the last step, of which there is no next?"""
        if not self._counted:
            return False
        if self._counted != self._counts() or self._norms_differ():
            return True
        differ = self._sample_differs()
        return differ is not None and bool(differ.any())

    def found_late(self) -> list[str]:
        """What was seen before the last step, and has not been waited for."""
        self.steps_back = self._steps - self._looked_at
        return [self._names[i] for i in sorted(self._waited_for())]

    @property
    def _is_looked_at(self) -> bool:
        return self._steps & (self._steps - 1) == 0 or self._steps % _EVERY == 0

    def _by_values(self) -> set[int]:
        """Numbers of the parameters whose values are not those that there were after the step."""
        differ = self._sample_differs()
        if differ is not None:
            before = self._differ
            self._differ = differ if before is None or len(before) != len(differ) else before | differ
            if differ.device.type != "cpu" and not self._is_looked_at:
                return set()
        self.steps_back = self._steps - self._looked_at
        found = self._waited_for()
        self._looked_at = self._steps
        if not found:
            self.steps_back = 1
        return found | self._norms_differ()

    def _waited_for(self) -> set[int]:
        if self._differ is None:
            return set()
        found = {self._owner[i] for i in self._differ.nonzero()[:, 0].tolist()}
        self._differ = None
        return found

    def _sample_differs(self) -> Tensor | None:
        """Of each entry of the sample, on the device.

        None where none does, or where parameters have another form, which is counted.
        """
        now = self._sampled()
        if self._sample is None or len(now) != len(self._sample) or now.dtype != self._sample.dtype:
            return None
        if now.device.type == "cpu" and torch.equal(now, self._sample):
            return None
        return now != self._sample

    def _norms_differ(self) -> set[int]:
        if self._norms is None:
            return set()
        differ = (self._norms - self._all_norms()).abs() > self._rounding * self._norms
        return set(differ.nonzero()[:, 0].tolist())

    def _counts(self) -> list[Any]:
        return [(p._version, p.data_ptr()) for p in self._parameters]

    def _memories(self) -> list[Any]:
        if self._memory is None:
            return [None] * len(self._parameters)
        state, name = self._optimizer.state, self._memory
        each = [state.get(p) for p in self._parameters]
        kept = [None if one is None else one.get(name) for one in each]
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
        return _bits(torch.cat(self._views))

    def _all_norms(self) -> Tensor:
        norms = torch._foreach_norm([p.detach() for p in self._parameters])
        return torch.stack([norm.double() for norm in norms])


def _differing(before: Sequence[Any], now: Sequence[Any]) -> list[int]:
    if before == now:
        return []
    return [i for i, (was, one) in enumerate(zip(before, now, strict=True)) if was != one]


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
