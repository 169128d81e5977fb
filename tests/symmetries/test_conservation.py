"""Gradient flow conserves every charge; modified flow and SGD do not (docs/theory.md §3.1)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional as F

import nm_ode
from nm_ode.data import digits
from nm_ode.models import mlp, vit
from nm_ode.observers import Charges
from nm_ode.symmetries import ChargeMeter, symmetries_of

TIGHT = {"rtol": 1e-9}
# At kinks no tolerance is an error (docs/theory.md §6.2), and at 1e-9 an adaptive method stands still where the flow
# slides along one: a fixed step of second order.
KINKED = {"engine": "scipy", "method": "Midpoint", "step": 0.01}


def problem_of(model: nn.Module, image: bool, epsilon: float) -> nm_ode.Problem:
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = epsilon
    data = digits(256)
    return nm_ode.Problem(model, F.cross_entropy, (data.x.reshape(-1, 1, 8, 8) if image else data.x, data.y))


NETWORKS = {
    "relu": (lambda: mlp([64, 32, 24, 10], "relu"), False, KINKED),
    "batch norm, tanh": (lambda: mlp([64, 32, 24, 10], "tanh", norm="batch"), False, TIGHT),
    "batch norm, relu": (
        lambda: mlp([64, 32, 24, 10], "relu", norm="batch"),
        False,
        KINKED | {"step": 0.002},
    ),
    "vit": (lambda: vit(dim=8, heads=2, hidden=12, depth=1), True, TIGHT),
}


def drift(problem: nm_ode.Problem, meter: ChargeMeter, solution: xr.Dataset) -> xr.DataArray:
    """Largest change of each charge over the sizes of its two sides, which the charge is the difference of."""
    size = meter.generator_norm(problem.theta0).numpy() ** 2
    charge = solution["charge"]
    return np.abs(charge - charge.isel(time=0)).max("time") / np.maximum(size, np.abs(charge.isel(time=0)))


@pytest.mark.parametrize("network", NETWORKS)
def test_gradient_flow_keeps_every_charge(network):
    make, image, options = NETWORKS[network]
    problem = problem_of(make(), image, epsilon=1e-12)  # which an ε of 1e-5 would not, see below
    found, times = symmetries_of(problem), np.linspace(0, 2, 5)
    meter = ChargeMeter(problem.layout, found)
    solution = nm_ode.solve(
        nm_ode.GradientFlow(problem), times, observe=[Charges(found)], check=False, **options
    )
    assert float(drift(problem, meter, solution).max()) < 1e-7
    assert np.linalg.norm(solution["theta"][-1] - solution["theta"][0]) > 0.1  # it went somewhere
    kinds = {str(kind) for kind in solution["kind"].values}
    assert kinds >= {"vit": {"matrix", "rescale", "scale", "translation"}}.get(network, {"translation"})
    np.testing.assert_allclose(
        solution["charge"][-1],
        meter.charge(torch.from_numpy(solution["theta"].values[-1])),
        rtol=1e-12,
    )


def test_batch_norms_epsilon_breaks_the_scale_and_nothing_else():
    problem = problem_of(mlp([64, 32, 24, 10], "tanh", norm="batch"), False, epsilon=1e-5)
    found = symmetries_of(problem)
    solution = nm_ode.solve(
        nm_ode.GradientFlow(problem), [0.0, 1.0, 2.0], observe=[Charges(found)], check=False, **TIGHT
    )
    moved = drift(problem, ChargeMeter(problem.layout, found), solution)
    broken = moved["kind"] == "scale"
    assert 1e-7 < float(moved[broken].max()) < 1e-2
    assert float(moved[~broken].max()) < 1e-9


def test_a_modified_flow_moves_the_charges_as_sgd_does():
    problem = problem_of(mlp([64, 16, 10], "identity"), False, epsilon=0.0)
    symmetries, optimizer = symmetries_of(problem), nm_ode.SGD(lr=0.2)
    run = nm_ode.train(problem, optimizer, 20, observe=[Charges(symmetries)])
    matrix = {}
    for order in (1, 2, 3):
        flow = nm_ode.modified_flow(problem, optimizer, order=order)
        comparison = nm_ode.compare(
            run, nm_ode.solve(flow, run, observe=[Charges(symmetries)], rtol=1e-10, check=False)
        )
        matrix[order] = float(
            comparison["symmetry_relative_error"].sel(symmetry="matrix linear1 → linear2")[-1]
        )
    assert matrix[1] == pytest.approx(1.0, abs=1e-6)  # gradient flow misses all of the motion
    assert matrix[2] < 0.1
    assert matrix[3] < 0.2 * matrix[2]


def test_charges_of_other_symmetries_are_not_compared():
    problem = problem_of(mlp([64, 16, 10], "relu"), False, epsilon=0.0)
    translation, rescale = symmetries_of(problem)
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 3, observe=[Charges([translation])])
    solution = nm_ode.solve(nm_ode.GradientFlow(problem), run, observe=[Charges([rescale])], check=False)
    with pytest.raises(nm_ode.comparison.AlignmentError, match="different symmetries"):
        nm_ode.compare(run, solution)
