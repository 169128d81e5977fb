"""Numbers as text: the same figures wherever they are shown."""

from __future__ import annotations

import math

NOT_MEASURED = "–"


def number(value: float) -> str:
    """Three figures: "0.0123", "−1.5e−7"."""
    return NOT_MEASURED if math.isnan(value) else _typeset(f"{value:.3g}")


def power(value: float) -> str:
    """Two figures and a power of ten: "1.2e−4"; "0"."""
    if math.isnan(value):
        return NOT_MEASURED
    return "0" if value == 0 else _typeset(f"{value:.1e}")


def order(value: float) -> str:
    """Two decimals: "2.04"."""
    return NOT_MEASURED if math.isnan(value) else f"{value:.2f}"


def order_with_error(value: float, standard_error: float) -> str:
    """An order and its standard error, where there is one: "2.04 ± 0.01"."""
    return order(value) + ("" if math.isnan(standard_error) else f" ± {order(standard_error)}")


def count(value: int) -> str:
    """Thousands apart: "12 000"."""
    return f"{value:,}".replace(",", " ")


def exponent(value: float, figures: int = 2, *, sign: bool = False) -> str:
    """For a terminal, as a program reads it: "1.2e-04"."""
    if math.isnan(value):
        return NOT_MEASURED
    return f"{value:{'+' if sign else ''}.{figures - 1}e}"


def _typeset(text: str) -> str:
    return text.replace("e-0", "e-").replace("e+0", "e+").replace("-", "−")
