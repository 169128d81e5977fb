"""Observed order: slopes that are known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nm_ode import observed_order

LADDER = (0.4, 0.2, 0.1, 0.05)


@given(order=st.floats(0.1, 8), constant=st.floats(1e-6, 1e3))
def test_a_power_law_is_found(order: float, constant: float) -> None:
    found = observed_order(LADDER, [constant * lr**order for lr in LADDER])
    assert math.isclose(found.order, order, rel_tol=1e-9)
    assert found.standard_error < 1e-6


def test_scatter_shows_in_the_standard_error() -> None:
    found = observed_order(
        LADDER, [lr * factor for lr, factor in zip(LADDER, (1, 1.5, 0.8, 1.2), strict=True)]
    )
    assert 0.1 < found.standard_error < 1


def test_two_rungs_have_a_slope_and_no_standard_error() -> None:
    found = observed_order([0.2, 0.1], [4.0, 1.0])
    assert math.isclose(found.order, 2)
    assert math.isnan(found.standard_error)


@pytest.mark.parametrize(("lrs", "errors"), [([0.1], [1.0]), ([0.1, 0.2], [1.0]), ([0.1, 0.2], [1.0, 0.0])])
def test_too_little_for_a_slope_is_named(lrs, errors) -> None:
    with pytest.raises(ValueError, match="an order needs"):
        observed_order(lrs, errors)
