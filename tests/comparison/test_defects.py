"""One-step defects read off a run, against flows that were really solved."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nm_ode import SGD, Adam, compare, final_state, modified_flow, solve, train
from nm_ode.comparison import defects, holds_from, share_at_start
from nm_ode.comparison.defects import HOLDS
from nm_ode.results import comparison_info


@pytest.mark.parametrize("order", [1, 2, 4])
def test_they_are_what_one_step_of_the_flow_misses(tanh_digits, order: int) -> None:
    """To leading order: the flow is solved for one step from the run's own state, at three steps."""
    optimizer = SGD(lr=0.05, momentum=0.5)
    run = train(tanh_digits, optimizer, 30)
    found = defects(run, order)
    for step in (0, 8, 20):
        warm = None if step == 0 else final_state(train(tanh_digits, optimizer, step, save_every=step))
        one = train(tanh_digits, optimizer, 1, state0=warm)
        flow = modified_flow(tanh_digits, optimizer, order)
        solved = solve(flow, one, engine="scipy", rtol=1e-11, check=False, record=["theta"])
        missed = float(compare(one, solved)["error"][-1])
        assert 0.5 < float(found["defect"][step]) / missed < 1.5


def test_adam_from_a_cold_start_holds_some_steps_later(tanh_digits) -> None:
    run = train(tanh_digits, Adam(lr=1e-3), 60)
    for order, latest in ((2, 20), (4, 6)):
        found = defects(run, order)
        first = holds_from(found)
        relative = found["relative_defect"].values
        assert 0 < first <= latest
        assert (relative[first:] < HOLDS).all()
        assert relative[first - 1] >= HOLDS
        assert relative[0] > 10 * relative[first]
    warm = train(
        tanh_digits,
        Adam(lr=1e-3),
        30,
        state0=final_state(train(tanh_digits, Adam(lr=1e-3), 200, save_every=200)),
    )
    assert holds_from(defects(warm, 2)) == 0


def test_a_flow_that_never_holds_says_so(tanh_digits) -> None:
    assert holds_from(defects(train(tanh_digits, SGD(lr=0.5), 10), 1)) == -1


def test_known_differences(tanh_digits) -> None:
    """θ_k = a + b ρ^k: Δ^j θ_k = b (ρ−1)^j ρ^k."""
    run = train(tanh_digits, SGD(lr=0.1), 12)
    rho, b = 0.8, np.linspace(-1, 1, run.sizes["param"])
    theta = 3 + b * rho ** np.arange(13)[:, None]
    found = defects(run.assign(theta=(run["theta"].dims, theta)), 3)
    exact = np.linalg.norm(b) * abs(rho - 1) ** 4 / 4 * rho ** np.arange(9)
    np.testing.assert_allclose(found["defect"], exact, rtol=1e-10)
    np.testing.assert_allclose(found["relative_defect"], abs(rho - 1) ** 3 / 4, rtol=1e-9)
    assert found["defect_step"].values.tolist() == list(range(9))


def test_where_nothing_can_be_said(tanh_digits) -> None:
    assert defects(train(tanh_digits, SGD(lr=0.1), 12, save_every=2), 2) is None
    assert defects(train(tanh_digits, SGD(lr=0.1), 3), 3) is None
    assert defects(train(tanh_digits, SGD(lr=0.1), 12, batch_size=32), 2) is None


def test_compare_has_them_however_far_the_flow_was_solved(tanh_digits) -> None:
    run = train(tanh_digits, SGD(lr=0.1), 10)
    flow = modified_flow(tanh_digits, SGD(lr=0.1), 2)
    comparison = compare(run, solve(flow, run["saved_time"].values[:4], check=False))
    assert comparison.sizes["saved_step"] == 4
    assert comparison.sizes["defect_step"] == 8
    assert comparison_info(comparison).holds_from in range(-1, 8)


def test_share_at_the_start() -> None:
    assert share_at_start(np.array([3.0, 1.0, 1.0, 1.0]), 1) == 0.5
    assert np.isnan(share_at_start(np.array([]), 1))
    assert torch.isfinite(torch.tensor(share_at_start(np.array([1.0, np.nan]), 1)))
