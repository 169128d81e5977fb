"""Losses at which a number would be wrong without a word: sorted data, sums that vanish, numbers of any scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Hessian, Noise


def loss_of(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def observed(
    model: nn.Module, objective: Callable[[nn.Module, Any], Tensor], batch: Any, *observe: nm_ode.Observer
) -> xr.Dataset:
    """One step that moves nothing, with its gradient."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with nm_ode.Recorder(model, optimizer, observe=observe) as recorder:
        objective(model, batch).backward()
        optimizer.step()
    return recorder.run


def sorted_by_label(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    y = torch.arange(64) // 32
    return torch.randn(64, 3, dtype=dtype) + 4 * y[:, None].to(dtype), y


@pytest.mark.parametrize("way", ["loop", "train"])
def test_noise_of_data_that_are_sorted_by_label_is_that_of_samples_at_random(way: str) -> None:
    """Parts of one label each differ by the labels' gradients, which no batch drawn at random does."""
    x, y = sorted_by_label()
    model = nn.Linear(3, 2).double()
    problem = nm_ode.Problem(model, F.cross_entropy, (x, y))
    exact = float(torch.cov(problem.sample_grads(problem.theta0).T).trace())
    found = []
    for seed in range(6):
        if way == "loop":
            noise = Noise(loss_of, (x, y), every=1, parts=8, seed=seed)
            run = observed(model, loss_of, (x, y), noise)
        else:
            noise = Noise(every=1, samples=66, parts=8, seed=seed)  # 64 of them make equal parts
            run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 1, observe=[noise])
        found.append(float(run["noise_trace"][0]))
    # Of 6 estimates with 7 degrees of freedom each: their mean is off by 22 % at 1σ. In order: 7 times as much.
    assert np.mean(found) == pytest.approx(exact, rel=0.5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_sum_is_told_from_a_mean_where_both_are_zero(reduction: str) -> None:
    x = torch.randn(24, 3, dtype=torch.float64)
    model = nn.Linear(3, 1).double()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)

    def objective(model: nn.Module, batch: Tensor) -> Tensor:
        return getattr(model(batch), reduction)()

    run = observed(model, objective, x, Noise(objective, x, every=1, parts=None))
    assert float(run["noise_trace"][0]) == pytest.approx(float(torch.cov(x.T).trace()), rel=1e-10)
    assert float(run["noise_additivity"][0]) < 1e-12


def test_noise_of_a_loss_that_is_not_finite_over_a_part_is_not_known() -> None:
    x, y = sorted_by_label()
    y = torch.where(
        torch.arange(64) < 60, -100, y
    )  # parts without a target have the mean 0/0, and the gradient 0
    run = observed(nn.Linear(3, 2).double(), loss_of, (x, y), Noise(loss_of, (x, y), every=1, parts=16))
    assert run["noise_trace"].isnull().all()
    assert run["layer_noise_signal"].isnull().all()


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e25])
def test_in_float32_all_numbers_go_with_the_losss_scale(scale: float) -> None:
    """Squares of such numbers are 0 or infinite in float32."""
    x, y = sorted_by_label(torch.float32)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def of(factor: float) -> xr.Dataset:
        def objective(model: nn.Module, batch: Any) -> Tensor:
            return factor * loss_of(model, batch)

        asked = {"every": 1, "top": 3, "trace": 8, "density": 2, "density_steps": 4}
        return observed(
            model,
            objective,
            (x, y),
            Hessian(objective, (x, y), **asked),
            Noise(objective, (x, y), every=1, parts=8),
        )

    run, plain = of(scale), of(1.0)
    for name, power in {
        "hessian_loss": 1,
        "hessian_grad_norm": 1,
        "hessian_curvature": 1,
        "hessian_gradient_norm": 2,
        "hessian_eigenvalue": 1,
        "hessian_overlap": 0,
        "hessian_trace": 1,
        "noise_trace": 2,
        "noise_signal": 2,
        "noise_snr": 0,
        "layer_noise_trace": 2,
    }.items():
        expected = plain[name].values * scale**power
        tolerance = 2e-3 * float(np.abs(expected).max())
        np.testing.assert_allclose(run[name].values, expected, rtol=2e-3, atol=tolerance, err_msg=name)
    assert float(run["hessian_asymmetry"][0]) < 1e-5
    np.testing.assert_allclose(run["hessian_weight"].sum("hessian_rule"), 1, rtol=1e-5)


