"""What members may be, and what is refused; which way they are trained; what it is measured to gain."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nm_ode
from nm_ode import SGD, Adam, ArgumentError, Members, Problem, ProblemError
from nm_ode.together import worthwhile
from tests.together.runs import assert_as_alone, assert_same_run, small_problem


@pytest.fixture(scope="module")
def problem() -> Problem:
    return small_problem()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "differ"),
        ({"seed": range(3), "lr": [0.1, 0.2]}, "seed 3, lr 2"),
        ({"seed": 3}, "seed"),
        ({"lr": "0.1"}, "lr"),
        ({"lr": {0.1, 0.2}}, "lr"),  # in which order?
        ({"theta0": torch.zeros(4)}, "row"),
        ({"seed": []}, "at least one"),
        ({"seed": [1], "vectorise": "yes"}, "vectorise"),
    ],
)
def test_members_that_are_none(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        Members(**values)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"nesterow": [True]}, "nesterow.*momentum"),
        ({"lr": [0.1, -1.0]}, "member 1.*lr"),
        ({"seed": [0, 1.5]}, "member 1.*seed"),
        ({"theta0": torch.zeros(2, 5)}, "member 0.*theta0"),
        ({"lr": [0.1, 1e300], "momentum": [0.1, 1.0]}, "member 1.*momentum"),
    ],
)
def test_values_that_no_member_can_have(problem: Problem, values: dict[str, Any], told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        nm_ode.train(problem, SGD(lr=0.1), 2, members=Members(**values))


def test_arguments_are_checked_as_of_one(problem: Problem) -> None:
    some: Any = [0, 1]
    with pytest.raises(ArgumentError, match=r"Members\("):
        nm_ode.train(problem, SGD(lr=0.1), 2, members=some)
    with pytest.raises(ArgumentError, match="steps"):
        nm_ode.train(problem, SGD(lr=0.1), 0, members=Members(seed=some))
    with pytest.raises(ArgumentError, match="theta0 and state0"):
        nm_ode.train(problem, SGD(lr=0.1), 2, theta0=problem.theta0, members=Members(state0=[problem.theta0]))


def test_numbers_of_any_kind(problem: Problem) -> None:
    made = nm_ode.train(
        problem, SGD(lr=1.0), 3, members=Members(lr=np.array([0.1, 0.2]), seed=torch.arange(2))
    )
    same = nm_ode.train(problem, SGD(lr=1.0), 3, members=Members(lr=iter([0.1, 0.2]), seed=range(2)))
    assert made.attrs == same.attrs
    assert made.lr.values[:, 0].tolist() == [0.1, 0.2] == made.member_lr.values.tolist()


def test_members_whose_observers_differ(problem: Problem) -> None:
    charges = nm_ode.Charges(nm_ode.symmetries_of(_relu()), every=2)
    with pytest.raises(ArgumentError, match=r"Charges.*member 1"):
        nm_ode.train(_relu(), SGD(lr=0.1), 4, members=Members(momentum=[0.0, 0.9]), observe=[charges])


def test_what_a_step_or_its_record_would_take(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nm_ode.memory.available", lambda: 100_000)
    with pytest.raises(ArgumentError, match="300 members"):
        nm_ode.train(problem, SGD(lr=0.1), 2, members=Members(seed=range(300)))
    with pytest.raises(ArgumentError, match=r"9 members in 100 steps.*save_every"):
        nm_ode.train(problem, SGD(lr=0.1), 100, members=Members(seed=range(9)))


class Branching(nn.Module):
    """A forward pass that branches on what it computes, which vmap cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        made = self.linear(x)
        return made if made.sum() > 0 else 2 * made


@pytest.fixture(scope="module")
def branching() -> Problem:
    torch.manual_seed(0)
    return Problem(Branching(), nn.functional.mse_loss, (torch.randn(8, 3), torch.randn(8, 1)))


