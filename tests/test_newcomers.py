"""Where somebody new was stopped, following README and the start pages: each answer says what to write instead."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import nm_ode


@pytest.fixture(scope="module")
def run_and_solution():
    x, y = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(8, 1)
    problem = nm_ode.Problem(nn.Linear(2, 1), nn.functional.mse_loss, (x, y))
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=4)
    return run, nm_ode.solve(nm_ode.GradientFlow(problem), t=run), problem


def test_a_comparison_or_a_solution_is_no_run_to_draw(run_and_solution) -> None:
    run, solution, _ = run_and_solution
    for given, what in ((nm_ode.compare(run, solution), "a comparison"), (solution, "a solution")):
        with pytest.raises(nm_ode.NmOdeError, match=what) as caught:
            nm_ode.plots.error(given)
        assert "as_tree(run, solution)" in str(caught.value)
    assert len(nm_ode.plots.error(nm_ode.plots.as_tree(run, solution)).lines) == 3


def test_a_flow_beside_a_recorded_run_without_theta(run_and_solution) -> None:
    *_, problem = run_and_solution
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def recorded(**options: int):
        with nm_ode.Recorder(model, optimizer, **options) as recorder:
            for _ in range(2):
                optimizer.zero_grad()
                model(torch.ones(3, 2)).square().mean().backward()
                optimizer.step()
        return recorder.run

    with pytest.raises(nm_ode.ArgumentError, match="save_every=1"):
        nm_ode.solve(nm_ode.GradientFlow(problem), t=recorded())
    assert nm_ode.solve(nm_ode.GradientFlow(problem), t=recorded(save_every=1)).sizes["time"] == 3


def test_one_number_for_the_times(run_and_solution) -> None:
    *_, problem = run_and_solution
    with pytest.raises(nm_ode.ArgumentError, match=r"such as \[0, 2.5\]"):
        nm_ode.solve(nm_ode.GradientFlow(problem), t=2.5)


@pytest.mark.parametrize(
    ("of", "name", "meant"), [(nm_ode.plots, "errors", "error"), (nm_ode, "slove", "solve")]
)
def test_python_names_what_was_meant(of: object, name: str, meant: str, capsys) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(of, name)
    sys.__excepthook__(AttributeError, caught.value, None)  # as at a prompt
    assert f"Did you mean: '{meant}'" in capsys.readouterr().err
