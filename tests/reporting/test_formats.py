"""Numbers as text."""

from __future__ import annotations

import math

import pytest

from nm_ode.reporting.formats import count, exponent, number, order_with_error, power


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.012345, "0.0123"), (-1.5e-7, "−1.5e−7"), (math.nan, "–"), (2e12, "2e+12"), (0.0, "0")],
)
def test_numbers_are_short_and_readable(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.234e-4, "1.2e−4"), (0.5, "5.0e−1"), (0.0, "0"), (math.nan, "–"), (3e-17, "3.0e−17")],
)
def test_residuals_are_powers_of_ten(value: float, text: str) -> None:
    assert power(value) == text


def test_the_terminal_gets_what_a_program_can_read() -> None:
    assert float(exponent(1.234e-4)) == 1.2e-4
    assert exponent(1.234e-4, 1) == "1e-04"
    assert exponent(1.234e-4, sign=True) == "+1.2e-04"
    assert exponent(math.nan) == "–"


def test_orders_and_counts() -> None:
    assert order_with_error(2.0449, 0.011) == "2.04 ± 0.01"
    assert order_with_error(2.0449, math.nan) == "2.04"
    assert count(1234567) == "1 234 567"
