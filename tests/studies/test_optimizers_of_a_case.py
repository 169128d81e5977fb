"""What a case says of its optimiser: sharpness along the run, a cold start, momentum, charges without a law."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nm_ode.comparison import stability, summary
from nm_ode.studies import load_case, run_case

FLOWS = '["gradient", { kind = "modified", order = 2, form = "hessian" }]'


def test_stability_is_measured_along_the_run(edited, tmp_path: Path) -> None:
    path = edited(("[solver]", "[stability]\npoints = 3\n[solver]"), ("steps = 10", "steps = 20"))
    tree = run_case(load_case(path), path, tmp_path / "out").tree
    curvature = tree["discrete/curvature"].to_dataset(inherit=False)
    assert curvature["curvature_step"].values.tolist() == [0, 10, 20]
    assert curvature["curvature_time"].values.tolist() == [0, 1, 2]
    assert set(curvature.data_vars) == {
        "sharpness",
        "normalised_sharpness",
        "hvp_evaluations",
        "series_limit",
        "stability_limit",
        "growth_momentum",
        "growth_nesterov",
        "sharpest_gradient",
        "sharpest_noise",
        "sharpest_oscillation",
        "leaving_size",
        "foreseen_oscillation",
        "foreseen_step",
        "seen_step",
    }
    assert np.isnan(curvature["foreseen_step"])
    assert not {*curvature.variables, "curvature_step"} & {*tree["discrete"].dataset.variables}
    assert stability(tree).unstable_from is None


def test_a_cold_start_of_adam_says_from_where_on_a_flow_holds(edited, tmp_path: Path) -> None:
    path = edited(
        (FLOWS, '[{ kind = "modified", order = 4 }]'),
        ("lr = 0.1", 'name = "adam"\nlr = 1e-3'),
        ("steps = 10", "steps = 40"),
        ("save_every = 5", "save_every = 1"),
    )
    (row,) = summary(run_case(load_case(path), path, tmp_path / "out").tree)
    assert 0 < row.holds_from < 20


def test_flows_of_momentum(edited, tmp_path: Path) -> None:
    path = edited(
        (
            FLOWS,
            '["second_order", { kind = "slow_manifold", order = 1 }, "slow_manifold", '
            '{ kind = "modified", order = 3 }]',
        ),
        ("lr = 0.1", "lr = 0.02\nmomentum = 0.9"),
        ("save_every = 5", "warm_steps = 100"),
    )
    rows = summary(run_case(load_case(path), path, tmp_path / "out").tree)
    assert {row.name for row in rows} == {
        "second_order",
        "slow_manifold_1",
        "slow_manifold_2",
        "modified_3_iterated_map",
    }
    errors = {row.name: row.error for row in rows}
    assert errors["modified_3_iterated_map"] < errors["second_order"] < errors["slow_manifold_1"]


def test_a_charge_of_adam_is_recorded_and_no_law_is_claimed(charges_case, tmp_path: Path) -> None:
    path = charges_case(
        ("lr = 0.05\nmomentum = 0.9\nweight_decay = 1e-3", 'name = "adam"\nlr = 1e-3'),
    )
    tree = run_case(load_case(path), path, tmp_path / "out").tree
    assert "charge" in tree["discrete"].dataset
    assert "laws" not in tree.children
