"""Parameters that compensate one another by numbers that are not 1: charges, laws, constraints, plots and page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import nm_ode
from nm_ode.comparison import symmetry_summary
from nm_ode.reporting.report import report_html
from nm_ode.studies import load_case, run_case

NET = """
import torch
from torch import nn

class Biases(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(3, 4, bias=False), nn.Linear(4, 2)
        self.a, self.b = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))

    def forward(self, x):
        return self.out(torch.tanh(self.inner(x) + 2 * self.a - self.b))

def build(seed):
    torch.manual_seed(seed)
    return Biases()

def load(seed):
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(seed))
    return x, (x.sum(1) > 0).long()
"""

CASE = """
name = "signs"
loss = "cross_entropy"
[model]
python = "net.py:build"
[data]
python = "net.py:load"
[optimizer]
name = "sgd"
lr = 0.05
momentum = 0.5
weight_decay = 0.1
[training]
steps = 12
[symmetries]
[[observe]]
name = "constraints"
every = 6
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("signs")
    (folder / "net.py").write_text(NET)
    path = folder / "signs.toml"
    path.write_text(CASE)
    outcome = run_case(load_case(path), path, folder / "out")
    assert outcome.failures == ()
    return outcome.tree


def directions(problem: nm_ode.Problem, symmetry: nm_ode.Symmetry) -> torch.Tensor:
    """Of each charge the direction in theta along which the loss stays, by the meter."""
    meter = nm_ode.symmetries.ChargeMeter(problem.layout, [symmetry])
    eye = torch.eye(symmetry.count, dtype=torch.float64)
    return torch.stack([meter.shift(problem.theta0, one) for one in eye])


def problem() -> nm_ode.Problem:
    space: dict[str, object] = {}
    exec(NET, space)
    return nm_ode.Problem(space["build"](0), torch.nn.functional.cross_entropy, space["load"](0))


def test_the_loss_stays_along_the_direction_and_the_charge_is_its_sum():
    of = problem()
    (symmetry,) = [s for s in nm_ode.symmetries_of(of) if {"a", "b"} <= set(s.parameters)]
    assert symmetry.count == 4
    meter = nm_ode.symmetries.ChargeMeter(of.layout, [symmetry])
    for i, direction in enumerate(directions(of, symmetry)):
        moved = of.theta0 + 0.7 * direction
        assert torch.allclose(of.loss(moved), of.loss(of.theta0), rtol=1e-12)
        a, b = of.layout["a"].slice, of.layout["b"].slice
        assert torch.allclose(direction[b], 2 * direction[a])
        assert float(meter.charge(of.theta0)[i]) == pytest.approx(float(direction @ of.theta0), rel=1e-12)
        assert float(meter.generator_norm(of.theta0)[i]) == pytest.approx(float(direction.norm()), rel=1e-12)


def test_the_laws_predict_their_charges(tree):
    of, run = problem(), tree["discrete"].dataset
    (symmetry,) = [s for s in nm_ode.symmetries_of(of) if {"a", "b"} <= set(s.parameters)]
    (row,) = [row for row in symmetry_summary(tree) if row.name == symmetry.name]
    assert row.recorded_residual < 1e-12
    assert row.laws["exact"].together < 1e-10
    law = tree["comparison/exact"].dataset
    here = law.charge_symmetry.values == row.name
    assert (law.charge_motion.values[here] > 0).all()  # weight decay moves them
    # Each of its own: Q_k = ⟨direction, θ_k⟩.
    expected = run.theta.values[:-1] @ directions(of, symmetry).T.numpy()
    assert np.allclose(run.charge.values[:, run.charge_symmetry.values == row.name], expected, atol=1e-12)


def test_the_page_has_them(tree):
    page = re.sub(r'src="[^"]*"', "", report_html(tree))
    assert "translation" in page
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)
    names = [row.name for row in symmetry_summary(tree)]
    assert nm_ode.plots.phase_portrait(tree) is not None
    assert len(names) == len(set(names))
