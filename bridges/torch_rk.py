"""The vectors of engine "torch": tensors, and what is done with them; the one file of bridges that imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from bridges.counted import CountedField
from bridges.problem import Array, OdeProblem, Rhs
from bridges.rk_adaptive import AdaptivePair
from bridges.rk_fixed import FixedPair
from bridges.rk_tables import FIXED, SCHEMES
from bridges.rkc import Sharpness, StabilisedChebyshev
from bridges.stepping import Stepper
from bridges.vectors import is_tensor

_PIECE_ON_HOST, _PIECE_ELSEWHERE = 2**16, 2**24
"""Entries that are worked on at a time: what the processor's cache holds; elsewhere what is worth a kernel's start."""

Terms: TypeAlias = tuple[tuple[slice, Tensor], ...]
"""A sum of rows: neighbouring ones, with their coefficients."""

_OnTensors: TypeAlias = AdaptivePair | FixedPair | StabilisedChebyshev


def stepper(problem: OdeProblem, method: str, counted: CountedField) -> Stepper:
    """The stepper of a method; a state that is an array is taken as the tensor that shares its memory."""
    if is_tensor(problem.y0):
        return _on_tensors(problem, method, counted.rhs, counted.sharpness, counted.require_finite)
    as_tensor = replace(problem, y0=torch.from_numpy(problem.y0))
    return _OnArrays(
        _on_tensors(
            as_tensor,
            method,
            lambda t, y, dy: counted.rhs(t, y.numpy(), dy.numpy()),
            lambda t, y, rate: counted.sharpness(t, y.numpy(), rate.numpy()),
            counted.require_finite,
        )
    )


def _on_tensors(
    problem: OdeProblem, method: str, rhs: Rhs, sharpness: Sharpness, require_finite: Callable[[], None]
) -> _OnTensors:
    arrays: dict[str, Any] = {
        name: torch.from_numpy(given).to(problem.y0.device)
        for name in ("atol", "scales")
        if isinstance(given := getattr(problem, name), np.ndarray)
    }
    problem = replace(problem, **arrays) if arrays else problem
    arithmetic = _Arithmetic(problem)
    if method in FIXED:
        return FixedPair(FIXED[method], problem, rhs, arithmetic)
    if method in SCHEMES:
        return AdaptivePair(SCHEMES[method], problem, rhs, require_finite, arithmetic)
    given = None if problem.sharpness is None else sharpness
    return StabilisedChebyshev(problem, rhs, given, require_finite, arithmetic)


class _OnArrays:
    """A stepper's tensors as the arrays that share their memory."""

    def __init__(self, stepper: _OnTensors) -> None:
        self._stepper = stepper

    @property
    def t(self) -> float:
        return self._stepper.t

    @property
    def steps(self) -> int:
        return self._stepper.steps

    @property
    def rejected_steps(self) -> int:
        return self._stepper.rejected_steps

    def advance(self) -> None:
        self._stepper.advance()

    def at(self, t: float) -> Array:
        array: Array = self._stepper.at(t).numpy()
        return array

    def memory(self) -> dict[str, Array]:
        return self._stepper.memory()

    def error_at_sample(self) -> float | None:
        return self._stepper.error_at_sample()


