"""Results as they were saved, and how a number and where it is from are written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "results"


@cache
def read(name: str) -> Any:
    """A result file."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def number(value: float, digits: int = 2) -> str:
    """To so many significant digits, whole numbers whole: 0.042, 1.4, 250, 17 234, 3.1e−5."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e7:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    if abs(value) >= 10 ** (digits - 1):
        return count(value)
    return f"{value:#.{digits}g}".removesuffix(".") if abs(value) >= 1 else f"{value:.{digits}g}"


def count(value: float) -> str:
    """A whole number, its thousands apart."""
    whole = round(value)
    return str(whole) if abs(whole) < 10_000 else f"{whole:,}".replace(",", "\u202f")


def power(value: float) -> str:
    """An error: one digit and the power of ten, as 3e−5."""
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "−")  # a hyphen would let a line end there


def percent(share: float, decimals: int = 1) -> str:
    return f"{100 * share:.{decimals}f}\u202f%"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def source(name: str, part: Mapping[str, Any] | None = None) -> str:
    """Program, date, commit and machine of a result; of a part of it that was measured at another commit."""
    environment: dict[str, Any] = read(name)["environment"]
    commit = (part or environment)["commit"]
    changed = " with changes" if commit.endswith("+") else ""
    threads = environment.get("torch_threads", 1)
    return (
        f"`benchmarks/{name}.py`, {environment.get('date', 'undated')}, commit `{commit[:7]}`{changed}, "
        f"{environment['processor']}, {threads} thread{'s' * (threads > 1)} on {environment['cores']} cores"
    )
