"""A training of members that is cut off goes on to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import nm_ode
from nm_ode import SGD, Adam, Checkpoint, Members, Problem, Statistics
from tests.together.runs import Travelled, small_problem


class CutOff(Exception):  # noqa: N818
    """What a kill is to the training."""


def cut_off_at(step: int) -> Any:
    def on_step(done: int) -> None:
        if done >= step:
            raise CutOff

    return on_step


@pytest.fixture(scope="module")
def problem() -> Problem:
    return small_problem()


OPTIONS: dict[str, Any] = {
    "batch_size": 6,
    "save_every": 4,
    "schedule": nm_ode.Cosine(warmup=3),
    "observe": [Statistics(every=3, momentum=None), nm_ode.KinkCrossings(3)],
}


@pytest.mark.parametrize(
    ("optimizer", "values"),
    [
        (SGD(lr=0.1), {"momentum": [0.0, 0.9, 0.5], "seed": [0, 1, 2]}),
        (Adam(lr=0.02), {"lr": [0.01, 0.02, 0.03], "seed": [0, 1, 2]}),
        (SGD(lr=0.1), {"lr": [0.1, 1e300, 0.2]}),
    ],
    ids=["momentum", "Adam", "one diverges"],
)
def test_to_the_same_bits(problem: Problem, optimizer: Any, values: dict[str, Any], tmp_path: Path) -> None:
    members, said = Members(**values), list[str]()
    kept = Checkpoint(tmp_path / "c", 0, said.append)
    for at in (1, 5, 6):
        with pytest.raises(CutOff):
            nm_ode.train(
                problem, optimizer, 11, members=members, checkpoint=kept, on_step=cut_off_at(at), **OPTIONS
            )
    made = nm_ode.train(problem, optimizer, 11, members=members, checkpoint=kept, **OPTIONS)
    assert [words.split(": ")[1] for words in said] == [f"goes on from step {at} of 11" for at in (1, 5, 6)]
    expected = nm_ode.train(problem, optimizer, 11, members=members, **OPTIONS)
    xr.testing.assert_identical(made, expected)
    again = nm_ode.train(problem, optimizer, 11, members=members, checkpoint=kept, **OPTIONS)
    xr.testing.assert_identical(again, expected)


def test_other_members_do_not_go_on_from_it(problem: Problem, tmp_path: Path) -> None:
    said: list[str] = []
    kept = Checkpoint(tmp_path / "c", 0, said.append)
    nm_ode.train(problem, SGD(lr=0.1), 5, members=Members(seed=[0, 1]), checkpoint=kept, batch_size=6)
    others = Members(seed=[0, 2])
    made = nm_ode.train(problem, SGD(lr=0.1), 5, members=others, checkpoint=kept, batch_size=6)
    assert not any("goes on" in words for words in said)
    xr.testing.assert_identical(made, nm_ode.train(problem, SGD(lr=0.1), 5, members=others, batch_size=6))


def test_one_after_another_go_on_too(problem: Problem, tmp_path: Path) -> None:
    members, kept = Members(seed=[0, 1], vectorise=False), Checkpoint(tmp_path / "c", 0)
    with pytest.raises(CutOff):
        nm_ode.train(
            problem, SGD(lr=0.1), 8, members=members, checkpoint=kept, on_step=cut_off_at(6), batch_size=6
        )
    made = nm_ode.train(problem, SGD(lr=0.1), 8, members=members, checkpoint=kept, batch_size=6)
    xr.testing.assert_identical(made, nm_ode.train(problem, SGD(lr=0.1), 8, members=members, batch_size=6))


def test_an_observer_that_remembers(problem: Problem, tmp_path: Path) -> None:
    members, kept = Members(lr=[0.1, 0.3]), Checkpoint(tmp_path / "c", 0)
    with pytest.raises(CutOff):
        nm_ode.train(
            problem,
            SGD(lr=0.1),
            8,
            members=members,
            checkpoint=kept,
            on_step=cut_off_at(5),
            observe=[Travelled()],
        )
    made = nm_ode.train(problem, SGD(lr=0.1), 8, members=members, checkpoint=kept, observe=[Travelled()])
    expected = nm_ode.train(problem, SGD(lr=0.1), 8, members=members, observe=[Travelled()])
    xr.testing.assert_identical(made, expected)