class _Arithmetic:
    """See `bridges.arithmetic.Arithmetic`."""

    def __init__(self, problem: OdeProblem) -> None:
        self._like: Tensor = problem.y0
        self._dtype = torch.float64 if problem.field_dtype == "float64" else torch.float32
        self.rounding = float(torch.finfo(self._dtype).eps)
        self._size = self._like.numel()
        self._piece = min(self._size, _PIECE_ON_HOST if self._like.device.type == "cpu" else _PIECE_ELSEWHERE)

    def state(self) -> Tensor:
        return torch.empty_like(self._like)

    def of_field(self) -> Tensor:
        return torch.empty_like(self._like, dtype=self._dtype)

    def rows(self, count: int) -> Tensor:
        return self._like.new_empty((count, self._size), dtype=self._dtype)

    def sum(self, coefficients: Mapping[int, float]) -> Terms:
        runs: list[list[int]] = []
        for row in sorted(coefficients):
            if runs and row == runs[-1][-1] + 1:
                runs[-1].append(row)
            else:
                runs.append([row])
        return tuple(
            (
                slice(run[0], run[-1] + 1),
                self._like.new_tensor([coefficients[row] for row in run]).to(self._dtype),
            )
            for run in runs
        )

    def add(self, out: Tensor, base: Tensor, rows: Tensor, terms: Terms, h: float) -> None:
        if out is base:
            for piece in self._pieces():
                out[piece].add_(self._summed(rows[:, piece], terms), alpha=h)
            return
        for piece in self._pieces():
            part, sources = out[piece], rows[:, piece]
            if out.dtype == self._dtype == base.dtype:
                part.copy_(base[piece])
                for which, coefficients in terms:
                    part.addmv_(sources[which].T, coefficients, alpha=h)
            else:
                torch.add(base[piece], self._summed(sources, terms), alpha=h, out=part)

    def table(self, coefficients: Array) -> list[Terms]:
        found = torch.from_numpy(coefficients).to(self._like.device, self._dtype)
        every = slice(0, coefficients.shape[1])
        return [((every, row),) for row in found]

    def recur(self, stage: Tensor, y: Tensor, rows: Tensor, which: int, terms: Terms) -> None:
        for piece in self._pieces():
            row = rows[which, piece]
            row.copy_(self._summed(rows[:, piece], terms))
            torch.add(y[piece], row, out=stage[piece])

    def mean_squares(
        self,
        y: Tensor,
        end: Tensor | None,
        rows: Tensor,
        sums: tuple[Terms, ...],
        atol: float | Tensor,
        rtol: float,
    ) -> list[float]:
        totals = self._like.new_zeros(len(sums) + (end is None))
        for piece in self._pieces():
            weights = y[piece].abs()
            if end is not None:
                torch.maximum(weights, end[piece].abs(), out=weights)
            weights.mul_(rtol).add_(atol[piece] if isinstance(atol, Tensor) else atol)
            values = [y[piece] / weights] if end is None else []
            values += [self._summed(rows[:, piece], terms) / weights for terms in sums]
            totals += torch.stack([value.dot(value) for value in values])
        found: list[float] = (totals / self._size).tolist()
        return found

    def length(self, y: Tensor, scales: Tensor | None) -> float:
        total = self._like.new_zeros(())
        for piece in self._pieces():
            part = y[piece].double() if scales is None else y[piece] / scales[piece]
            total += part.dot(part)
        return math.sqrt(float(total))

    def begin(self, direction: Tensor, rate: Tensor, scales: Tensor | None) -> None:
        length = self.length(rate, scales)
        generator = torch.Generator(self._like.device).manual_seed(0)
        for piece in self._pieces():
            part = direction[piece].copy_(rate[piece])
            if scales is not None:
                part.div_(scales[piece])
            part.div_(length or 1.0)
            part.add_(torch.empty_like(part).normal_(generator=generator), alpha=0.1 / math.sqrt(self._size))
        direction.div_(self.length(direction, None))

    def tilt(self, direction: Tensor, rate: Tensor, scales: Tensor | None, share: float) -> None:
        length = self.length(rate, scales)
        for piece in self._pieces():
            part = rate[piece] if scales is None else rate[piece] / scales[piece]
            direction[piece].add_(part, alpha=share / (length or 1.0))
        direction.div_(self.length(direction, None))

    def shift(self, out: Tensor, y: Tensor, direction: Tensor, size: float, scales: Tensor | None) -> None:
        for piece in self._pieces():
            part = direction[piece] if scales is None else direction[piece] * scales[piece]
            torch.add(y[piece], part, alpha=size, out=out[piece])

    def quotient(
        self, direction: Tensor, there: Tensor, here: Tensor, size: float, scales: Tensor | None
    ) -> float:
        for piece in self._pieces():
            part = torch.sub(there[piece], here[piece], out=direction[piece])
            if scales is not None:
                part.div_(scales[piece])
            part.div_(size)
        length = self.length(direction, None)
        direction.div_(length or 1.0)
        return length

    def _summed(self, rows: Tensor, terms: Terms) -> Tensor:
        (which, coefficients), *others = terms
        found = rows[which].T.mv(coefficients)
        for which, coefficients in others:
            found.addmv_(rows[which].T, coefficients)
        return found

    def _pieces(self) -> Iterator[slice]:
        return (slice(start, start + self._piece) for start in range(0, self._size, self._piece))
