"""What a forward pass writes to the model: nothing, or nothing that another pass reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from nm_ode.loss.forward_passes import described
from nm_ode.loss.guards import ProblemError

Root = tuple[str, nn.Module]
"""A module and what its parts' names begin with."""


@dataclass(frozen=True, eq=False)
class Cell:
    """A place in a module where something lies: a parameter, a buffer, or an attribute (a plain tensor or number)."""

    module: str
    kind: Literal["parameter", "buffer", "attribute"]
    owner: MutableMapping[str, Any]
    key: str

    @property
    def value(self) -> Any:
        """What lies there; None if it is gone."""
        return self.owner.get(self.key)

    def __str__(self) -> str:
        return f"{self.kind} {self.key!r} of {self.module}"


def cells_of(roots: Iterable[Root]) -> list[Cell]:
    """The parameters and buffers of modules and all that is in them, then their plain tensors and numbers."""
    found: list[Cell] = []
    attributes: list[Cell] = []
    seen: set[int] = set()
    for prefix, root in roots:
        for name, module in root.named_modules():
            if id(module) in seen:
                continue
            seen.add(id(module))
            place = described(prefix + name, module)
            found += [
                Cell(place, "parameter", module._parameters, key)
                for key, value in module._parameters.items()
                if value is not None
            ]
            found += [
                Cell(place, "buffer", module._buffers, key)
                for key, value in module._buffers.items()
                if value is not None
            ]
            attributes += [
                Cell(place, "attribute", module.__dict__, key)
                for key, value in module.__dict__.items()
                if key != "training" and isinstance(value, Tensor | bool | int | float | complex)
            ]
    return found + attributes


class Watch:
    """Are parameters and buffers what and where they were before a forward pass?

    Looked at after every pass: the objects, their addresses and torch's count of writes (0.3 µs a tensor). Their
    values, which `.data` can change without being counted, after passes 1, 2, 4, 8 …

    Args:
        cells: what is watched.
        trainable: those of the parameters that view theta.
        values: look at the values after every pass.
    """

    def __init__(
        self, cells: Sequence[Cell], trainable: Sequence[nn.Parameter], *, values: bool = False
    ) -> None:
        self._always = values
        self._cells = [cell for cell in cells if cell.kind != "attribute" and _dense(cell.value)]
        self._trainable = {id(parameter) for parameter in trainable}
        self._passes = 0
        self._sums: list[tuple[float, ...]] | None = None
        self.adopt()

    def adopt(self) -> None:
        """Take what lies there now for what should."""
        self._cells = [cell for cell in self._cells if cell.value is not None]
        self._tensors: list[Tensor] = [cell.value for cell in self._cells]
        self._owned = [
            (cell.owner, cell.key, tensor) for cell, tensor in zip(self._cells, self._tensors, strict=True)
        ]
        self.settle()

    def settle(self) -> None:
        """Take where they lie now for where they should, after theta moved."""
        self._addresses = [tensor.data_ptr() for tensor in self._tensors]

    def in_place(self) -> bool:
        """Does each lie where it did when theta was set?"""
        return [tensor.data_ptr() for tensor in self._tensors] == self._addresses

    def before_pass(self) -> None:
        """Call before a forward pass."""
        self._versions = [tensor._version for tensor in self._tensors]
        self._passes += 1
        looks_at_values = self._always or self._passes & (self._passes - 1) == 0
        self._sums = [_sums(tensor) for tensor in self._tensors] if looks_at_values else None

    def intact(self) -> bool:
        """After a forward pass: is everything what and where it was?"""
        for owner, key, tensor in self._owned:
            if owner.get(key) is not tensor:
                return False
        return (
            [tensor._version for tensor in self._tensors] == self._versions
            and self.in_place()
            and (self._sums is None or all(map(_same, self._sums, map(_sums, self._tensors))))
        )

    def require_theta(self) -> None:
        """Raises ProblemError if a parameter that views theta was written."""
        for i, (cell, tensor) in enumerate(zip(self._cells, self._tensors, strict=True)):
            if id(tensor) in self._trainable and (
                cell.value is not tensor
                or tensor._version != self._versions[i]
                or tensor.data_ptr() != self._addresses[i]
                or (self._sums is not None and not _same(self._sums[i], _sums(tensor)))
            ):
                raise ProblemError(writes_theta(cell))

    def changed(self) -> Cell | None:
        """The first that is not intact."""
        for i, (cell, tensor) in enumerate(zip(self._cells, self._tensors, strict=True)):
            if (
                cell.value is not tensor
                or tensor._version != self._versions[i]
                or tensor.data_ptr() != self._addresses[i]
            ):
                return cell
        return None


def writes_theta(cell: Cell) -> str:
    """Why a model that writes a trainable parameter is refused."""
    return (
        f"{cell.module} changes its parameter {cell.key!r} in the forward pass, so the loss is no function of theta: "
        "compute the changed weight as a new tensor (torch.nn.utils.parametrize) and leave the parameter as it is; "
        "if only the first pass sets it, run the model once on its data before"
    )


def reads_what_it_writes(cell: Cell) -> str:
    """Why a model is refused whose passes depend on those before."""
    return (
        f"{cell.module} changes its {cell.kind} {cell.key!r} in each forward pass and reads it in the next, so the "
        "loss depends on how often it was evaluated: call model.eval(), or take the update out of the forward pass"
    )


