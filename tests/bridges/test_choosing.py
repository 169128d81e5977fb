"""Which method, from smoothness, stiffness and tolerance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges import choose, choose_for_jumps
from bridges.choosing import HOST, LARGE, bdf_evaluations


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


FIELDS = [
    ({"kinks": ("ReLU",), "stiffness": 5.0, "rtol": None}, "RK23"),
    ({"kinks": (), "stiffness": 5.0, "rtol": 1e-8}, "DOP853"),
    ({"kinks": (), "stiffness": 300.0, "rtol": 1e-4}, "RKC2"),
    ({"kinks": (), "stiffness": 300.0, "rtol": 1e-4, "damped": False}, "DOP853"),
]


@pytest.mark.parametrize(("field", "method"), FIELDS)
def test_on_a_gpu_the_state_stays_there(field, method: str) -> None:
    choice = choose(**field, size=10, on_gpu=True)
    assert (choice.engine, choice.method) == ("torch", method)
    assert "on a GPU" in choice.reason


@pytest.mark.parametrize(("field", "method"), FIELDS[:3])
def test_a_large_state_is_not_put_into_vectors_on_the_host(field, method: str) -> None:
    choice = choose(**field, size=LARGE)
    assert (choice.engine, choice.method) == ("torch", method)
    assert f"{LARGE:,} numbers" in choice.reason
    assert choose(**field, size=LARGE - 1) == choose(**field)
    assert choose(**field).engine in ("scipy", "sundials")


def test_fields_that_jump_are_solved_by_the_same_methods_where_they_are() -> None:
    for kinks in ((), ("ReLU",)):
        here, there, large = (
            choose_for_jumps(kinks=kinks, piece=0.1, **place)
            for place in ({}, {"on_gpu": True}, {"size": LARGE})
        )
        assert (here.engine, there.engine, large.engine) == ("scipy", "torch", "torch")
        assert here.method == there.method == large.method
        assert here.step == there.step == large.step
        assert "on a GPU" in there.reason


def test_bdf_is_kept_for_a_large_state_where_its_few_evaluations_are_worth_its_vectors() -> None:
    """A tight tolerance, to which a method of order 2 needs many steps, or a spectrum that it is not stable for."""
    for field in ({"rtol": 1e-9}, {"rtol": 1e-3, "damped": False}):
        choice = choose(kinks=(), stiffness=1e4, size=LARGE, **field)
        assert (choice.engine, choice.method) == ("sundials", "BDF")
        assert "host" in choice.reason
        assert choose(kinks=(), stiffness=1e4, size=LARGE, on_gpu=True, **field).engine == "torch"


@given(
    stiffness=st.floats(0, 1e6),
    rtol=st.floats(1e-13, 1e-1),
    size=st.integers(LARGE, 10**9),
    damped=st.booleans(),
)
def test_a_large_state_costs_at_most_what_bdf_would(
    stiffness: float, rtol: float, size: int, damped: bool
) -> None:
    choice = choose(kinks=(), stiffness=stiffness, rtol=rtol, size=size, damped=damped)
    assert choice.rtol == rtol
    evaluations = [float(word) for word in choice.reason.replace(",", "").split() if word.isdigit()]
    most = HOST * bdf_evaluations(stiffness, rtol)
    assert choice.engine == "sundials" or min(evaluations[:2]) <= most + 1
    assert (
        choose(kinks=(), stiffness=stiffness, rtol=rtol, size=1, on_gpu=True, damped=damped).engine == "torch"
    )
