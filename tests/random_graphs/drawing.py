"""Draws a program: random lines, each evaluated as it is drawn, so that what does not fit is drawn anew."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from tests.random_graphs.program import Line, Program, batch_of, environment

T = TypeVar("T")

_MOST = 160  # entries of a sample
_LARGE = 1e3


class MisfitError(Exception):
    """A template that does not fit what there is."""


class Drawer:
    """What has been drawn, and the means to draw more.

    Args:
        seed: of all that is drawn.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        # Two batches: what has other sizes in them is of samples.
        self.worlds = [environment(batch_of(samples, self.generator)) for samples in (6, 5)]
        self.lines: list[Line] = []
        self.parameters: dict[str, Tensor] = {}
        self.constants: dict[str, Tensor] = {}
        self.padding: set[str] = set()
        self.batched: list[str] = []
        self.weights: list[str] = []  # parameters, and lines of parameters alone
        self.unread: set[str] = set()
        self._count = 0

    # ---- choices

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def choice(self, options: Sequence[T]) -> T:
        if not options:
            raise MisfitError
        return self.random.choice(options)

    def width(self) -> int:
        return self.random.randint(2, 5)

    # ---- what there is

    def value(self, name: str) -> Tensor:
        result: Tensor = self.worlds[0][name]
        return result

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.value(name).shape)

    def tensor(self, *ndims: int) -> str:
        """A result with samples along its first dimension, of one of some numbers of dimensions; rather a new one."""
        fitting = [n for n in self.batched if self.value(n).ndim in (ndims or (2, 3, 4, 5))]
        if not fitting:
            raise MisfitError
        unread = [n for n in fitting if n in self.unread]
        if unread and self.chance(0.75):
            return unread[-1] if self.chance(0.7) else self.choice(unread)
        return self.choice(fitting)

    def like(self, name: str) -> str:
        """Another of the same shape."""
        others = [n for n in self.batched if n != name and self.shape(n) == self.shape(name)]
        if not others:
            raise MisfitError
        return others[-1] if self.chance(0.5) else self.choice(others)

    # ---- what is made

    def emit(self, expression: str, *, weight: bool = False, scalar: bool = False) -> str:
        """A line; the name of its result: of samples, of weights alone, or the loss.

        Raises:
            MisfitError: it cannot be computed, or what comes out cannot be gone on with.
        """
        made = []
        for world in self.worlds:
            torch.manual_seed(0)
            try:
                made.append(eval(expression, world))
            except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
                raise MisfitError(str(error)) from error
        first, second = made
        if not isinstance(first, Tensor) or not first.is_floating_point() or not first.numel():
            raise MisfitError
        if not bool(first.isfinite().all()) or not bool(first.abs().max() < _LARGE):
            raise MisfitError
        of_samples = first.ndim > 0 and (len(first), len(second)) == (6, 5)
        if first.shape[int(of_samples) :] != second.shape[int(of_samples) :]:
            raise MisfitError
        if of_samples == (weight or scalar) or (scalar and first.ndim):
            raise MisfitError
        if first.numel() > _MOST * (6 if of_samples else 1):
            raise MisfitError
        name = f"v{self._count}"
        self._count += 1
        for world, tensor in zip(self.worlds, made, strict=True):
            world[name] = tensor.detach()
        self.lines.append(Line(name, expression))
        if weight:
            self.weights.append(name)
        elif of_samples:
            self.batched.append(name)
            self.unread -= set(self.lines[-1].needs)
            self.unread.add(name)
        return name

    def parameter(self, *shape: int) -> str:
        """A new one."""
        name = f"p{len(self.parameters)}"
        scale = shape[-1] ** -0.5 if len(shape) > 1 else 0.5
        value = torch.randn(shape, dtype=torch.float64, generator=self.generator) * scale + 0.1
        self.parameters[name] = value
        self._enter(name, value)
        self.weights.append(name)
        return name

    def constant(self, value: Tensor) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        self._enter(name, value)
        return name

    def normal(self, *shape: int) -> str:
        """A buffer of numbers."""
        return self.constant(torch.randn(shape, dtype=torch.float64, generator=self.generator))

    def places(self, count: int, high: int) -> str:
        """A buffer of indices below `high`."""
        return self.constant(torch.randint(high, (count,), generator=self.generator))

    def mask(self, *shape: int) -> str:
        """A buffer of truth values."""
        return self.constant(torch.rand(shape, generator=self.generator) < 0.6)

    def _enter(self, name: str, value: Tensor) -> None:
        for world in self.worlds:
            world[name] = value

    def weight(self, *shape: int) -> str:
        """Weights of a shape: a new parameter, one that is there in the same or another role, or made of some."""
        if self.chance(0.6):
            return self.parameter(*shape)
        try:
            made = self._found(shape) if self.chance(0.55) else self._made(shape)
        except MisfitError:
            made = None
        return made or self.parameter(*shape)

    def _found(self, shape: tuple[int, ...]) -> str | None:
        """Tied to one that is there: as it is, transposed, or a part of it."""
        same = [n for n in self.weights if self.shape(n) == shape]
        turned = [n for n in self.weights if len(shape) == 2 and self.shape(n) == shape[::-1]]
        larger = [
            n
            for n in self.weights
            if self.value(n).ndim == len(shape)
            and self.shape(n)[0] > shape[0]
            and self.shape(n)[1:] == shape[1:]
        ]
        rows = [n for n in self.weights if len(shape) == 1 and self.shape(n)[1:] == shape]
        ways = [(same, "{w}"), (turned, "{w}.T"), (larger, "{w}[{i}:{j}]"), (rows, "{w}[0]")]
        ways = [(names, how) for names, how in ways if names]
        if not ways:
            return None
        names, how = self.choice(ways)
        w = self.choice(names)
        if how == "{w}":
            return w
        start = self.random.randint(0, self.shape(w)[0] - shape[0]) if names is larger else 0
        return self.emit(how.format(w=w, i=start, j=start + shape[0] if shape else 0), weight=True)

    def _made(self, shape: tuple[int, ...]) -> str | None:
        """Put together of others."""
        if not shape:
            return self.emit(f"{self.parameter(1)}.sum()", weight=True)
        a = self.parameter(*shape)
        ways = [
            f"{a} * {{shape}}",
            f"{a} + {{shape}}",
            f"{a} + {{known}}",
            f"{a} * {{known}}",
            f"{a}.abs()",
            f"{a} * {{one}}",
            "{known} + 0 * {known}",
            f"{a}.detach()",
            f"-{a}",
            f"torch.cat([{a}[:1], {{shape}}[1:]])",
        ]
        if len(shape) >= 2:
            ways += [
                f"{{first}} * {a}",
                f"{a} / {a}.flatten(1).norm(dim=1).reshape(-1, *[1] * {len(shape) - 1})",
                f"{a} - {a}.mean(-1, keepdim=True)",
                f"torch.softmax({a}, -1)",
                f"({a}.flatten(1) @ {{square}}).reshape({shape})",
            ]
        how = self.choice(ways)
        rest = 1
        for n in shape[1:]:
            rest *= n
        fields = {
            "shape": lambda: self.parameter(*shape),
            "known": lambda: self.normal(*shape),
            "one": lambda: self.parameter(1),
            "first": lambda: self.parameter(shape[0], *[1] * (len(shape) - 1)),
            "square": lambda: self.parameter(rest, rest),
        }
        for field, make in fields.items():
            while "{" + field + "}" in how:
                how = how.replace("{" + field + "}", make(), 1)
        return self.emit(how, weight=True)

    def program(self) -> Program:
        return Program(
            tuple(self.lines), dict(self.parameters), dict(self.constants), frozenset(self.padding)
        ).pruned()
