"""Train, solve, compare, charges and laws, report: for networks of other kinds, as a case file and in Python."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from torch.nn import functional as F

import nm_ode
from nm_ode.comparison import farther_flows, stability, summary, symmetry_summary
from nm_ode.data import digits
from nm_ode.models import resnet18
from nm_ode.reporting.report import report_html
from nm_ode.reporting.words import farther_sentences
from nm_ode.studies import load_case, run_case

CASES = Path(__file__).parents[2] / "cases"

# Fewer steps and samples than the shipped ones have.
SMALL: dict[str, dict[str, str]] = {
    "gpt_tokens": {"width = 16": "width = 8", "layers = 2": "layers = 1", "samples = 32": "samples = 6"},
    "lstm_digits": {"width = 12": "width = 5", "samples = 64": "samples = 10"},
    "own_loss": {"width = 12": "width = 5", "samples = 48": "samples = 9"},
    "resnet18_digits": {"samples = 20": "samples = 12", "step = 2.5e-5": "step = 1e-4"},
}


def case_of(name: str, folder: Path) -> Path:
    """A small copy of a shipped case, with its code."""
    for file in CASES.glob(f"{name}.*"):
        shutil.copy(file, folder)
    path = folder / f"{name}.toml"
    text = re.sub(r"steps = \d+", "steps = 4", path.read_text())
    for shipped, small in SMALL[name].items():
        text = text.replace(shipped, small)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ("gpt_tokens", "resnet18_digits") else ())
        for name in SMALL
    ],
)
def test_a_case_from_the_file_to_the_page(name, tmp_path):
    path = case_of(name, tmp_path)
    outcome = run_case(load_case(path), path, tmp_path / "out")
    assert outcome.failures == ()
    flows = summary(outcome.tree)
    assert [row.status for row in flows] == ["success", "success"]
    assert max(row.relative_error for row in flows) < 1
    if not flows[0].kinks:
        assert flows[1].relative_error < flows[0].relative_error
    rows = symmetry_summary(outcome.tree)
    assert rows
    moved = [row.laws["exact"].together for row in rows if not row.laws["exact"].still and not row.epsilon]
    assert all(error < 1e-8 for error in moved)
    assert all(np.isnan(row.laws["exact"].together) for row in rows if row.laws["exact"].still)
    page = report_html(outcome.tree)
    assert not re.search(r"\bnan\b", re.sub(r'src="[^"]*"', "", page), re.IGNORECASE)
    assert ("at rest" in page) == any(row.laws["exact"].still for row in rows)


def code(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"case_{name}", CASES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def gpt() -> nm_ode.Problem:
    own = code("gpt_tokens")
    return nm_ode.Problem.from_objective(own.build(8, 2, 1, seed=0), own.next_token, own.load(6, seed=0))


def own_loss() -> nm_ode.Problem:
    own = code("own_loss")
    return nm_ode.Problem(own.build(5, seed=0), nm_ode.own_loss, own.load(9, seed=0))


def lstm() -> nm_ode.Problem:
    data = digits(samples=10)
    return nm_ode.Problem(code("lstm_digits").build(5, seed=0), F.cross_entropy, (data.x, data.y))


def resnet() -> nm_ode.Problem:
    data = digits(samples=20).as_images()
    model = resnet18(classes=10, channels=1, width=0.125)
    return nm_ode.Problem(model, F.cross_entropy, (data.x, data.y))


PROBLEMS: dict[str, tuple[Callable[[], nm_ode.Problem], float]] = {
    "gpt": (gpt, 0.1),
    "own loss": (own_loss, 0.3),
    "lstm": (lstm, 0.3),
    "resnet": (resnet, 2e-4),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_same_in_python(name):
    make, lr = PROBLEMS[name]
    problem, sgd = make(), nm_ode.SGD(lr=lr)
    steps = 2 if name == "resnet" else 4
    found = nm_ode.symmetries_of(problem)
    assert len(found)
    assert not found.defects
    run = nm_ode.train(problem, sgd, steps=steps, observe=[nm_ode.Charges(found)])
    law = nm_ode.compare(run, nm_ode.predict_charges(run, "exact", with_residual=True))
    at_rest = law.symmetry_at_rest
    assert (law.symmetry_relative_error.isnull() == at_rest).all()
    assert (law.symmetry_relative_error.fillna(0) < 1e-6).all()
    assert (abs(law.charge_error) < 1e-12).all()
    # A translation's charge stays under descent without decay, and so has nothing to be compared with.
    still = law.charge_motion.values[law.kind.values == "translation"]
    assert (still == 0).all()
    errors = [
        float(nm_ode.compare(run, nm_ode.solve(flow, run, rtol=1e-4, check=False)).relative_error[-1])
        for flow in (nm_ode.GradientFlow(problem), nm_ode.modified_flow(problem, sgd, 2))
    ]
    assert max(errors) < 1
    assert errors[1] < errors[0] or name == "resnet"  # whose ReLUs and small batch promise no order


STEEP = """
import torch
from torch import nn

def build():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    return model

def load():
    return torch.ones(2, 1), torch.zeros(2, 1)
"""

CASE = """
name = "steep"
loss = "mse"
flows = ["gradient", { kind = "modified", order = 2 }]
[model]
python = "steep.py:build"
[data]
python = "steep.py:load"
[optimizer]
name = "sgd"
lr = LR
[training]
steps = 4
"""


def steep(lr: float, folder: Path, case: str = CASE, code: str = STEEP) -> Any:
    (folder / "steep.py").write_text(code)
    path = folder / "steep.toml"
    path.write_text(case.replace("LR", f"{lr}"))
    return run_case(load_case(path), path, folder / "out").tree


def test_a_higher_order_that_is_farther_is_explained_by_the_sharpness(tmp_path):
    # θ' = (1 − 1.8) θ: after 4 steps 0.41; gradient flow has e^{−7.2}, and order 2 e^{−7.2 − 6.48}, less still.
    tree = steep(0.9, tmp_path)
    ((higher, lower),) = farther_flows(summary(tree))
    assert (higher.expected_order, lower.expected_order) == (2, 1)
    seen = stability(tree)
    assert seen is not None
    assert seen.largest == pytest.approx(1.8, rel=1e-6)
    (said,) = farther_sentences(summary(tree), seen)
    assert said.warns
    for words in ("reaches 1.8", "above 1 ", "stable below 2"):
        assert words in said.text
    assert "farther from the run" in report_html(tree)


@pytest.mark.parametrize("batches", ["full", "same"])
def test_the_sharpness_is_that_of_a_batch_where_the_loss_is_a_sum(batches, tmp_path):
    """Σ θ² over 2 of 4 samples has λ_max 4, and over all of them 8."""
    code = (
        STEEP.replace("(2, 1)", "(4, 1)")
        + "\ndef total(model, batch):\n    return (model(batch[0]) ** 2).sum()\n"
    )
    case = CASE.replace('loss = "mse"', 'objective = { python = "steep.py:total" }')
    case = case.replace('"gradient"', '{ kind = "gradient", batches = "BATCHES" }')
    case = (
        case.replace("order = 2", 'order = 2, batches = "BATCHES"').replace("BATCHES", batches)
        + "batch_size = 2\n"
    )
    tree = steep(0.45, tmp_path, case, code)
    assert farther_flows(summary(tree))
    assert stability(tree).largest == pytest.approx(1.8, rel=1e-6)


def test_where_the_higher_order_is_closer_nothing_is_measured(tmp_path):
    tree = steep(0.1, tmp_path)
    assert stability(tree) is None
    assert farther_sentences(summary(tree), None) == []
    assert "farther from the run" not in report_html(tree)
