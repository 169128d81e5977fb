"""Gradients that a loop lets go of after a step: they can be kept from record to record without a copy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nm_ode.parameters import Parts

_SEEN = 2  # steps whose gradient was left as it was, before any is relied on


class LeftGradients:
    """Whether the loop has new tensors for each step's gradient, and leaves those of the steps before as they were.

    So does `zero_grad()`. With `zero_grad(set_to_none=False)`, or where a wrapper keeps gradients in a memory of its
    own, they are written over, and have to be copied. It is looked at from when somebody first asks: at the tensors'
    storage and torch's count of writes to them at each step, and at their norms in the first two.
    """

    def __init__(self) -> None:
        self._now: Sequence[Tensor | None] = ()
        self._last: HeldGradient | None = None
        self._norms: list[Tensor] = []
        self._good = 0
        self._asked = self._spoilt = False

    def before_step(self, gradients: Sequence[Tensor | None]) -> None:
        """A step is about to be taken, with these."""
        self._now = gradients
        if not self._asked or self._spoilt or (self._last is not None and not self._last.is_as_left()):
            return
        if self._good < _SEEN:
            self._compare([one for one in gradients if one is not None])

    def _compare(self, gradient: list[Tensor]) -> None:
        """Is the last one as it was, its norms too?"""
        if self._last is not None:
            as_it_was = all(map(torch.equal, _norms(self._last.tensors), self._norms))
            self._good, self._spoilt = self._good + as_it_was, not as_it_was
        go_on = not self._spoilt and self._good < _SEEN
        self._last, self._norms = (HeldGradient(gradient, self), _norms(gradient)) if go_on else (None, [])

    def hold(self, gradient: Parts, left: bool = False) -> HeldGradient | None:
        """This step's, as it is; None if it has to be copied.

        Args:
            left: did the same loop leave gradients before it was broken off?
        """
        self._asked = True
        self._good = _SEEN if left else self._good
        if self._spoilt or self._good < _SEEN:
            return None
        self._last = HeldGradient(gradient.tensors, self)
        return self._last

    def shares(self, storages: set[int]) -> bool:
        """Does the gradient of now lie in one of these?"""
        return not storages.isdisjoint(_storages([one for one in self._now if one is not None]))

    def spoil(self) -> None:
        """The loop has written to one that was held: none is from now on."""
        self._spoilt = True


class HeldGradient:
    """Tensors of a gradient, held after their step.

    Args:
        tensors: one for each parameter that has one.
        of: the loop's.
    """

    def __init__(self, tensors: list[Tensor], of: LeftGradients) -> None:
        self.tensors, self._of = tensors, of
        self._versions = [one._version for one in tensors]
        self._storages = set(_storages(tensors))

    def is_as_left(self) -> bool:
        """Has nobody written to them, and does the gradient of now lie elsewhere?"""
        as_left = [one._version for one in self.tensors] == self._versions
        if as_left and not self._of.shares(self._storages):
            return True
        self._of.spoil()
        return False

    def give_up(self) -> None:
        """Somebody has written to them: none is held from now on."""
        self._of.spoil()


def _storages(tensors: Sequence[Tensor]) -> list[int]:
    return [one.untyped_storage().data_ptr() for one in tensors if one.numel()]


def _norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    return list(torch._foreach_norm(list(tensors))) if tensors else []