def test_a_loss_that_cannot_be_vectorised(branching: Problem) -> None:
    with pytest.raises(ProblemError, match=r"vmap.*vectorise=False"):
        nm_ode.train(branching, SGD(lr=0.1), 4, members=Members(seed=[0, 1]), batch_size=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = nm_ode.train(
            branching, SGD(lr=0.1), 4, members=Members(seed=[0, 1], vectorise="auto"), batch_size=3
        )
    expected = nm_ode.train(branching, SGD(lr=0.1), 4, batch_size=3, seed=1)
    assert_same_run(nm_ode.member_run(found, 1), expected)
    worth = worthwhile(branching, SGD(lr=0.1), 4, Members(seed=[0, 1]), batch_size=3)
    assert worth.why_not
    assert not worth.is_faster


def test_a_loss_that_is_drawn(problem: Problem) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    drawn = nm_ode.RandomProblem(model, nn.functional.cross_entropy, (problem.x, problem.y))
    with pytest.raises(ProblemError, match="draws"):
        nm_ode.train(drawn, SGD(lr=0.1), 4, members=Members(seed=[0, 1]))
    in_turn = nm_ode.train(drawn, SGD(lr=0.1), 4, members=Members(seed=[0, 1], vectorise="auto"))
    assert_same_run(nm_ode.member_run(in_turn, 1), nm_ode.train(drawn, SGD(lr=0.1), 4, seed=1))


def test_batch_norm_in_train_mode() -> None:
    """Each member has the statistics of its own batch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).train()
    normed = Problem(model, nn.functional.mse_loss, (torch.randn(12, 3), torch.randn(12, 1)))
    assert_as_alone(normed, SGD(lr=0.1), 5, {"seed": [0, 1]}, batch_size=6)


def test_it_is_measured_which_way_is_faster(problem: Problem) -> None:
    """Nothing about seconds: both ways were taken, and what an observer of the caller's remembers is untouched."""
    seen = Seen()
    worth = worthwhile(problem, Adam(lr=0.1), 50, Members(seed=range(5)), batch_size=4, observe=[seen])
    assert not worth.why_not
    assert worth.at_once > 0
    assert worth.speed_up == worth.in_turn / worth.at_once
    assert worth.is_faster == (worth.speed_up > 1)
    assert seen.steps_seen == []


class Seen(nm_ode.Observer):
    def __init__(self) -> None:
        self.steps_seen: list[int] = []

    def follow_update(self, view: nm_ode.View) -> None:
        self.steps_seen.append(view.step)


@pytest.mark.parametrize("vectorise", [True, False])
def test_progress(problem: Problem, vectorise: bool) -> None:
    done: list[int] = []
    members = Members(seed=range(3), vectorise=vectorise)
    nm_ode.train(problem, SGD(lr=0.1), 4, members=members, on_step=done.append)
    assert done == sorted(done)
    assert set(done) >= {1, 2, 3, 4}
    assert done[-1] == 4


def test_a_member_that_there_is_not(problem: Problem) -> None:
    made = nm_ode.train(problem, SGD(lr=0.1), 2, members=Members(seed=[0, 1]))
    with pytest.raises(nm_ode.ResultError, match="no member 2"):
        nm_ode.member_run(made, 2)
    with pytest.raises(nm_ode.ResultError, match="members"):
        nm_ode.member_run(nm_ode.member_run(made, 0), 0)


def test_what_takes_one_run_says_how_to_take_one_of_many(problem: Problem) -> None:
    made = nm_ode.train(problem, SGD(lr=0.1), 2, members=Members(lr=[0.1, 0.2]))
    sentence = r"the runs of 2 members: take one after another, nm_ode.member_run"
    flow = nm_ode.CentralFlow(problem, SGD(lr=0.2))
    with pytest.raises(nm_ode.ArgumentError, match=sentence):
        nm_ode.solve(flow, made)
    solution = nm_ode.solve(flow, nm_ode.member_run(made, 1), check=False)
    with pytest.raises(nm_ode.ResultError, match=sentence):
        nm_ode.compare(made, solution)
    assert "error_to_average" in nm_ode.compare(nm_ode.member_run(made, 1), solution)


def _relu() -> Problem:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    return Problem(model, nn.functional.mse_loss, (torch.randn(9, 3), torch.randn(9, 1)))
