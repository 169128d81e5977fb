"""The update as −lr·v of torch's SGD with momentum: what the difference of the parameters is, to their rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional as F

from nm_ode import Charges, Observer, Recorder, Statistics, Variable, find_symmetries, predict_charges
from nm_ode.errors import ArgumentError

STEPS = 6
MEASURED = (
    "charge_driver",
    "theta_update",
    "gradient_update",
    "update_norm",
    "layer_update_norm",
    "layer_theta_update",
)

SGD = torch.optim.SGD


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4)).double()


def recorded(
    make: Callable[[Any], torch.optim.Optimizer],
    *observe: Observer,
    change: Callable[[int, nn.Module, torch.optim.Optimizer], object] = lambda step, model, optimizer: None,
    **options: Any,
) -> xr.Dataset:
    model, draw = network(), torch.Generator().manual_seed(1)
    optimizer = make(model)
    symmetries = find_symmetries(network(), torch.randn(3, 5, dtype=torch.float64))
    with Recorder(
        model, optimizer, observe=[Charges(symmetries), Statistics(), *observe], **options
    ) as recorder:
        for step in range(STEPS):
            x = torch.randn(6, 5, dtype=torch.float64, generator=draw)
            y = torch.randint(4, (6,), generator=draw)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            change(step, model, optimizer)
            recorder.loss(loss)
            optimizer.step()
    return recorder.run


def other_rate(step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)


def no_gradient(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    if step in (0, 3):
        model[0].weight.grad = None


def none_at_first(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    if step == 0:
        optimizer.zero_grad()


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({}, None),
        ({"weight_decay": 0.1, "dampening": 0.2}, None),
        ({"maximize": True}, None),
        ({"foreach": True}, None),
        ({"fused": True, "weight_decay": 0.1}, None),
        ({}, other_rate),
        ({}, no_gradient),
        ({}, none_at_first),
    ],
)
def test_the_rule_is_the_difference(options: dict[str, Any], change: Any) -> None:
    make = lambda model: SGD(model.parameters(), lr=0.1, momentum=0.9, **options)  # noqa: E731
    changes = {} if change is None else {"change": change}
    by_rule, moved = (recorded(make, update_by_rule=one, **changes) for one in (True, False))
    for name in MEASURED:
        scale = float(np.abs(moved[name]).max())
        np.testing.assert_allclose(by_rule[name], moved[name], rtol=0, atol=1e-11 * scale, err_msg=name)
    for name in ("charge", "constraint_residual", "gradient_cosine", "theta_norm"):
        np.testing.assert_array_equal(by_rule[name], moved[name])


def test_each_group_has_its_rate() -> None:
    def make(model: Any) -> torch.optim.Optimizer:
        groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[2].parameters()}]
        return SGD(groups, lr=0.1, momentum=0.9)

    by_rule, moved = (recorded(make, update_by_rule=one) for one in (True, False))
    np.testing.assert_allclose(by_rule["layer_update_norm"], moved["layer_update_norm"], rtol=1e-11)


def test_a_rate_that_changes_at_the_end_of_the_step_is_not_that_of_the_step() -> None:
    def make(model: Any) -> torch.optim.Optimizer:
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        optimizer.register_step_post_hook(lambda *_: scheduler.step())
        return optimizer

    by_rule, moved = (recorded(make, update_by_rule=one) for one in (True, False))
    np.testing.assert_allclose(by_rule["update_norm"], moved["update_norm"], rtol=1e-11)


def test_the_exact_law_closes() -> None:
    run = recorded(lambda model: SGD(model.parameters(), lr=0.1, momentum=0.9), update_by_rule=True)
    predicted = predict_charges(run, "exact")["charge"]
    np.testing.assert_allclose(predicted, run["charge"], rtol=0, atol=1e-12)


def test_an_observer_of_the_users_own_has_the_update() -> None:
    class Update(Observer):
        update_variables = {"update": Variable(("param",), "Δθ")}  # noqa: RUF012

        def observe_update(self, view: Any) -> dict[str, Any]:
            return {"update": view.update}

    make = lambda model: SGD(model.parameters(), lr=0.1, momentum=0.9)  # noqa: E731
    by_rule, moved = (recorded(make, Update(), update_by_rule=one) for one in (True, False))
    np.testing.assert_allclose(by_rule["update"], moved["update"], rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "make",
    [
        lambda model: SGD(model.parameters(), lr=0.1),
        lambda model: SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True),
        lambda model: torch.optim.Adam(model.parameters()),
        lambda model: SGD(model.bfloat16().parameters(), lr=0.1, momentum=0.9),
    ],
)
def test_refused_where_the_velocity_says_too_little(make: Any) -> None:
    with pytest.raises(ArgumentError, match="update_by_rule"):
        recorded(make, update_by_rule=True)


def test_refused_where_something_else_moves_the_parameters() -> None:
    def make(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)

        def clamp(*_: object) -> None:
            for parameter in model.parameters():
                parameter.data.clamp_(-0.1, 0.1)

        optimizer.register_step_post_hook(clamp)
        return optimizer

    assert "update_norm" in recorded(make)
    with pytest.raises(ArgumentError, match="update_by_rule"):
        recorded(make, update_by_rule=True)
