"""A case that was cut off in the middle of a training or of a flow goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from nm_ode.results import solve_info
from nm_ode.studies import load_case, run_case

FLOWS = '"gradient", { kind = "modified", order = 2, form = "hessian" }]'


class CutOffError(Exception):
    """The case is broken off here."""


def cut_off(what: str, at: int) -> Callable[[str, int], Callable[[int], None]]:
    def progress(told: str, total: int) -> Callable[[int], None]:
        def report(done: int) -> None:
            if told == what and done == at:
                raise CutOffError

        return report

    return progress


@pytest.fixture
def always_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nm_ode.studies.keeping._EVERY", 0.0)


PLACES = [
    ("training", 7, "training: goes on from step 7 of 10"),
    ("gradient flow", 2, "gradient flow: goes on from sample 1 of 3"),
]


@pytest.mark.usefixtures("always_kept")
def test_each_part_goes_on_where_it_was(edited, tmp_path: Path) -> None:
    path = edited(
        ("[solver]", '[solver]\nengine = "scipy"'),
        (FLOWS, '"gradient"]'),
        ("rtol = 1e-5", "rtol = 1e-3"),
        ("steps = 10", "steps = 10\nwarm_steps = 4"),
    )
    case = load_case(path)
    whole = run_case(case, path, tmp_path / "whole").tree
    told: list[str] = []
    for what, at, _ in PLACES:
        with pytest.raises(CutOffError):
            run_case(case, path, tmp_path / "out", cut_off(what, at), told.append)
        told.append("again")
    outcome = run_case(case, path, tmp_path / "out", None, told.append)
    for _, _, sentence in PLACES:
        assert any(one.startswith(sentence) for one in told), (sentence, told)
    assert not outcome.failures
    for node in whole.subtree:
        xr.testing.assert_equal(outcome.tree[node.path].to_dataset(), node.to_dataset())
    assert solve_info(outcome.tree["flows/gradient"].to_dataset()).restarts > 0
    left = {file.name for file in (tmp_path / "out" / "tiny").rglob("*") if file.name.startswith(".")}
    assert left <= {".lock"}
