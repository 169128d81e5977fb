"""Members that take each step at once: as many runs of `train`, to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import nm_ode
from nm_ode import SGD, Adam, AdamW, Members, Problem, RMSprop, ScalarRMSprop
from tests.additions.lion import Lion
from tests.together.runs import Travelled, alone, assert_as_alone, assert_same_run, each_alone, small_problem

SEEDS = {"seed": [3, 1, 4, 1]}

CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "seeds": (SGD(lr=0.2), SEEDS, {"batch_size": 6}),
    "learning rates": (SGD(lr=0.1), {"lr": [0.1, 0.3, 0.7]}, {}),
    "momentum, some without": (
        SGD(lr=0.1),
        {"momentum": [0.0, 0.9, 0.5, 0.0], "lr": [0.1, 0.2, 0.1, 0.3]},
        {"batch_size": 7},
    ),
    "dampening and decay": (
        SGD(lr=0.1, momentum=0.9),
        {"dampening": [0.0, 0.2, 0.5], "weight_decay": [0.1, 0.0, 0.01]},
        {},
    ),
    "nesterov": (SGD(lr=0.1, momentum=0.8), {"nesterov": [True, False]}, {"batch_size": 6}),
    "Adam": (
        Adam(lr=0.02),
        {
            "lr": [0.01, 0.02, 0.05],
            "betas": [(0.9, 0.99), (0.0, 0.9), (0.5, 0.999)],
            "weight_decay": [0.0, 0.1, 0.2],
        },
        {},
    ),
    "AdamW on batches": (
        AdamW(lr=0.02),
        {"weight_decay": [0.1, 0.0, 0.3], "eps": [1e-8, 1e-3, 1e-8], "seed": [0, 1, 2]},
        {"batch_size": 5},
    ),
    "RMSprop": (
        RMSprop(lr=0.02, alpha=0.9),
        {"lr": [0.01, 0.02, 0.05], "momentum": [0.5, 0.0, 0.9], "centered": [False, True, True]},
        {"batch_size": 10},
    ),
    "one second moment": (ScalarRMSprop(lr=0.1), {"alpha": [0.9, 0.99], "weight_decay": [0.0, 0.1]}, {}),
    "an optimiser of one's own": (Lion(lr=0.01), {"lr": [0.01, 0.03, 0.01]}, {"batch_size": 10}),
    "a schedule": (
        SGD(lr=0.1, momentum=0.9),
        {"lr": [0.1, 0.4]},
        {"schedule": nm_ode.Cosine(warmup=4), "save_every": 5},
    ),
    "a schedule, one learning rate": (
        SGD(lr=0.1, momentum=0.9),
        SEEDS,
        {"schedule": nm_ode.Drop((6, 12)), "batch_size": 8, "save_every": [3, 7]},
    ),
    "observers": (
        SGD(lr=0.1),
        {"momentum": [0.5, 0.9], "seed": [0, 1]},
        {
            "observe": [
                nm_ode.Statistics(),
                nm_ode.Curvature(3),
                nm_ode.Sketch(m=64),
                nm_ode.KinkCrossings(2),
            ],
            "batch_size": 9,
        },
    ),
    "statistics at some steps": (SGD(lr=0.2), SEEDS, {"observe": [nm_ode.Statistics(every=4)]}),
}


@pytest.mark.parametrize("name", CASES)
def test_each_member_is_a_run_of_train(name: str) -> None:
    optimizer, values, common = CASES[name]
    made = assert_as_alone(small_problem(), optimizer, 17, values, **common)
    assert made.sizes["member"] == len(next(iter(values.values())))
    assert made.loss.dims == ("member", "step")
    assert all(made.member_status.values == "success")


@given(
    lr=st.lists(st.floats(1e-3, 0.5), min_size=3, max_size=3),
    momentum=st.lists(st.sampled_from([0.0, 0.3, 0.9]), min_size=3, max_size=3),
    decay=st.lists(st.sampled_from([0.0, 0.01]), min_size=3, max_size=3),
    seed=st.lists(st.integers(0, 2**40), min_size=3, max_size=3),
    batch_size=st.sampled_from(["full", 1, 8, 23]),
)
@settings(max_examples=8, deadline=None)
def test_whatever_the_numbers(
    lr: list[float], momentum: list[float], decay: list[float], seed: list[int], batch_size: Any
) -> None:
    values = {"lr": lr, "momentum": momentum, "weight_decay": decay, "seed": seed}
    assert_as_alone(small_problem(), SGD(lr=0.1), 6, values, batch_size=batch_size, save_every=4)


@pytest.mark.parametrize("chunk_size", [1, 5, 100])
def test_in_chunks(chunk_size: int) -> None:
    assert_as_alone(small_problem(chunk_size), SGD(lr=0.2), 6, SEEDS, batch_size=9, save_every=3)


def test_from_starts_of_their_own() -> None:
    problem = small_problem()
    starts = problem.theta0 + torch.randn(3, problem.layout.size, dtype=torch.float64)
    made = assert_as_alone(problem, SGD(lr=0.2), 6, {"theta0": list(starts)})
    torch.testing.assert_close(torch.from_numpy(made.theta.values[:, 0]), starts)
    same = nm_ode.train(problem, SGD(lr=0.2), 6, members=Members(theta0=starts))
    xr.testing.assert_identical(made, same)


def test_warm_starts() -> None:
    problem, optimizer = small_problem(), SGD(lr=0.1, momentum=0.9, dampening=0.3)
    states = [
        nm_ode.final_state(nm_ode.train(problem, optimizer, 5, batch_size=7, seed=seed)) for seed in (0, 1)
    ]
    assert_as_alone(problem, optimizer, 6, {"state0": states, "lr": [0.1, 0.2]})
    assert_as_alone(problem, optimizer, 6, {"lr": [0.1, 0.2]}, state0=states[0])


def test_in_single_precision() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    problem = Problem(
        model, nn.functional.mse_loss, (torch.randn(9, 4), torch.randn(9, 1)), dtype=torch.float32
    )
    assert_as_alone(problem, Adam(lr=0.01), 6, SEEDS, rtol=1e-3, batch_size=4)


@pytest.mark.parametrize("optimizer", [SGD(lr=0.2), SGD(lr=0.2, momentum=0.5)], ids=["plain", "momentum"])
def test_who_diverges_ends_where_it_would_alone(optimizer: SGD) -> None:
    values = {"lr": [0.2, 1e200, 0.3, 1e160, 0.1]}
    problem = _polynomial()
    made = assert_as_alone(
        problem,
        optimizer,
        12,
        values,
        save_every=2,
        observe=[nm_ode.Curvature(3), nm_ode.Statistics(every=2)],
    )
    assert made.member_status.values.tolist() == ["success", "diverged", "success", "diverged", "success"]
    assert made.member_steps.values[1] < 12
    ended = nm_ode.member_run(made, 1)
    assert "lr = 1e+200" in nm_ode.run_info(ended).message


def test_all_diverge() -> None:
    made = assert_as_alone(_polynomial(), SGD(lr=0.2, momentum=0.5), 30, {"lr": [1e120, 1e200]}, save_every=7)
    assert made.sizes["step"] == int(made.member_steps.max()) < 30


def test_a_start_at_which_the_loss_is_not_finite() -> None:
    problem = _polynomial()
    starts = [problem.theta0, torch.full_like(problem.theta0, 1e300)]
    made = assert_as_alone(problem, SGD(lr=0.1, momentum=0.5), 4, {"theta0": starts})
    assert made.member_steps.values.tolist() == [4, 0]


def test_a_loss_that_is_not_finite_at_the_end_alone() -> None:
    """The last step's result is looked at too."""
    problem = _polynomial()
    steps = int(nm_ode.train(problem, SGD(lr=1.0), 30, members=Members(lr=[1e130])).member_steps[0])
    assert_as_alone(problem, SGD(lr=1.0), steps, {"lr": [1e130, 0.1]})


