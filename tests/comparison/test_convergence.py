"""Orders from rungs whose errors are known; what is left out, and the words for it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr

from nm_ode.comparison import ObservedOrder, convergence
from nm_ode.comparison.verdict import Evidence, verdict

LRS = (0.4, 0.2, 0.1, 0.05)
ATTRS = {"kinks": "", "stateful": 0, "warm_start": 0, "fixed_step": 0}


def rung(lr: float, errors, solver=1e-13, rounding=1e-15, **scalars) -> xr.Dataset:
    """Two flows, of order 1 and 3, on two layers of which the second has a tenth of the error."""
    errors = np.asarray(errors, float)
    return xr.Dataset(
        {
            "error": ("flow", errors),
            "relative_error": ("flow", errors),
            "solver_error": ("flow", np.full(2, solver)),
            "start_share": ("flow", np.full(2, math.nan)),
            "layer_error": (("flow", "layer"), np.stack([errors, 0.1 * errors], axis=1)),
            "rounding": ((), rounding),
            "largest_normalised_sharpness": ((), scalars.get("x", 0.3)),
            "crossing_share": ((), scalars.get("share", math.nan)),
        },
        coords={
            "lr": lr,
            "flow": np.array(["gradient", "modified_3_iterated_map"], dtype=object),
            "flow_title": ("flow", np.array(["gradient flow", "modified flow"], dtype=object)),
            "expected_order": ("flow", [1, 3]),
            "layer": np.array(["one", "two"], dtype=object),
        },
        attrs={"status": "success"},
    )


def test_orders_of_power_laws() -> None:
    found = convergence([rung(lr, [lr, 2 * lr**3]) for lr in LRS], ATTRS)
    np.testing.assert_allclose(found["observed_order"], [1, 3], rtol=1e-10)
    np.testing.assert_allclose(found["layer_observed_order"], [[1, 1], [3, 3]], rtol=1e-10)
    assert (found["order_standard_error"] < 1e-10).all()
    assert (found["left_out"] == "").all()
    assert found["lr"].values.tolist() == list(LRS)
    assert found["expected_order"].dims == ("flow",)
    assert [str(words) for words in found["verdict"].values] == [
        "Order 1.00 ± 0.00, as theory has it (1).",
        "Order 3.00 ± 0.00, as theory has it (3).",
    ]


def test_rungs_may_come_in_any_order() -> None:
    rungs = [rung(lr, [lr, lr**3]) for lr in LRS]
    one, other = convergence(rungs, ATTRS), convergence(rungs[::-1], ATTRS)
    xr.testing.assert_identical(one, other)


def test_points_at_a_floor_are_left_out_and_named() -> None:
    """At the two smallest lr the flow's error is what the solver makes, and at another what rounding does."""
    errors = {0.4: 0.4**3, 0.2: 0.2**3, 0.1: 5e-3, 0.05: 5e-3}
    rungs = [rung(lr, [lr, errors[lr]], solver=1e-3 if lr < 0.2 else 1e-6) for lr in LRS]
    found = convergence(rungs, ATTRS)
    assert found["left_out"].values[:, 1].tolist() == ["", "", "solver's error", "solver's error"]
    np.testing.assert_allclose(found["observed_order"][1], 3)
    assert np.isnan(found["order_standard_error"][1])
    words = str(found["verdict"].values[1])
    assert words == (
        "Order 3.00, as theory has it (3). Left out: at 2 the solver's own error is above a tenth of what is measured: "
        "tighten solver.rtol."
    )
    # The layer with a tenth of the error is spoilt sooner.
    assert np.isfinite(found["layer_observed_order"].values[1]).tolist() == [True, True]
    strict = convergence([rung(lr, [lr, lr**3], solver=1e-4) for lr in LRS], ATTRS)
    assert np.isnan(strict["layer_observed_order"].values[1, 1])
    floor = convergence([rung(lr, [lr, lr**3], rounding=1e-2) for lr in LRS], ATTRS)
    assert floor["left_out"].values[:, 1].tolist() == ["", "rounding", "rounding", "rounding"]
    assert "No order: only 1 of 4 learning rates can be used" in str(floor["verdict"].values[1])


def test_a_flow_that_was_not_solved_is_left_out() -> None:
    rungs = [rung(lr, [lr, math.nan if lr == 0.4 else lr**3]) for lr in LRS]
    found = convergence(rungs, ATTRS)
    assert found["left_out"].values[0, 1] == "not solved"
    np.testing.assert_allclose(found["observed_order"][1], 3)


def test_what_is_measured_reaches_the_words() -> None:
    rungs = [rung(lr, [lr, lr**1.2], share=0.01 * lr, x=5 * lr) for lr in LRS]
    words = str(convergence(rungs, {**ATTRS, "kinks": "ReLU"})["verdict"].values[1])
    assert "Order 1.20 ± 0.00, short of the 3 of theory for smooth losses." in words
    assert "Kinks are the cause" in words
    assert "(ReLU), and up to 0.40% of the units cross theirs in one step" in words
    assert "lr · λ_max reaches 2 along the path" in words


SEEN = Evidence(
    order=ObservedOrder(3.0, 0.01),
    expected=4,
    rungs=4,
    left_out={},
    local_orders=(2.8, 3.0, 3.2),
    kinks="",
    crossing_share=math.nan,
    noise=False,
    normalised_sharpness=0.2,
    cold_start=False,
    start_share=math.nan,
)


def seen(**changes) -> str:
    return verdict(Evidence(**{**vars(SEEN), **changes}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "It still rises towards small lr (from one lr to the next: 2.80, 3.00, 3.20)"),
        ({"local_orders": (3.1, 3.0, 2.9)}, "No cause was found (from one lr to the next: 3.10, 3.00, 2.90)"),
        ({"kinks": "ReLU"}, "Kinks are the cause: the gradient jumps where a unit crosses zero (ReLU)."),
        ({"normalised_sharpness": 1.3}, "lr · λ_max reaches 1.3 along the path"),
        (
            {"cold": True, "start_share": 0.7},
            "(70% of the one-step defects fall in the first tenth of the run)",
        ),
        ({"noise": True}, "their noise is in the error, and no order can show"),
        ({"batch_transients": True}, "Each change of batch starts a transient"),
        ({"expected": 3}, "Order 3.00 ± 0.01, as theory has it (3)."),
        ({"expected": 3, "noise": True}, "their noise is in the error"),
        ({"order": ObservedOrder(3.8, 0.15)}, "Order 3.80 ± 0.15, as theory has it (4)."),
        ({"order": ObservedOrder(3.2, 0.9)}, "Order 3.20 ± 0.90, short of the 4 of theory"),
        (
            {"order": ObservedOrder(4.5, 0.9), "noise": True},
            "Order 4.50 ± 0.90; theory's 4 is not to be expected here.",
        ),
        ({"expected": 2}, "above the 2 of theory: these learning rates are not on the final slope yet"),
        ({"left_out": {"solver's error": 1}, "fixed_step": True}, "take a smaller solver.step"),
        (
            {"left_out": {"not solved": 1, "rounding": 2}},
            "of 1 learning rates the run or the flow has no end; at 2 the error is at the rounding of the run itself",
        ),
    ],
)
def test_words(changes, words: str) -> None:
    assert words in seen(**changes)


def test_a_cause_is_named_only_where_it_was_measured() -> None:
    words = seen()
    for cause in ("Kinks", "λ_max", "batches", "nothing to remember", "Left out"):
        assert cause not in words
