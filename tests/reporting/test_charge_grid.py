"""The grid of charges and their law: what is drawn is what was recorded and predicted, and each row says what it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import nm_ode
from nm_ode import plots
from nm_ode.reporting import PLOTS
from nm_ode.reporting.study.plots import STUDY_PLOTS
from tests.reporting.trees import small_problem, study_tree

KINDS = ("translation", "scale", "rescale")


@pytest.fixture(scope="module")
def runs() -> dict[str, xr.Dataset]:
    """Of one network with BatchNorm: plain descent, with weight decay, with momentum too."""
    problem = small_problem("relu", norm="batch")
    found = nm_ode.symmetries_of(problem)
    optimizers = {
        "plain": nm_ode.SGD(lr=0.05),
        "decay": nm_ode.SGD(lr=0.05, weight_decay=1e-2),
        "momentum": nm_ode.SGD(lr=0.05, momentum=0.9, weight_decay=1e-2),
    }
    return {
        name: nm_ode.train(problem, optimizer, 25, batch_size=20, observe=[nm_ode.Charges(found)])
        for name, optimizer in optimizers.items()
    }


@pytest.fixture(scope="module")
def unnormalised() -> xr.Dataset:
    """Of a network that has no scale symmetry."""
    problem = small_problem("relu")
    charges = nm_ode.Charges(nm_ode.symmetries_of(problem))
    return nm_ode.train(problem, nm_ode.SGD(lr=0.05, weight_decay=1e-2), 15, observe=[charges])


def lines(panel: Axes) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What was recorded, and what is predicted."""
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in panel.lines]
    assert all(line.get_color() == "black" for line in panel.lines[1::2])
    return drawn[::2], drawn[1::2]


def notes(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.texts]


def test_a_row_for_each_run_and_a_column_for_each_kind(runs) -> None:
    grid = plots.charge_grid(list(runs.values()))
    assert grid.shape == (3, 3)
    assert [panel.get_title(loc="left").split(",")[0] for panel in grid[0]] == list(KINDS)
    labels = [line[0].get_ylabel() for line in grid]
    assert ["momentum = 0.9" in label for label in labels] == [False, False, True]
    assert ["weight decay = 0\n" in label for label in labels] == [True, False, False]
    assert ["first-order" in label for label in labels] == [True, True, False]
    assert not any("lr" in label for label in labels)  # all have the same


def test_what_is_drawn_is_what_was_recorded_and_what_its_law_predicts(runs) -> None:
    grid = plots.charge_grid(runs, channels=3)
    for line, run, law in zip(
        grid, runs.values(), ("first_order", "first_order", "second_order"), strict=True
    ):
        predicted = nm_ode.predict_charges(run, law)
        for panel in line:
            kind = KINDS[list(line).index(panel)]
            there = np.flatnonzero(run.kind == kind)
            recorded, by_law = lines(panel)
            assert len(recorded) == 3
            for values, found in zip(recorded, by_law, strict=True):
                (channel,) = [i for i in there if np.array_equal(run.charge[:, i], values)]
                np.testing.assert_array_equal(found, predicted.charge[:, channel])
                np.testing.assert_array_equal(panel.lines[0].get_xdata(), run.time)


def test_the_error_above_a_panel_is_the_laws(runs) -> None:
    (line,) = plots.charge_grid(runs["momentum"])
    compared = nm_ode.compare(runs["momentum"], nm_ode.predict_charges(runs["momentum"], "second_order"))
    for kind, panel in zip(KINDS, line, strict=True):
        name = next(text for text in notes(panel) if not text.startswith("error"))
        worst = float(compared.symmetry_relative_error.sel(symmetry=f"{kind} {name}").max())
        assert f"error {worst:.0e}" in notes(panel)


def test_charges_that_do_not_move_lie_still(runs) -> None:
    panel = plots.charge_grid(runs["plain"])[0, 0]
    assert "does not move" in notes(panel)
    low, high = panel.get_ylim()
    recorded, _ = lines(panel)
    assert high - low > 1e3 * max(np.ptp(values) for values in recorded)


