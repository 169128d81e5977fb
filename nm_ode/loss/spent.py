"""What was asked of a problem: how many gradients, Hessian products and third derivatives."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, Literal

Derivative = Literal["gradients", "hvps", "third_derivatives"]


@dataclass
class Spent:
    """Counts that grow with each evaluation, whoever asks for it and over however many samples."""

    gradients: int = 0
    hvps: int = 0
    third_derivatives: int = 0

    def add(self, what: Derivative) -> None:
        """One more."""
        setattr(self, what, getattr(self, what) + 1)

    @property
    def counts(self) -> tuple[int, ...]:
        """In the order of the attributes."""
        return astuple(self)


class MeteredProblem:
    """What a `Problem` is: one that counts."""

    _at: Any

    @property
    def spent(self) -> Spent:
        """Derivatives that were taken of it and of its views since it was made; the same object at every call."""
        found: Spent = self._at.spent
        return found
