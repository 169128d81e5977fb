"""Central flows in case files: what they need, what goes with them, and the shipped ones from the file to the page."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nm_ode import CentralFlow, Problem
from nm_ode.flows.central.complementarity import solve_complementarity
from nm_ode.loss.nonsmooth import kinks
from nm_ode.models import cnn
from nm_ode.reporting.report import report_html
from nm_ode.studies import CaseError, build_study, load_case, run_case
from nm_ode.studies.losses import mse_one_hot

CASES = Path(__file__).parents[2] / "cases"


def test_the_squared_error_of_classes_is_that_to_one_hot_targets() -> None:
    output = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 3, 1, 1, 2])
    wanted = F.one_hot(target, 4).double()
    assert float(mse_one_hot(output, target)) == pytest.approx(float(F.mse_loss(output, wanted)), rel=1e-15)


@pytest.mark.parametrize(("pooling", "smooth"), [("max", False), ("average", True)])
def test_average_pooling_has_no_kinks(pooling: str, smooth: bool) -> None:
    model = cnn([2], activation="tanh", pooling=pooling)
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    problem = Problem(model, mse_one_hot, (x, torch.arange(4)))
    assert (not kinks(problem)) == smooth


def edited(name: str, folder: Path, *edits: tuple[str, str]) -> Path:
    """A shipped case with other values."""
    text = (CASES / f"{name}.toml").read_text()
    for old, new in edits:
        assert re.search(old, text)
        text = re.sub(old, new, text)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


DROP = 'lr = 1.0\nschedule = { name = "drop", at = [9], factor = 0.5 }'
ALONE = (r"flows = \[[^\]]*\]", 'flows = ["central"]')

MISTAKES = [
    (
        ("save_every = 1 ", "save_every = 4 "),
        r"flows\[0\]: 'central' is held against the run's time average, which takes every step; "
        "training.save_every = 4: leave it out, or add 'averages' to observe",
    ),
    (
        ("save_every = 1 ", "batch_size = 32 "),
        r"flows\[0\]: 'central' is that of steps on all samples; training.batch_size = 32: leave it out",
    ),
    (
        ('"central"', '{ kind = "central", relaxtion = 2.0 }'),
        r"unknown key 'relaxtion'; did you mean 'relaxation'\?",
    ),
    (("lr = 1.0", DROP), r"central flow is that of a constant lr"),
    (
        ('"tanh"', '"relu"'),
        r"flows\[0\]: central flow: .* a loss with kinks \(ReLU\) has not: take a smooth network",
    ),
]


@pytest.mark.parametrize(("edit", "sentence"), MISTAKES, ids=["every", "batches", "key", "schedule", "kinks"])
def test_what_does_not_go_with_a_central_flow_is_named(
    tmp_path: Path, edit: tuple[str, str], sentence: str
) -> None:
    path = edited("central_digits", tmp_path, ALONE, edit)
    with pytest.raises(CaseError, match=sentence):
        build_study(load_case(path), path)


def test_flows_of_one_name_with_other_options_are_refused_with_the_remedy(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(CentralFlow, "name", "one")
    twice = (ALONE[0], 'flows = ["central", { kind = "central", relaxation = 2.0 }]')
    path = edited("central_digits", tmp_path, twice)
    with pytest.raises(
        CaseError, match=r"the name 'one', .*: leave one of them out, or let `name` of CentralFlow"
    ):
        build_study(load_case(path), path)


def test_with_averages_not_every_step_needs_to_be_kept(tmp_path: Path) -> None:
    edits = (("save_every = 1 ", "save_every = 4 "), (r"\n\[model\]", '\nobserve = ["averages"]\n[model]'))
    path = edited("central_digits", tmp_path, ALONE, *edits)
    assert [flow.name for flow in build_study(load_case(path), path).flows] == ["central"]


# Small networks, at learning rates that are past the edge from the start, and a few steps of a method that takes few.
SMALL = {
    "central_digits": (
        0.7,
        (r"\[64, 32, 10\]", "[64, 3, 10]"),
        (r"samples = \d+", "samples = 12"),
        (r"\nwarm_steps = .*", ""),
    ),
    "central_diabetes": (
        0.5,
        (r"\[10, 32, 32, 1\]", "[10, 4, 4, 1]"),
        ('"diabetes"', '"diabetes"\nsamples = 40'),
        (r'  "central",\n', '  "central",\n  { kind = "central", relaxation = 0.5 },\n'),
    ),
    "central_cnn": (1.7, (r"\[4, 8\]", "[2]"), (r"samples = \d+", "samples = 20")),
    "central_rmsprop": (1e-2, (r"\[64, 32, 10\]", "[64, 3, 10]"), (r"samples = \d+", "samples = 12")),
}


def small(name: str, folder: Path, *more: tuple[str, str]) -> Path:
    lr, *edits = SMALL[name]
    if name != "central_diabetes":  # which has all of its flows
        edits.append(ALONE)
    short = (
        (r"\nsteps = \d+", "\nsteps = 4"),
        (r"points = \d+", "points = 2"),
        (r"\nlr = \S+", f"\nlr = {lr}"),
    )
    coarse = (r"\[solver\](\n.+)*\n", "[solver]\nrtol = 1e-2\ncheck = false\n")
    return edited(name, folder, *edits, *short, coarse, *more)


@pytest.mark.parametrize("name", SMALL)
def test_a_central_case_from_the_file_to_the_comparison(name: str, tmp_path: Path) -> None:
    path = small(name, tmp_path)
    outcome = run_case(load_case(path), path, tmp_path / "out")
    assert outcome.failures == ()
    flow = outcome.tree["flows/central"].dataset
    assert float(flow["oscillation_trace"].max()) > 0
    assert float(flow["kkt_residual"].max()) < 1e-8
    if name == "central_diabetes":
        other = outcome.tree["flows/central_relaxation_0.5"].dataset
        assert other.attrs["title"] == "central flow, relaxation = 0.5"
        assert not np.array_equal(other["theta"], flow["theta"])
    if "flows/central_delayed" in outcome.tree:  # nothing has grown in four steps
        assert float(outcome.tree["flows/central_delayed/oscillation_trace"].max()) < 1e-3 * float(
            flow["oscillation_trace"].max()
        )
    for compared in outcome.tree["comparison"].children.values():
        assert np.isfinite(compared["error_to_average"].values[1:-1]).all()
    if name == "central_diabetes":
        page = re.sub(r'src="[^"]*"', "", report_html(outcome.tree))
        assert "central flow" in page
        assert not re.search(r"\bnan\b", page, re.IGNORECASE)


def test_a_central_flow_that_ends_on_its_way_leaves_the_other_flows(tmp_path: Path, monkeypatch) -> None:
    def unsolved(*given: Any, **more: Any) -> Any:
        return replace(solve_complementarity(*given, **more), kkt=1.0)

    monkeypatch.setattr("nm_ode.flows.central.flow.solve_complementarity", unsolved)
    path = small("central_diabetes", tmp_path, (ALONE[0], 'flows = ["central", "gradient"]'))
    outcome = run_case(load_case(path), path, tmp_path / "out")
    assert [failure for failure in outcome.failures if "was found to 1e+00" in failure] == list(
        outcome.failures
    )
    assert outcome.tree["flows/gradient"].attrs["status"] == "success"
    assert outcome.tree["flows/central"].attrs["status"] == "step_failure"
    assert 0 < outcome.tree["comparison/central"].sizes["saved_step"] < 4
