"""The how-to pages beyond their own code: a case with its file of functions runs; what is told of mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import nm_ode
from nm_ode.studies import CaseError, load_case, run_case

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "own_code_in_a_case.md"


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """The page's file of functions beside its case, with fewer steps."""
    text = PAGE.read_text()
    code, table = (
        re.search(rf"```{name}\n(# my_case.*?)```", text, re.DOTALL) for name in ("python", "toml")
    )
    assert code is not None
    assert table is not None
    (tmp_path / "my_case.py").write_text(code[1])
    path = tmp_path / "my_case.toml"
    path.write_text(table[1].replace("steps = 100", "steps = 5").replace("1e-8", "1e-4"))
    return path


def test_the_case_with_code_of_its_own_runs(case: Path) -> None:
    outcome = run_case(load_case(case), case, case.parent / "results")
    tree = nm_ode.open_store(outcome.store)
    assert set(tree["comparison"].children) >= {"gradient", "modified_2_iterated_map"}
    assert tree["symmetries"]["n_charges"].sum() == 17  # as the page shows them


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("width = 16", "widht = 16", "did you mean 'width'"), ("my_case.py:load", "my_case.py:laod", "'load'")],
    ids=["an argument", "a function"],
)
def test_a_mistake_in_it_is_told_as_the_page_says(case: Path, old: str, new: str, said: str) -> None:
    case.write_text(case.read_text().replace(old, new))
    with pytest.raises(CaseError, match=re.escape(said)):
        run_case(load_case(case), case, case.parent / "results")


def test_an_observer_for_runs_of_known_length_names_one_for_a_loop() -> None:
    model = nn.Linear(3, 2)
    problem = nm_ode.Problem(model, nn.functional.mse_loss, (torch.zeros(4, 3), torch.zeros(4, 2)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = nm_ode.Recorder(model, optimizer, problem=problem, observe=[nm_ode.Curvature(points=3)])
    with pytest.raises(nm_ode.ArgumentError, match="Hessian"), recorder:
        pass
