"""Orders from ladders of learning rates whose errors are known, and their diagnoses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from nm_ode.comparison import (
    Cause,
    Evidence,
    LeftOut,
    ObservedOrder,
    Outcome,
    convergence,
    diagnose,
    diagnoses,
)
from nm_ode.results import LadderInfo

LRS = (0.4, 0.2, 0.1, 0.05)
SMOOTH = LadderInfo(stateful=False, warm_start=False, fixed_step=False)


def point(lr: float, errors, solver=1e-13, rounding=1e-15, beside=("", ""), **scalars) -> xr.Dataset:
    """Two flows, of order 1 and 3, on two layers of which the second has a tenth of the error."""
    errors = np.asarray(errors, float)
    return xr.Dataset(
        {
            "error": ("flow", errors),
            "relative_error": ("flow", errors),
            "solver_error": ("flow", np.full(2, solver)),
            "start_share": ("flow", np.full(2, scalars.get("start", math.nan))),
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
            "beside": ("flow", np.array(beside, dtype=object)),
            "layer": np.array(["one", "two"], dtype=object),
        },
    )


def test_orders_of_power_laws() -> None:
    found = convergence([point(lr, [lr, 2 * lr**3]) for lr in LRS], SMOOTH)
    np.testing.assert_allclose(found["observed_order"], [1, 3], rtol=1e-10)
    np.testing.assert_allclose(found["layer_observed_order"], [[1, 1], [3, 3]], rtol=1e-10)
    assert (found["order_standard_error"] < 1e-10).all()
    assert (found["left_out"] == "").all()
    assert found["lr"].values.tolist() == list(LRS)
    assert found["expected_order"].dims == ("flow",)
    for one, expected in zip(diagnoses(found), (1, 3), strict=True):
        assert (one.outcome, one.causes, one.evidence.expected) == (Outcome.AS_EXPECTED, (), expected)
        assert one.evidence.used == one.evidence.points == 4


def test_every_variable_has_a_name_and_units() -> None:
    variables = convergence([point(lr, [lr, lr**3]) for lr in LRS], SMOOTH).variables
    assert all({"long_name", "units"} <= set(variable.attrs) for variable in variables.values())


def test_learning_rates_may_come_in_any_order() -> None:
    points = [point(lr, [lr, lr**3]) for lr in LRS]
    one, other = convergence(points, SMOOTH), convergence(points[::-1], SMOOTH)
    xr.testing.assert_identical(one, other)


def test_points_at_a_floor_are_left_out_and_counted() -> None:
    """At the two smallest lr the flow's error is what the solver makes, and at another what rounding does."""
    errors = {0.4: 0.4**3, 0.2: 0.2**3, 0.1: 5e-3, 0.05: 5e-3}
    points = [point(lr, [lr, errors[lr]], solver=1e-3 if lr < 0.2 else 1e-6) for lr in LRS]
    found = convergence(points, SMOOTH)
    assert found["left_out"].values[:, 1].tolist() == ["", "", LeftOut.SOLVER_ERROR, LeftOut.SOLVER_ERROR]
    np.testing.assert_allclose(found["observed_order"][1], 3)
    assert np.isnan(found["order_standard_error"][1])
    seen = diagnoses(found)[1]
    assert seen.outcome is Outcome.AS_EXPECTED
    assert seen.evidence.left_out == {LeftOut.SOLVER_ERROR: 2}
    # The layer with a tenth of the error is spoilt sooner.
    assert np.isfinite(found["layer_observed_order"].values[1]).tolist() == [True, True]
    strict = convergence([point(lr, [lr, lr**3], solver=1e-4) for lr in LRS], SMOOTH)
    assert np.isnan(strict["layer_observed_order"].values[1, 1])
    floor = convergence([point(lr, [lr, lr**3], rounding=1e-2) for lr in LRS], SMOOTH)
    assert floor["left_out"].values[:, 1].tolist() == ["", *[LeftOut.ROUNDING] * 3]
    too_few = diagnoses(floor)[1]
    assert (too_few.outcome, too_few.evidence.used) == (Outcome.TOO_FEW_POINTS, 1)


def test_a_flow_that_was_not_solved_is_left_out() -> None:
    points = [point(lr, [lr, math.nan if lr == 0.4 else lr**3]) for lr in LRS]
    found = convergence(points, SMOOTH)
    assert found["left_out"].values[0, 1] == LeftOut.NOT_SOLVED
    np.testing.assert_allclose(found["observed_order"][1], 3)