def test_labels_and_axes_of_the_users_own(runs) -> None:
    axes = Figure().subplots(2, 3)
    grid = plots.charge_grid({"A": runs["plain"], "B": runs["momentum"]}, axes=axes)
    assert grid.tolist() == axes.tolist()
    assert [line[0].get_ylabel().split("\n")[0] for line in grid] == ["A", "B"]
    with pytest.raises(nm_ode.ArgumentError, match="6 panels"):
        plots.charge_grid({"A": runs["plain"], "B": runs["momentum"]}, axes=axes[0])


def test_a_row_takes_each_kind_from_the_first_run_that_has_it(runs, unnormalised) -> None:
    (alone,) = plots.charge_grid(unnormalised)
    assert [panel.get_title(loc="left").split(",")[0] for panel in alone] == ["translation", "rescale"]
    both = plots.charge_grid({"decay": [unnormalised, runs["decay"]], "without": unnormalised})
    np.testing.assert_array_equal(both[0, 0].lines[0].get_xdata(), unnormalised.time)
    np.testing.assert_array_equal(both[0, 1].lines[0].get_xdata(), runs["decay"].time)
    assert not both[1, 1].lines
    assert "no scale symmetry" in notes(both[1, 1])


def test_charges_that_end_in_nan_move_up_to_there(runs) -> None:
    run = runs["momentum"]
    grid = plots.charge_grid(run.assign(charge=run.charge.where(run.step < 12)))
    for panel in grid[0]:
        assert any(note.startswith(f"not finite from t = {0.05 * 12:.3g}") for note in notes(panel))
    once = plots.charge_grid(run.assign(charge=run.charge.where(run.step < 1)).isel(step=slice(1)))
    assert all("recorded once" in notes(panel) for panel in once[0])


def test_symmetries_and_laws_by_name(runs) -> None:
    names = list(dict.fromkeys(runs["momentum"].charge_symmetry.values.tolist()))
    chosen = names[-1], names[0]
    grid = plots.charge_grid(runs["momentum"], symmetries=chosen)
    assert [panel.get_title(loc="left").split(",")[0] for panel in grid[0]] == [
        name.split()[0] for name in chosen
    ]
    tree = plots.as_tree(
        runs["momentum"],
        *(nm_ode.predict_charges(runs["momentum"], law) for law in ("exact", "second_order")),
    )
    exact = plots.charge_grid(tree, law="exact")
    assert "exact" in exact[0, 0].get_ylabel()
    assert "second-order" in plots.charge_grid(tree)[0, 0].get_ylabel()
    for wrong, words in (
        ({"symmetries": ["scale head"]}, "scale head"),
        ({"symmetries": 3}, "symmetries must be"),
        ({"law": "third_order"}, "second_order"),
    ):
        with pytest.raises(nm_ode.ArgumentError, match=words):
            plots.charge_grid(tree, **wrong)


def test_runs_without_charges_or_a_law_are_refused(problem, runs) -> None:
    with pytest.raises(nm_ode.LawError, match="recorded no charges"):
        plots.charge_grid(nm_ode.train(problem, nm_ode.SGD(lr=0.1), 3))
    model_problem = small_problem("relu")
    observers = [nm_ode.Charges(nm_ode.symmetries_of(model_problem))]
    with pytest.raises(nm_ode.LawError, match="Adam"):
        plots.charge_grid(nm_ode.train(model_problem, nm_ode.Adam(lr=1e-3), 3, observe=observers))
    with pytest.raises(nm_ode.ArgumentError, match=r"at most 8.*9 were given"):
        plots.charge_grid([runs["plain"]] * 9)
    with pytest.raises(nm_ode.ArgumentError, match="no runs"):
        plots.charge_grid([])