def test_companions_change_nothing() -> None:
    problem, optimizer = small_problem(), SGD(lr=0.1, momentum=0.9)
    many = {"lr": [0.1, 1e250, 0.2, 0.3], "seed": [1, 2, 3, 4]}
    all_of_them = nm_ode.train(problem, optimizer, 9, batch_size=6, members=Members(**many))
    few = {name: [values[3], values[0]] for name, values in many.items()}
    some = nm_ode.train(problem, optimizer, 9, batch_size=6, members=Members(**few))
    for i, j in ((3, 0), (0, 1)):
        assert_same_run(nm_ode.member_run(all_of_them, i), nm_ode.member_run(some, j), 1e-13)


def test_one_after_another_is_the_same_dataset() -> None:
    problem, optimizer = _polynomial(), SGD(lr=0.1)
    values = {"lr": [0.1, 1e200, 0.3], "momentum": [0.0, 0.5, 0.5]}
    common: dict[str, Any] = {"save_every": 2, "observe": [nm_ode.Curvature(3)]}
    together = nm_ode.train(problem, optimizer, 9, members=Members(**values), **common)
    in_turn = nm_ode.train(problem, optimizer, 9, members=Members(**values, vectorise=False), **common)
    assert_same_run(in_turn, together)
    for i, expected in enumerate(each_alone(problem, optimizer, 9, values, **common)):
        xr.testing.assert_identical(nm_ode.member_run(in_turn, i), expected)


