"""Cases by the Julia engine, with a stand-in in its worker: solved, cross-checked, refused where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bridges.julia.engine import using_backend
from bridges.julia.installing import installation
from nm_ode.comparison import summary
from nm_ode.reporting import write_report
from nm_ode.results import solve_info
from nm_ode.studies import CaseError, build_study, load_case, run_case

STAND_IN = "tests.bridges.stand_in:StandIn"


@pytest.fixture
def stand_in() -> Iterator[None]:
    with using_backend(STAND_IN):
        yield


def test_a_case_by_the_julia_engine(edited, tmp_path: Path, stand_in) -> None:
    path = edited(("rtol = 1e-5", 'engine = "diffeq"\nrtol = 1e-8'))
    outcome = run_case(load_case(path), path, tmp_path / "out")
    assert outcome.failures == ()
    other = edited(("rtol = 1e-5", 'engine = "scipy"\nrtol = 1e-10'))
    embedded = summary(run_case(load_case(other), other, tmp_path / "other").tree)
    for row, expected in zip(summary(outcome.tree), embedded, strict=True):
        assert (row.engine, row.method) == ("diffeq", "Vern7")
        assert "tight" in row.choice
        np.testing.assert_allclose(row.error, expected.error, rtol=1e-5)
        assert not row.solver_limited


def test_two_engines_check_each_other(edited, tmp_path: Path, stand_in) -> None:
    path = edited(("rtol = 1e-5", 'engine = ["sundials", "diffeq", "scipy"]\nrtol = 1e-8'))
    tree = run_case(load_case(path), path, tmp_path / "out").tree
    for row in summary(tree):
        assert row.engine == "sundials"
        assert [method.split(" (")[0] for method, _ in row.engine_distances] == [
            "diffeq Vern7",
            "scipy DOP853",
        ]
        for _, distance in row.engine_distances:
            assert 0 < distance < 1e-5
    html = " ".join(write_report(tree, tmp_path / "report.html").read_text().split())
    assert "Gradient flow: solved by diffeq Vern7" in html


def test_a_check_that_fails_keeps_the_solution_and_is_tried_again(edited, tmp_path: Path) -> None:
    path = edited(("rtol = 1e-5", 'engine = ["sundials", "diffeq"]\nrtol = 1e-6'))
    with using_backend("nowhere:Nothing"):
        outcome = run_case(load_case(path), path, tmp_path / "out")
    assert all("cross-check: engine 'diffeq'" in failure for failure in outcome.failures)
    assert len(outcome.failures) == 2
    assert solve_info(outcome.tree["flows/gradient"].dataset).status == "success"
    with using_backend(STAND_IN):
        outcome = run_case(load_case(path), path, tmp_path / "out")
    assert outcome.failures == ()
    assert "engine_distance" in outcome.tree["flows/gradient"].dataset


@pytest.mark.skipif(installation().ready, reason="there is a Julia here")
def test_without_julia_a_case_stops_before_anything_is_computed(edited, tmp_path: Path, monkeypatch) -> None:
    from nm_ode.studies import member

    monkeypatch.setattr(member, "train", None)
    path = edited(("rtol = 1e-5", 'engine = "diffeq"'))
    with pytest.raises(
        CaseError, match=r"solver.engine: engine 'diffeq' cannot start: .*`nm-ode bridge install`"
    ):
        run_case(load_case(path), path, tmp_path / "out")


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ("[]", r"solver.engine: \[\] was given; it must be an engine's name, or a list of different ones"),
        ('["scipy", "scipy"]', r"it must be an engine's name, or a list of different ones"),
        ("3", r"solver.engine: 3 was given; it must be an engine's name"),
    ],
)
def test_what_is_no_engine_is_named(edited, engine: str, sentence: str) -> None:
    with pytest.raises(CaseError, match=sentence):
        load_case(edited(("rtol = 1e-5", f"engine = {engine}")))


def test_unknown_methods_of_julia_are_answered_with_near_ones(edited) -> None:
    path = edited(("rtol = 1e-5", 'engine = "diffeq"\nmethod = "Tsit4"'))
    with pytest.raises(CaseError, match=r"engine 'diffeq' has no method 'Tsit4'; did you mean 'Tsit5'"):
        build_study(load_case(path), path)