def _study(runs: dict[str, xr.Dataset], decays: list[float]) -> xr.DataTree:
    """As open_study has members, the second of which took fewer steps, and the last of which is not there."""
    trees = []
    for i, run in enumerate(runs.values()):
        law = nm_ode.predict_charges(run, "first_order" if i < 2 else "second_order")
        tree = study_tree(run, predictions={"first_order": law} if i < 2 else {"second_order": law})
        trees.append(tree.isel(step=slice(20)) if i == 1 else tree)
    groups = {}
    for group in (
        "discrete",
        "laws/first_order",
        "laws/second_order",
        "comparison/first_order",
        "comparison/second_order",
    ):
        having = {i: tree[group].to_dataset() for i, tree in enumerate(trees) if f"/{group}" in tree.groups}
        stacked = xr.concat(
            [having[i] for i in having], "weight_decay", join="outer", combine_attrs="drop_conflicts", data_vars="all",
            coords="minimal", compat="override",
        )  # fmt: skip
        stacked["weight_decay"] = [decays[i] for i in having]
        groups[group] = stacked.reindex(weight_decay=decays)
    root = xr.Dataset(
        {
            "whole": ("weight_decay", [True] * len(trees) + [False]),
            "status": ("weight_decay", ["complete"] * 4),
        },
        coords={"weight_decay": decays},
    )
    return xr.DataTree.from_dict({"/": root, **groups})


def test_members_of_a_study_are_rows(runs) -> None:
    study = _study(runs, [0.0, 0.1, 0.2, 0.3])
    assert STUDY_PLOTS["charge_grid"].applies(study)
    grid = plots.charge_grid(study)
    assert [line[0].get_ylabel().split("\n")[0] for line in grid] == [
        f"weight decay = {value}" for value in ("0", "0.1", "0.2")
    ]
    assert [len(line[0].lines[0].get_xdata()) for line in grid] == [25, 20, 25]
    for line, run in zip(grid, runs.values(), strict=True):
        first = line[2].lines[0].get_ydata()
        (channel,) = [i for i in range(run.sizes["charge_index"]) if run.charge[0, i] == first[0]]
        np.testing.assert_array_equal(first, run.charge[: len(first), channel])
    assert "second-order" in grid[2, 0].get_ylabel()
    selected = plots.charge_grid(study.sel(weight_decay=0.1))
    assert len(selected) == 1
    assert len(selected[0, 0].lines[0].get_xdata()) == 20
    figure = STUDY_PLOTS["charge_grid"].figure(study)
    assert len(figure.axes) == 9


def test_a_row_says_all_that_varies_together_with_its_axis(runs) -> None:
    study = _study(runs, [0.0, 0.1, 0.2, 0.3])
    root = study.to_dataset(inherit=False)
    study.dataset = root.assign_coords({"optimizer.momentum": ("weight_decay", [0.5, 0.6, 0.7, 0.8])})
    labels = [" ".join(axes.get_ylabel().split()) for axes in plots.charge_grid(study)[:, 0]]
    for label, decay, momentum in zip(labels, (0, 0.1, 0.2), (0.5, 0.6, 0.7), strict=True):
        assert f"weight decay = {decay:g}" in label
        assert f"momentum = {momentum:g}" in label


def test_the_report_of_one_run_has_no_grid_and_a_study_without_charges_none(runs, with_flows) -> None:
    assert "charge_grid" not in PLOTS
    for tree in (with_flows, plots.as_tree(runs["plain"])):
        assert not STUDY_PLOTS["charge_grid"].applies(tree)


def test_a_loop_of_the_users_own_is_drawn(runs) -> None:
    problem = small_problem("relu", norm="batch")
    found = nm_ode.symmetries_of(problem)
    some = nm_ode.Charges(found, every=5, laws=["second_order"])
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.05, momentum=0.5), 20, observe=[some])
    grid = plots.charge_grid(run)
    np.testing.assert_array_equal(grid[0, 0].lines[0].get_xdata(), run.charge_time)
    assert torch.get_default_dtype() == torch.float32
