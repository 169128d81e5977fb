"""Which method, from smoothness, stiffness and tolerance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges import choose


def test_stiff_and_smooth_takes_bdf() -> None:
    choice = choose(kinks=(), stiffness=460, rtol=1e-5)
    assert (choice.engine, choice.method, choice.rtol) == ("sundials", "BDF", 1e-5)
    assert "stiff" in choice.reason
    assert "460" in choice.reason


def test_smooth_and_tight_over_a_short_horizon_takes_dop853() -> None:
    choice = choose(kinks=(), stiffness=7, rtol=1e-9)
    assert (choice.engine, choice.method) == ("scipy", "DOP853")
    assert "accuracy" in choice.reason


def test_kinks_take_rk23_and_are_named() -> None:
    choice = choose(kinks=("ReLU", "max-pooling"), stiffness=460, rtol=None)
    assert (choice.engine, choice.method, choice.rtol) == ("scipy", "RK23", 1e-3)
    assert "ReLU, max-pooling" in choice.reason


def test_a_tolerance_that_buys_nothing_at_kinks_is_raised_and_the_reason_says_so() -> None:
    choice = choose(kinks=("ReLU",), stiffness=1, rtol=1e-9)
    assert choice.rtol == 1e-4
    assert "rtol 1e-09 raised to 0.0001" in choice.reason


@pytest.mark.parametrize("rtol", [1e-3, 1e-4, 5e-2])
def test_a_tolerance_that_kinks_can_bear_is_kept(rtol: float) -> None:
    assert choose(kinks=("ReLU",), stiffness=1, rtol=rtol).rtol == rtol


@given(stiffness=st.floats(0, 1e6), rtol=st.one_of(st.none(), st.floats(1e-13, 1e-1)))
def test_a_smooth_field_keeps_its_tolerance_and_gets_a_reason(stiffness: float, rtol: float | None) -> None:
    choice = choose(kinks=(), stiffness=stiffness, rtol=rtol)
    assert choice.rtol == (1e-6 if rtol is None else rtol)
    assert choice.method in ("BDF", "DOP853")
    assert choice.reason


@given(rtol=st.floats(1e-12, 1e-2), stiffness=st.floats(1, 1e5))
def test_more_stiffness_never_turns_away_from_bdf(rtol: float, stiffness: float) -> None:
    if choose(kinks=(), stiffness=stiffness, rtol=rtol).method == "BDF":
        assert choose(kinks=(), stiffness=2 * stiffness, rtol=rtol).method == "BDF"