def test_an_observer_that_remembers_sees_one_member() -> None:
    class InPlace(Travelled):  # what members shared would be written to by each
        def follow_update(self, view: nm_ode.View) -> None:
            self.length += view.update.norm()

    problem, values = small_problem(), {"lr": [0.1, 0.4]}
    made = nm_ode.train(problem, SGD(lr=0.1), 5, members=Members(**values), observe=[InPlace()])
    for i, lr in enumerate(values["lr"]):
        expected = alone(problem, SGD(lr=lr), 5, observe=[InPlace()])
        assert_same_run(nm_ode.member_run(made, i), expected)


def test_charges_of_members() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
    problem = Problem(model, nn.functional.mse_loss, (torch.randn(9, 4), torch.randn(9, 1)))
    found = nm_ode.symmetries_of(problem)
    for every in (1, 3):
        assert_as_alone(
            problem,
            SGD(lr=0.05, momentum=0.9),
            7,
            {"lr": [0.05, 0.01], "seed": [0, 1]},
            batch_size=4,
            observe=[nm_ode.Charges(found, every=every)],
        )


def test_the_dataset_is_kept_in_a_file(tmp_path: Any) -> None:
    problem, values = _polynomial(), {"lr": [0.1, 1e200], "seed": [0, 1]}
    made = nm_ode.train(problem, SGD(lr=0.1, momentum=0.5), 5, members=Members(**values), batch_size=3)
    made.to_zarr(tmp_path / "members.zarr", consolidated=False)
    read = xr.open_zarr(tmp_path / "members.zarr", consolidated=False)
    for i, expected in enumerate(each_alone(problem, SGD(lr=0.1, momentum=0.5), 5, values, batch_size=3)):
        found = nm_ode.member_run(read, i)
        assert nm_ode.run_info(found).message == nm_ode.run_info(expected).message
        np.testing.assert_allclose(found.theta.values, expected.theta.values)


def test_a_member_of_some_that_were_selected() -> None:
    made = nm_ode.train(small_problem(), SGD(lr=0.1), 5, members=Members(seed=range(4)), batch_size=3)
    xr.testing.assert_identical(nm_ode.member_run(made.sel(member=[1, 3]), 3), nm_ode.member_run(made, 3))
    assert nm_ode.run_info(nm_ode.member_run(made.isel(member=2), 2)).grid.seed == 2


def _polynomial() -> Problem:
    """A loss that overflows under steps that are too large, and does not under others."""
    torch.manual_seed(0)

    class Cubic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3) / 2)

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.weight) ** 3 / 9

    return Problem(Cubic(), nn.functional.mse_loss, (torch.randn(7, 3), torch.randn(7)))
