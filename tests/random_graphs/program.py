"""A network as lines of Python, so that one that fails is a script that can be read and sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY, CLASSES, FEATURES, POSITIONS = 5, 3, 4, 3

INPUTS = ("x", "s", "im", "ids", "k", "on", "y", "b")
"""A vector, a sequence, an image, tokens, a class, a mask, real targets and targets between 0 and 1 of each sample."""

_NAMES = re.compile(r"\b[pcv]\d+\b")


def without_gradient(made: Callable[[], Tensor]) -> Tensor:
    with torch.no_grad():
        return made()


def written(x: Tensor, place: Any, value: Tensor | float) -> Tensor:
    """A copy with some entries written in place."""
    y = x.clone()
    y[place] = value
    return y


NAMESPACE = {"torch": torch, "F": F, "written": written, "without_gradient": without_gradient}


@dataclass(frozen=True)
class Line:
    """`name = expression`; names are p, c or v (parameters, constants, results) and a number."""

    name: str
    expression: str

    @property
    def needs(self) -> tuple[str, ...]:
        return names_in(self.expression)


def names_in(expression: str) -> tuple[str, ...]:
    """In the order in which they stand there."""
    return tuple(dict.fromkeys(_NAMES.findall(expression)))


@dataclass(frozen=True)
class Program:
    """A network with its loss, as lines of which the last is the loss.

    Attributes:
        parameters: their values.
        constants: the buffers, of any dtype.
        padding: parameters of which row 0 is zero and has no gradient.
    """

    lines: tuple[Line, ...]
    parameters: dict[str, Tensor]
    constants: dict[str, Tensor]
    padding: frozenset[str] = frozenset()

    @property
    def stops(self) -> bool:
        """Are there blocks without gradients?"""
        return any("without_gradient" in line.expression for line in self.lines)

    def pruned(self) -> Program:
        """Without what the loss does not read."""
        needed = {self.lines[-1].name}
        kept = []
        for line in reversed(self.lines):
            if line.name in needed:
                kept.append(line)
                needed.update(line.needs)
        return replace(
            self,
            lines=tuple(reversed(kept)),
            parameters={name: p for name, p in self.parameters.items() if name in needed},
            constants={name: c for name, c in self.constants.items() if name in needed},
        )

    def source(self) -> str:
        """Of `forward`."""
        head = [f"def forward(self, {', '.join(INPUTS)}):", "    eps = self.eps"]
        stored = [f"    {name} = self.{name}" for name in (*self.parameters, *self.constants)]
        body = [f"    {line.name} = {line.expression}" for line in self.lines]
        return "\n".join([*head, *stored, *body, f"    return {self.lines[-1].name}"])

    def network(self, eps: float) -> Network:
        return Network(self, eps)

    def __str__(self) -> str:
        shapes = [f"# {name}: parameter {tuple(p.shape)}" for name, p in self.parameters.items()]
        shapes += [f"# {name}: buffer {tuple(c.shape)} {c.dtype}" for name, c in self.constants.items()]
        return "\n".join([*shapes, self.source()])


class Network(nn.Module):
    """The program as a module in float64 that gives its loss; `eps` is of all normalisations."""

    def __init__(self, program: Program, eps: float) -> None:
        super().__init__()
        self.eps = eps
        for name, value in program.parameters.items():
            self.register_parameter(name, nn.Parameter(value.clone()))
        for name, value in program.constants.items():
            self.register_buffer(name, value.clone())
        made: dict[str, Any] = {}
        exec(program.source(), dict(NAMESPACE), made)
        self._made = made["forward"]

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self._made(self, *inputs)
        return result


def loss_of(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """The objective of such a network."""
    result: Tensor = model(*batch)
    return result


def batch_of(samples: int, generator: torch.Generator, *, integers: int | None = None) -> tuple[Tensor, ...]:
    """Random inputs; `integers`: only so many different ones, as an example may have."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(samples, *shape, dtype=torch.float64, generator=generator)

    def whole(count: int, *shape: int) -> Tensor:
        return torch.randint(min(count, integers or count), (samples, *shape), generator=generator)

    made: dict[str, Tensor] = {
        "x": normal(FEATURES) + 0.3,
        "s": normal(POSITIONS, FEATURES),
        "im": normal(2, 4, 4),
        "ids": whole(VOCABULARY, POSITIONS),
        "k": whole(CLASSES),
        "on": torch.rand(samples, FEATURES, generator=generator) < 0.6,
        "y": normal(CLASSES),
        "b": torch.rand(samples, CLASSES, dtype=torch.float64, generator=generator),
    }
    return tuple(made[name] for name in INPUTS)


def environment(batch: Iterable[Tensor]) -> dict[str, Any]:
    """In which a line can be evaluated."""
    return dict(NAMESPACE) | dict(zip(INPUTS, batch, strict=True)) | {"eps": 1e-5}
