"""Optimisers with several groups of parameters: charges keep the law of the group that moves them."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Charges, LawError, Recorder, Statistics

from .witness import STEPS, Witness, batches, recorder_of
from .witness import network as small_network

Groups = list[dict[str, Any]]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    widths = (4, 6, 5, 5, 3)
    layers = [one for pair in pairwise(widths) for one in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).double()


def halves(model: nn.Sequential, first: dict[str, Any], second: dict[str, Any]) -> Groups:
    return [
        {"params": [*model[0].parameters(), *model[2].parameters()], **first},
        {"params": [*model[4].parameters(), *model[6].parameters()], **second},
    ]


@pytest.fixture(scope="module")
def symmetries() -> nm_ode.Symmetries:
    return nm_ode.find_symmetries(network(), batches(1)[0][0], loss="cross_entropy")


def recorded(
    symmetries: nm_ode.Symmetries,
    groups: Any,
    *,
    every: int = 1,
    store: Path | None = None,
    schedule: bool = False,
    **options: Any,
) -> xr.Dataset:
    model = network()
    optimizer = torch.optim.SGD(groups(model), lr=0.1, **options)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20) if schedule else None
    with Recorder(model, optimizer, store, observe=[Charges(symmetries, every=every)]) as recorder:
        for x, y in batches(13):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            recorder.loss(loss)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
    return recorder.run


def error_of(run: xr.Dataset, predicted: xr.Dataset, symmetry: str) -> float:
    """Largest error of its charges, over their size."""
    here = run.charge_symmetry.values == symmetry
    error = abs(predicted.charge.values[:, here] - run.charge.values[:, here]).max()
    return float(error / abs(run.charge.values[:, here]).max())


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain, Nesterov": (
        {"lr": 0.05},
        {"lr": 0.2, "momentum": 0.8, "nesterov": True, "weight_decay": 0.02},
    ),
    "decay, dampened": ({"lr": 0.05, "weight_decay": 0.1}, {"momentum": 0.9, "dampening": 0.3}),
    "decay": ({"weight_decay": 0.1, "momentum": 0.9}, {"momentum": 0.9}),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("every", [1, 4])
def test_charges_of_one_group_have_its_law(
    symmetries: nm_ode.Symmetries, name: str, every: int, tmp_path: Path
) -> None:
    def groups(model: nn.Sequential) -> Groups:
        return halves(model, *SETTINGS[name])

    store = tmp_path / "run.zarr" if every > 1 else None
    run = recorded(symmetries, groups, every=every, store=store, schedule=True)
    predicted = nm_ode.predict_charges(run, "exact")
    for symmetry in ("rescale 0 → 2", "rescale 4 → 6", "translation 6"):
        assert error_of(run, predicted, symmetry) < 1e-13
    between = run.charge_symmetry.values == "rescale 2 → 4"
    assert np.isnan(predicted.charge.values[:, between]).all()
    beyond = nm_ode.run_info(run).beyond_laws
    assert set(beyond.symmetries) == set(nm_ode.law_info(predicted).beyond) == {"rescale 2 → 4"}
    assert not beyond.everything
    why = beyond.of("rescale 2 → 4")
    assert ("learning rates" if "lr" in SETTINGS[name][0] else "weight_decay") in why
    assert why in str(beyond)
    assert np.isfinite(nm_ode.compare(run, predicted).charge_error.values[:, ~between]).all()


@pytest.mark.parametrize("every", [1, 4])
def test_laws_of_a_group_are_those_of_a_run_in_which_it_is_alone(
    symmetries: nm_ode.Symmetries, every: int
) -> None:
    """A law for plain descent describes the charges of a plain group; in a group of its own, as if that were all."""
    frozen, settings = {"lr": 0.0}, {"lr": 0.07, "weight_decay": 0.03}
    run = recorded(symmetries, lambda m: halves(m, settings, {**frozen, "momentum": 0.9}), every=every)
    model = network()
    alone = torch.optim.SGD([*model[0].parameters(), *model[2].parameters()], **settings)
    mine = [one for one in symmetries if one.name == "rescale 0 → 2"]
    with Recorder(model, alone, observe=[Charges(mine, every=every)]) as recorder:
        for x, y in batches(13):
            alone.zero_grad()
            F.cross_entropy(model(x), y).backward()
            alone.step()
    here = run.charge_symmetry.values == "rescale 0 → 2"
    for law in ("exact", "first_order", "second_order"):
        wanted = nm_ode.predict_charges(recorder.run, law)
        found = nm_ode.predict_charges(run, law)
        np.testing.assert_allclose(found.charge.values[:, here], wanted.charge, rtol=1e-12)
    others = nm_ode.law_info(nm_ode.predict_charges(run, "first_order")).beyond
    assert "momentum" in others["rescale 4 → 6"]


def test_an_engine_solves_the_law_of_each_group(symmetries: nm_ode.Symmetries) -> None:
    run = recorded(symmetries, lambda m: halves(m, {"weight_decay": 0.01}, {"lr": 0.05}), momentum=0.9)
    predicted, solved = nm_ode.predict_charges(run, "second_order"), nm_ode.solve_charges(run)
    np.testing.assert_allclose(solved.charge, predicted.charge, atol=1e-8)
    assert np.isnan(solved.charge).any()
    assert set(nm_ode.law_info(solved).beyond) == {"rescale 2 → 4"}


def test_groups_of_equal_settings_are_one(symmetries: nm_ode.Symmetries) -> None:
    run = recorded(
        symmetries, lambda m: [{"params": [p], "name": f"group {i}"} for i, p in enumerate(m.parameters())]
    )
    assert not nm_ode.run_info(run).beyond_laws
    predicted = nm_ode.predict_charges(run, "exact")
    assert all(error_of(run, predicted, one.name) < 1e-13 for one in symmetries)
    assert not nm_ode.law_info(predicted).beyond


def test_a_run_of_which_no_charge_has_a_law_is_refused(symmetries: nm_ode.Symmetries) -> None:
    run = recorded(
        symmetries, lambda m: [{"params": [p], "lr": 0.1 / (1 + i)} for i, p in enumerate(m.parameters())]
    )
    with pytest.raises(LawError, match=r"translation 6: .* learning rates"):
        nm_ode.predict_charges(run, "exact")


def test_an_option_that_changes_costs_the_laws_of_its_group(symmetries: nm_ode.Symmetries) -> None:
    model = network()
    optimizer = torch.optim.SGD(halves(model, {}, {}), lr=0.1, momentum=0.9)
    with Recorder(model, optimizer, observe=[Charges(symmetries)]) as recorder:
        for i, (x, y) in enumerate(batches(6)):
            optimizer.param_groups[1]["dampening"] = 0.5 if i > 2 else 0.0
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    run = recorder.run
    predicted = nm_ode.predict_charges(run, "exact")
    assert error_of(run, predicted, "rescale 0 → 2") < 1e-13
    assert "dampening" in nm_ode.law_info(predicted).beyond["rescale 4 → 6"]
    assert "dampening" in nm_ode.law_info(predicted).beyond["rescale 2 → 4"]


def test_parameters_that_change_their_group_have_its_rate() -> None:
    model, witness = small_network(), Witness()
    groups = [
        {"params": [*model[0].parameters()], "lr": 0.1},
        {"params": [*model[2].parameters()], "lr": 0.01},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    with recorder_of(model, optimizer) as recorder:
        for i, (x, y) in enumerate(batches(STEPS)):
            if i == 3:
                one, other = optimizer.param_groups
                one["params"], other["params"] = other["params"], one["params"]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            witness.step(model, optimizer, recorder, loss)
    witness.end(model)
    witness.agrees_with(recorder.run)
    assert recorder.run.parameter_lr.values[2].tolist() == [0.1, 0.1, 0.01, 0.01]
    assert recorder.run.parameter_lr.values[3].tolist() == [0.01, 0.01, 0.1, 0.1]
    assert "another group" in nm_ode.run_info(recorder.run).beyond_laws.parameters["0.weight"]


@pytest.mark.parametrize("every", [1, 3])
def test_a_run_with_groups_is_gone_on_with(symmetries: nm_ode.Symmetries, every: int, tmp_path: Path) -> None:
    first, second = {"lr": 0.05, "weight_decay": 0.01}, {}

    def begin() -> tuple[nn.Sequential, torch.optim.SGD]:
        model = network()
        return model, torch.optim.SGD(halves(model, first, second), lr=0.1, momentum=0.9)

    runs = []
    for stops in ([10], [4, 10]):
        store, done, kept = tmp_path / f"{len(stops)}.zarr", 0, None
        for stop in stops:
            model, optimizer = begin()
            if kept is not None:
                model.load_state_dict(kept[0])
                optimizer.load_state_dict(kept[1])
            observe = [Charges(symmetries, every=every), Statistics()]
            resume = False if kept is None else kept[2]
            with Recorder(model, optimizer, store, observe=observe, resume=resume) as recorder:
                for x, y in batches(10)[done:stop]:
                    optimizer.zero_grad()
                    F.cross_entropy(model(x), y).backward()
                    optimizer.step()
                kept = copy.deepcopy((model.state_dict(), optimizer.state_dict(), recorder.state_dict()))
            done = stop
        runs.append(recorder.run.load())
    assert runs[0].equals(runs[1])
    assert nm_ode.run_info(runs[0]).beyond_laws == nm_ode.run_info(runs[1]).beyond_laws
    assert error_of(runs[1], nm_ode.predict_charges(runs[1], "exact"), "rescale 4 → 6") < 1e-13


def test_a_report_says_which_charges_have_no_law(symmetries: nm_ode.Symmetries) -> None:
    from nm_ode.reporting.recorded import run_tree

    tree, said = run_tree(recorded(symmetries, lambda m: halves(m, {"lr": 0.05}, {})))
    assert {"exact", "first_order"} <= set(tree["laws"].children)
    assert any("rescale 2 → 4" in str(one) and "learning rates" in str(one) for one in said)
