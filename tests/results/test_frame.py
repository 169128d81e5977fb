"""Pandas frames of runs, solutions and comparisons: the dataset's own numbers, in tidy rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from torch import nn

import nm_ode
from nm_ode.data import diabetes


@pytest.fixture(scope="module")
def made() -> dict[str, xr.Dataset]:
    data = diabetes(samples=40)
    model = nn.Sequential(nn.Linear(10, 3), nn.ReLU(), nn.Linear(3, 1))
    problem = nm_ode.Problem(model, nn.functional.mse_loss, (data.x, data.y))
    charges = nm_ode.Charges(nm_ode.symmetries_of(problem))
    observe = [charges, nm_ode.Curvature(points=2), nm_ode.Statistics(every=2)]
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.05), steps=6, save_every=3, observe=observe)
    solution = nm_ode.solve(nm_ode.GradientFlow(problem), run, rtol=1e-3, observe=[charges])
    predicted = nm_ode.predict_charges(run, "exact")
    return {
        "run": run,
        "solution": solution,
        "comparison": nm_ode.compare(run, solution),
        "predicted": predicted,
    }


def test_a_row_for_every_step_at_which_anything_was_recorded(made) -> None:
    run, frame = made["run"], nm_ode.frame(made["run"])
    assert frame.index.name == "step"
    assert frame.index.tolist() == list(range(7))  # the last is the end, where theta was saved
    assert frame.columns[0] == "time"
    np.testing.assert_allclose(frame["time"], 0.05 * np.arange(7))
    np.testing.assert_array_equal(frame["loss"][:6], run.loss)
    assert np.isnan(frame["loss"][6])
    np.testing.assert_array_equal(frame["full_loss"].dropna(), run.full_loss)
    assert frame["full_loss"].dropna().index.tolist() == [0, 3, 6]
    np.testing.assert_array_equal(frame["sharpness"].dropna(), run.sharpness)
    np.testing.assert_array_equal(frame["theta_norm"].dropna(), run.theta_norm)
    alone = {name for name, one in run.variables.items() if one.ndim == 1 and name not in run.coords}
    assert set(frame.columns) - {"time"} == alone - {"initial_state", "final_state"}


def test_a_row_for_each_layer(made) -> None:
    run, frame = made["run"], nm_ode.frame(made["run"], per="layer")
    assert frame.index.names == ["step", "layer"]
    assert len(frame) == 6 * 2
    assert frame.index[:3].tolist() == [(0, "0"), (0, "2"), (1, "0")]
    for layer in run.layer.values:
        np.testing.assert_array_equal(
            frame["layer_grad_norm"].xs(layer, level="layer"), run.layer_grad_norm.sel(layer=layer)
        )
    assert frame.loc[(4, "2"), "time"] == pytest.approx(0.2)


def test_a_row_for_each_charge_in_the_order_of_the_dataset(made) -> None:
    run = made["run"]
    frame = nm_ode.frame(run, per="charge")
    assert frame.index.names == ["step", "charge_symmetry", "channel"]
    first = frame.loc[0].reset_index()
    assert first["charge_symmetry"].tolist() == run.charge_symmetry.values.tolist()
    assert first["channel"].tolist() == run.channel.values.tolist()
    assert first["kind"].tolist() == run.kind.values.tolist()
    wide = frame["charge"].dropna().unstack([1, 2])
    np.testing.assert_array_equal(wide, run.charge)
    law = nm_ode.frame(made["predicted"], per="charge")["charge"].rename("charge_law")
    both = frame[["charge"]].join(law).dropna()
    assert len(both) == run.charge.size
    assert abs(both.charge - both.charge_law).max() < 1e-12


def test_a_solution_has_a_row_for_each_time(made) -> None:
    solution = made["solution"]
    frame = nm_ode.frame(solution)
    assert frame.index.name == "time"
    np.testing.assert_array_equal(frame.index, solution.time)
    np.testing.assert_array_equal(frame["solver_error"], solution.solver_error)
    assert "theta" not in frame


def test_a_comparison_lies_on_the_runs_steps(made) -> None:
    comparison, run = made["comparison"], nm_ode.frame(made["run"])
    frame = nm_ode.frame(comparison)
    beside = run.join(frame.drop(columns="time"))
    np.testing.assert_array_equal(beside["error"].dropna(), comparison.error)
    assert frame["solver_limited"].dtype == bool
    of_symmetries = nm_ode.frame(comparison, per="symmetry")
    at_rest = of_symmetries["symmetry_at_rest"].groupby("symmetry", sort=False).first()
    np.testing.assert_array_equal(at_rest, comparison.symmetry_at_rest)


def test_flags_with_holes_stay_flags() -> None:
    flags = xr.Dataset(
        {"flag": ("saved_step", [True, False]), "number": ("step", [1.0, 2.0, 3.0])},
        {"saved_step": [0, 2], "step": [0, 1, 2]},
    )
    frame = nm_ode.frame(flags)
    assert frame["flag"].dtype == "boolean"
    assert frame["flag"].dropna().tolist() == [True, False]


def test_what_has_no_steps_has_a_row_for_each_place(made) -> None:
    found = xr.Dataset({"n_charges": ("symmetry", [3, 1])}, {"symmetry": ["a", "b"]})
    assert nm_ode.frame(found, per="symmetry")["n_charges"].to_dict() == {"a": 3, "b": 1}
    assert nm_ode.frame(found).empty


def test_members_are_places_too() -> None:
    data = diabetes(samples=20)
    problem = nm_ode.Problem(nn.Linear(10, 1), nn.functional.mse_loss, (data.x, data.y))
    runs = nm_ode.train(
        problem, nm_ode.SGD(lr=0.1), steps=3, batch_size=5, members=nm_ode.Members(seed=[3, 4])
    )
    frame = nm_ode.frame(runs, per="member")
    for member in (0, 1):
        np.testing.assert_array_equal(
            frame["loss"].xs(member, level="member").dropna(), nm_ode.member_run(runs, member).loss
        )


def test_a_group_of_a_tree_has_its_curvature(made) -> None:
    tree = nm_ode.plots.as_tree(made["run"], made["solution"])
    left, right = nm_ode.frame(tree["discrete"]), nm_ode.frame(made["run"])
    columns = [name for name in right.columns if name in left.columns]
    assert "sharpness" in columns
    assert left[columns].equals(right[columns])


@pytest.mark.parametrize(
    ("per", "said"), [("layers", "'layer'"), (3, "'charge'"), ("step", "'layer'")], ids=str
)
def test_what_is_no_dimension_is_told(made, per, said: str) -> None:
    with pytest.raises(nm_ode.ArgumentError, match=said):
        nm_ode.frame(made["run"], per=per)


def test_what_is_no_dataset_is_told(made, tmp_path: Path) -> None:
    with pytest.raises(nm_ode.ArgumentError, match="a run, a solution"):
        nm_ode.frame(made["run"].loss)
    tree = nm_ode.plots.as_tree(made["run"], made["solution"])
    with pytest.raises(nm_ode.ResultError, match=r"/discrete, .*/comparison/gradient"):
        nm_ode.frame(tree)
    study = xr.DataTree(xr.Dataset({"whole": ("lr", [True]), "status": ("lr", ["success"])}))
    with pytest.raises(nm_ode.ResultError, match="study_frame"):
        nm_ode.frame(study)
