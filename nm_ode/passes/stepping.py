"""A step of torch's SGD before it is taken: who reads what it is made of knows what it will give, to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from nm_ode.passes.wanted import Pair, Wanted

THETA, VELOCITY, UPDATE = "theta ahead", "velocity ahead", "update"
"""Names of vectors that a pass makes of theta, gradient and velocity: as they will be after the step."""

_AHEAD = {"theta": THETA, "velocity": VELOCITY, "update": UPDATE}


@dataclass(frozen=True)
class Settings:
    """Of one parameter's step: d = g + decay·θ, v' = momentum·v + (1 − dampening)·d, θ' = θ − lr·v'.

    Attributes:
        nesterov: θ' = θ − lr·(d + momentum·v').
    """

    lr: float
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """As the kernel has them."""
        return self.weight_decay, self.momentum, 1 - self.dampening, -self.lr

    @property
    def reads(self) -> tuple[str, ...]:
        """Of what the step is made."""
        return ("theta", "gradient", "velocity") if self.momentum else ("theta", "gradient")

    @property
    def gives(self) -> tuple[str, str, str]:
        """What it makes, as the kernel does in this order."""
        return THETA, VELOCITY, UPDATE


Stepping: TypeAlias = Mapping[str, Settings]
"""Name of a parameter → how it will be moved."""


@dataclass(frozen=True)
class Ahead:
    """What is wanted before a step and after it, of one pass before it.

    Attributes:
        wanted: of both.
        renamed: names of pairs after the step → their names in the pass.
    """

    wanted: Wanted
    renamed: Mapping[str, str]

    @classmethod
    def of(cls, before: Wanted, after: Wanted, same: Mapping[str, str], *, momentum: bool) -> Ahead | None:
        """None where a vector is wanted after the step that nobody knows before it.

        Args:
            same: name of a vector after the step → of which one before it it is a copy.
            momentum: is there a velocity?
        """
        renamed: dict[str, str] = {}
        for name in after.names:
            if name == "gradient" or same.get(name) == "gradient":
                renamed[name] = "gradient"
            elif name in _AHEAD and (momentum or name != "velocity"):
                renamed[name] = _AHEAD[name]
            else:
                return None
        if after.copies:
            return None
        return cls(before | after.renamed(renamed) | Wanted(digests=digested(momentum)), renamed)

    @property
    def read(self) -> list[str]:
        """Names of vectors that are there before the step."""
        names = {*self.wanted.names, "theta", "gradient"} - {THETA, VELOCITY, UPDATE}
        return sorted(names)

    def pair(self, pair: Pair) -> Pair:
        """Of after the step, as it is in the pass."""
        return self.renamed[pair[0]], self.renamed[pair[1]]


def digested(momentum: bool) -> frozenset[str]:
    """What a step reads and gives of which it can be seen later whether it was so."""
    return frozenset({"theta", THETA, *(("velocity", VELOCITY) if momentum else ())})
