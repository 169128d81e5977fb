"""The kernel's source for what is asked of a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from string import Template

# Of C, for each of torch's names: bits of the same size, and a product and a sum rounded once.
_TYPES = {"float": ("uint32_t", "__builtin_fmaf"), "double": ("uint64_t", "__builtin_fma")}
_ODD = 2654435761  # spreads places over odd numbers


@dataclass(frozen=True)
class StepOf:
    """An optimiser's step, by numbers of vectors; what it gives are the three that follow all others.

    Attributes:
        velocity: None without momentum.
        decays: is there weight decay?
    """

    theta: int
    gradient: int
    velocity: int | None
    decays: bool
    nesterov: bool


@dataclass(frozen=True)
class Kernel:
    """What is asked of a region: vectors are numbers, first the streams, then the differences, then a step's.

    Attributes:
        real: "float" or "double".
        streams: how many vectors are read.
        differences: minuend and subtrahend of each.
        step: of the optimiser, whose new theta, new velocity and update are vectors too.
        products: two vectors, and the number of their part of `rows` and of `columns`, each -1 without.
        copies: which vectors.
        digests: of which vectors.
    """

    real: str
    streams: int
    differences: tuple[tuple[int, int], ...]
    step: StepOf | None
    products: tuple[tuple[int, int, int, int], ...]
    copies: tuple[int, ...]
    digests: tuple[int, ...]

    @cached_property
    def name(self) -> str:
        return f"nm_pass_{sha256(repr(self).encode()).hexdigest()[:16]}"

    @cached_property
    def rows(self) -> int:
        """How many products have rows."""
        return sum(row >= 0 for _, _, row, _ in self.products)

    @cached_property
    def columns(self) -> int:
        """How many products have columns."""
        return sum(column >= 0 for _, _, _, column in self.products)

    @property
    def source(self) -> str:
        """In C."""
        bits, fma = _TYPES[self.real]
        streams, products = range(self.streams), list(enumerate(self.products))
        columns = [column for _, _, _, column in self.products if column >= 0]
        ahead = "width < m ? strides[{}] : AHEAD" if columns else "AHEAD"
        filled = {
            "real": self.real,
            "bits": bits,
            "fma": fma,
            "name": self.name,
            "n_columns": str(self.columns),
            "some_rows": "64" if columns else "1",
            "constants": _lines(_constants(self.step)),
            "column_pointers": _lines([f"REAL *c{c} = sums + {c} * m + at;" for c in columns]),
            "pointers": _lines(
                [f"const REAL *s{i} = streams[{i}] + i * strides[{i}] + at;" for i in streams]
                # The next row's, or what follows where rows are read as they lie.
                + [f"const int64_t r{i} = {ahead.format(i)};" for i in streams]
                + [
                    f"REAL *t{i} = targets[{i}] + i * target_strides[{i}] + at;"
                    for i in range(len(self.copies))
                ]
            ),
            "accumulators": _lines(
                [f"REAL a{k} = 0;" for k, _ in products]
                + [f"BITS h{k} = 0;" for k in range(len(self.digests))]
            ),
            "prefetches": _lines([f"__builtin_prefetch(s{i} + j + l + r{i});" for i in streams]),
            "body": _lines(self._body),
            "results": _lines(
                [f"totals[{k}] += a{k};" for k, _ in products]
                + [f"rows[{one[2]} * n + i] += a{k};" for k, one in products if one[2] >= 0]
                + [f"digests[{k}] += h{k};" for k in range(len(self.digests))]
                + ["(void)place;"]
            ),
        }
        return Template(Path(__file__).with_name("kernel.c").read_text()).substitute(filled)

    @property
    def _body(self) -> list[str]:
        """What is done with the k-th entry of a block's row."""
        found = [f"const REAL x{i} = s{i}[k];" for i in range(self.streams)]
        at = self.streams
        for after, before in self.differences:
            found.append(f"const REAL x{at} = x{after} - x{before};")
            at += 1
        if self.step is not None:
            found += _step(self.step, at)
        for k, (u, v, _, column) in enumerate(self.products):
            found.append(f"const REAL p{k} = x{u} * x{v}; a{k} += p{k};")
            if column >= 0:
                found.append(f"c{column}[k] += p{k};")
        if self.digests:
            # Upper bits on lower ones: else a change of all signs, or of all exponents, gives sums that are zero where
            # a size is a power of 2.
            found.append("const int half = 4 * sizeof(BITS);")
            found.append(f"const BITS spread = (place + (BITS)k) * {_ODD}u;")
            found.append("const BITS odd = (spread ^ spread >> half) | 1;")
        for k, vector in enumerate(self.digests):
            found.append(f"BITS b{k}; memcpy(&b{k}, &x{vector}, sizeof(REAL));")
            found.append(f"h{k} += (b{k} ^ b{k} >> half) * odd;")
        return [*found, *(f"t{i}[k] = x{vector};" for i, vector in enumerate(self.copies))]


def _constants(step: StepOf | None) -> list[str]:
    if step is None:
        return ["(void)numbers;"]
    names = ("decay", "momentum", "taken", "rate")  # `Settings.numbers`
    used = [f"const REAL {name} = numbers[{i}];" for i, name in enumerate(names)]
    return [*used, "(void)decay, (void)momentum, (void)taken;"]


def _step(step: StepOf, at: int) -> list[str]:
    """As torch's own SGD has it, operation by operation: each of its additions is a product and a sum, rounded once."""
    theta, gradient = f"x{step.theta}", f"x{step.gradient}"
    direction = f"FMA(decay, {theta}, {gradient})" if step.decays else gradient
    found = [f"const REAL direction = {direction};"]
    moved = "direction"
    if step.velocity is not None:
        found.append(f"const REAL kept = momentum * x{step.velocity};")
        found.append(f"const REAL x{at + 1} = FMA(taken, direction, kept);")
        moved = f"x{at + 1}"
    if step.nesterov:
        found.append(f"const REAL ahead = FMA(momentum, x{at + 1}, direction);")
        moved = "ahead"
    return [
        *found,
        f"const REAL x{at} = FMA(rate, {moved}, {theta});",
        f"const REAL x{at + 2} = x{at} - {theta};",
    ]


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines)


def source_of(kernels: Sequence[Kernel]) -> str:
    """All of them, in one file."""
    macros = ("REAL", "BITS", "FMA", "FREELY", "BLOCK", "PIECE", "SOME_ROWS", "LINE", "AHEAD")
    forget = "\n".join(f"#undef {name}" for name in macros)
    return f"\n{forget}\n".join(kernel.source for kernel in kernels)