def test_a_matrix_of_rank_one_has_no_asymmetry() -> None:
    """What is beyond its only eigenvalue is rounding, which is compared with the eigenvalue."""
    x, y = sorted_by_label(torch.float32)
    run = observed(nn.Linear(3, 2), loss_of, (x, y), Hessian(loss_of, (x[:1], y[:1]), every=1, top=3))
    assert float(run["hessian_asymmetry"][0]) < 1e-5
    np.testing.assert_allclose(run["hessian_eigenvalue"][0, 1:], 0, atol=1e-6)


def test_constraints_hold_where_there_is_no_gradient() -> None:
    """At a minimum of a loss with a translation both sides are 0: the rounding of one is not all of it."""
    x = torch.randn(20, 3, dtype=torch.float64)
    y = torch.full((20, 2), 0.5, dtype=torch.float64)
    model = nn.Linear(3, 2).double()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    problem = nm_ode.Problem(model, F.cross_entropy, (x, y))
    symmetries = nm_ode.symmetries_of(problem)
    assert {symmetry.kind for symmetry in symmetries} >= {"translation"}
    hessian = Hessian(every=1, top=2, symmetries=symmetries)
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 1, observe=[hessian])
    assert float(run["hessian_grad_norm"][0]) < 1e-12
    assert float(run["hessian_eigenvalue"][0, 0]) > 0.1
    assert float(run["hessian_constraint"].max()) < 1e-9


def test_one_parameter() -> None:
    class Cubic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.w**3 * x.mean()

    def objective(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch)

    asked = {"every": 1, "top": 5, "trace": 2, "density": 1}
    run = observed(Cubic(), objective, torch.ones(4), Hessian(objective, torch.ones(4), **asked))
    assert run["hessian_eigenvalue"].values.tolist() == [[12.0]]
    for name in ("curvature", "trace"):
        assert float(run[f"hessian_{name}"][0]) == pytest.approx(12)
    assert float(run["hessian_trace_error"][0]) == 0
    assert float(run["hessian_gradient_norm"][0]) == pytest.approx(144)


def test_tied_and_frozen_parameters_are_counted_as_the_optimiser_counts_them() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.frozen, self.other = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.other.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.other(self.frozen(torch.tanh(self.one(x))).tanh())

    model, (x, y) = Tied().double(), sorted_by_label()
    model.frozen.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)
    names = ["one.weight", "one.bias", "other.bias"]

    def loss(theta: Tensor) -> Tensor:
        parts = theta.split([9, 3, 3])
        named = {name: part.view(model.get_parameter(name).shape) for name, part in zip(names, parts)}  # noqa: B905
        named["other.weight"] = named["one.weight"]
        return F.cross_entropy(torch.func.functional_call(model, named, (x,)), y)

    theta = torch.cat([model.get_parameter(name).detach().reshape(-1) for name in names])
    exact = torch.autograd.functional.hessian(loss, theta)
    hessian = Hessian(loss_of, (x, y), every=1, top=4, tol=1e-8)
    with nm_ode.Recorder(model, optimizer, observe=[hessian]) as recorder:
        loss_of(model, (x, y)).backward()
        optimizer.step()
    values = torch.linalg.eigvalsh(exact).flip(0)[:4]
    np.testing.assert_allclose(recorder.run["hessian_eigenvalue"][0], values, rtol=1e-8)
    assert recorder.run["layer"].values.tolist() == ["one", "other"]