def test_what_is_measured_reaches_the_diagnosis() -> None:
    points = [point(lr, [lr, lr**1.2], share=0.01 * lr, x=5 * lr, start=lr) for lr in LRS]
    info = LadderInfo(stateful=True, warm_start=False, fixed_step=True, kinks=("ReLU", "MaxPool2d"))
    seen = diagnoses(convergence(points, info))[1]
    assert seen.outcome is Outcome.SHORT
    assert seen.causes == (Cause.KINKS, Cause.SHARPNESS, Cause.COLD_START)
    evidence = seen.evidence
    assert evidence.kinks == ("ReLU", "MaxPool2d")
    assert evidence.crossing_share == pytest.approx(0.004)
    assert evidence.normalised_sharpness == pytest.approx(2.0)
    assert evidence.start_share == pytest.approx(0.4)
    np.testing.assert_allclose(evidence.local_orders, [1.2] * 3)
    assert (evidence.fixed_step, evidence.stateful, evidence.warm_start) == (True, True, False)


def test_whose_samples_a_flow_takes_is_read_not_guessed_from_its_name() -> None:
    points = [point(lr, [lr**0.5, lr**0.5], beside=("full_batch", "same_batch")) for lr in LRS]
    full, same = diagnoses(convergence(points, LadderInfo(stateful=True, warm_start=True, fixed_step=False)))
    assert (full.outcome, full.causes) == (Outcome.NOT_TO_BE_EXPECTED, (Cause.BATCH_NOISE,))
    assert (same.outcome, same.causes) == (Outcome.SHORT, (Cause.BATCH_TRANSIENTS,))


def test_diagnoses_come_back_from_a_store(tmp_path: Path) -> None:
    points = [
        point(
            lr,
            [lr**0.4, math.nan if lr == 0.4 else lr**1.2],
            share=0.01 * lr,
            x=5 * lr,
            beside=("full_batch", ""),
        )
        for lr in LRS
    ]
    info = LadderInfo(stateful=True, warm_start=False, fixed_step=True, kinks=("ReLU",))
    found = convergence(points, info)
    found.to_zarr(tmp_path / "convergence", zarr_format=3, consolidated=False)
    back = xr.load_dataset(tmp_path / "convergence", engine="zarr", consolidated=False)
    assert repr(diagnoses(back)) == repr(diagnoses(found))  # NaN is not equal to itself


SEEN = Evidence(
    flow="modified_4_iterated_map",
    title="modified flow",
    order=ObservedOrder(3.0, 0.01),
    expected=4,
    points=4,
    left_out={},
    local_orders=(2.8, 3.0, 3.2),
    normalised_sharpness=0.2,
)


@pytest.mark.parametrize(
    ("changes", "outcome", "causes"),
    [
        ({}, Outcome.SHORT, (Cause.LARGE_STEPS,)),
        ({"local_orders": (3.1, 3.0, 2.9)}, Outcome.SHORT, ()),
        ({"local_orders": (3.0,)}, Outcome.SHORT, ()),
        ({"kinks": ("ReLU",)}, Outcome.SHORT, (Cause.KINKS,)),
        ({"normalised_sharpness": 1.3}, Outcome.SHORT, (Cause.SHARPNESS,)),
        ({"stateful": True}, Outcome.SHORT, (Cause.COLD_START,)),
        ({"stateful": True, "warm_start": True}, Outcome.SHORT, (Cause.LARGE_STEPS,)),
        (
            {"stateful": True, "warm_start": True, "beside": "same_batch"},
            Outcome.SHORT,
            (Cause.BATCH_TRANSIENTS,),
        ),
        ({"beside": "full_batch"}, Outcome.NOT_TO_BE_EXPECTED, (Cause.BATCH_NOISE,)),
        ({"expected": 3}, Outcome.AS_EXPECTED, ()),
        ({"expected": 3, "beside": "full_batch"}, Outcome.NOT_TO_BE_EXPECTED, (Cause.BATCH_NOISE,)),
        ({"order": ObservedOrder(3.8, 0.15)}, Outcome.AS_EXPECTED, ()),
        ({"order": ObservedOrder(3.2, 0.9)}, Outcome.SHORT, (Cause.LARGE_STEPS,)),
        ({"order": ObservedOrder(3.9, math.nan)}, Outcome.AS_EXPECTED, ()),
        ({"expected": 2}, Outcome.ABOVE, (Cause.LARGE_STEPS,)),
        ({"order": ObservedOrder(math.nan, math.nan), "kinks": ("ReLU",)}, Outcome.TOO_FEW_POINTS, ()),
    ],
)
def test_outcomes_and_causes(changes, outcome: Outcome, causes: tuple[Cause, ...]) -> None:
    found = diagnose(replace(SEEN, **changes))
    assert (found.outcome, found.causes) == (outcome, causes)