class Passes:
    """Forward passes over a few samples, and what each left changed.

    Args:
        roots: the model and the objective, if that is a module.
        trainable: the parameters that view theta.
    """

    def __init__(self, roots: Sequence[Root], trainable: Sequence[nn.Parameter]) -> None:
        self._roots, self._trainable = roots, {id(parameter) for parameter in trainable}
        self._written: dict[tuple[int, str], Cell] = {}

    @contextmanager
    def one(self, *, settled: bool = True, repeated: bool = False) -> Iterator[None]:
        """Around one pass.

        Args:
            settled: False for the first pass, which may still make what later ones keep (masks, tables).
            repeated: the pass before had the same theta, so that attributes, too, should be what they were. At
                another theta they are not: modules keep what they computed.

        Raises:
            ProblemError: the pass wrote a trainable parameter.
        """
        before = [_Kept.of(cell) for cell in cells_of(self._roots)]
        yield
        there = {id(parameter) for _, root in self._roots for parameter in root.parameters()}
        for kept in before:
            changed = kept.changed()
            if id(kept.value) in self._trainable - there:
                raise ProblemError(
                    f"a forward pass puts another in the place of {kept.cell}, so the loss is no "
                    "function of theta: make all modules and parameters when the model is made"
                )
            if changed and id(kept.value) in self._trainable:
                raise ProblemError(writes_theta(kept.cell))
            if changed and settled and (repeated or kept.cell.kind != "attribute"):
                self._written[id(kept.cell.owner), kept.cell.key] = kept.cell

    def unread(self, evaluate: Callable[[], list[Tensor]]) -> list[Cell]:
        """What passes write and none reads: it does no harm.

        Args:
            evaluate: loss and gradient.

        Raises:
            ProblemError: a pass reads what an earlier one wrote.
        """
        written = list(self._written.values())
        if written and not _are_unread(written, evaluate):
            for cell in written:
                if not _are_unread([cell], evaluate):
                    raise ProblemError(reads_what_it_writes(cell))
            raise ProblemError(reads_what_it_writes(written[0]))
        return written


@dataclass(frozen=True)
class _Kept:
    """What a cell held."""

    cell: Cell
    value: Any
    mark: tuple[int, int]
    sums: tuple[Any, ...]

    @classmethod
    def of(cls, cell: Cell) -> _Kept:
        value = cell.value
        if isinstance(value, Tensor):
            return cls(cell, value, _mark(value), _sums(value))
        return cls(cell, value, (0, 0), ())

    def changed(self) -> bool:
        """Does it hold anything else now? Of an attribute only the value counts."""
        now = self.cell.value
        if not isinstance(now, Tensor) or not isinstance(self.value, Tensor):
            same = type(now) is type(self.value) and (now == self.value or now != now)
            return not same
        if self.cell.kind != "attribute" and (now is not self.value or _mark(now) != self.mark):
            return True
        return now.shape != self.value.shape or not _same(_sums(now), self.sums)


def _are_unread(cells: Sequence[Cell], evaluate: Callable[[], list[Tensor]]) -> bool:
    """Do loss and gradient stay the same whatever lies in these cells before a pass?"""
    expected = evaluate()
    for fill in (math.nan, 0, -1, 1_000_003):
        with _filled(cells, fill):
            try:
                found = evaluate()
            except Exception:  # of the model, which read what it cannot use
                return False
        if not all(map(_close, expected, found)):
            return False
    return True


@contextmanager
def _filled(cells: Sequence[Cell], fill: float) -> Iterator[None]:
    kept = [(cell, cell.value) for cell in cells]
    for cell, value in kept:
        cell.owner[cell.key] = _other(value, fill)
    try:
        yield
    finally:
        for cell, value in kept:
            cell.owner[cell.key] = value


def _other(value: Any, fill: float) -> Any:
    whole = 7 if math.isnan(fill) else int(fill)
    if isinstance(value, Tensor):
        number = fill
        if not (value.is_floating_point() or value.is_complex()):
            within = None if value.dtype == torch.bool else torch.iinfo(value.dtype)
            number = bool(whole) if within is None else min(max(whole, within.min), within.max)
        other = torch.full_like(value.detach(), number)
        return nn.Parameter(other, requires_grad=False) if isinstance(value, nn.Parameter) else other
    if isinstance(value, bool):
        return not value if whole else value
    return whole if isinstance(value, int) else type(value)(fill)


def _close(one: Tensor, other: Tensor) -> bool:
    scale = torch.finfo(one.dtype).eps * 1e3
    return bool(torch.allclose(one, other, rtol=scale, atol=scale * float(one.abs().max()), equal_nan=True))


def _dense(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_nested or tensor.is_quantized)


def _mark(tensor: Tensor) -> tuple[int, int]:
    """Where it lies, and how often it was written as torch counts."""
    return (
        tensor.data_ptr() if _dense(tensor) else 0,
        0 if tensor.is_inference() else tensor._version,
    )


def _sums(tensor: Tensor) -> tuple[float, ...]:
    """Two numbers that change when the values do."""
    if not _dense(tensor):
        return ()
    with _disable_current_modes():  # whoever follows the operations of the loss does not see these
        return _two_numbers(tensor.detach())


def _two_numbers(tensor: Tensor) -> tuple[float, ...]:
    if tensor.dtype.is_floating_point:
        tensor = tensor if tensor.dtype.itemsize >= 4 else tensor.float()
        return float(tensor.sum()), float(torch.linalg.vector_norm(tensor))
    if tensor.is_complex():
        return abs(tensor.sum().item()), float(torch.linalg.vector_norm(tensor))
    return (float(tensor.double().sum()),)


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and all(
        a == b or (a != a and b != b) for a, b in zip(one, other, strict=True)
    )
