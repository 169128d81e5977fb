"""Wrong kinds of argument: an error of nm_ode in one sentence, or they are taken for what they plainly mean."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import nm_ode
from nm_ode import Problem
from nm_ode.comparison.study import write_csv
from nm_ode.errors import NmOdeError
from nm_ode.models import mlp
from nm_ode.reporting import write_report
from nm_ode.reporting.study import write_study_report


@dataclass(frozen=True, eq=False)
class Given:
    """What the calls are about."""

    problem: Problem
    run: xr.Dataset
    solution: xr.Dataset
    symmetries: nm_ode.Symmetries
    folder: Path

    @property
    def theta(self) -> torch.Tensor:
        return self.problem.theta0


@pytest.fixture(scope="module")
def about(tmp_path_factory) -> Given:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    problem = Problem(mlp([3, 3, 2], "relu", seed=1), nn.functional.mse_loss, (x, y))
    symmetries = nm_ode.symmetries_of(problem)
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 3, observe=[nm_ode.Charges(symmetries)])
    solution = nm_ode.solve(nm_ode.GradientFlow(problem), run, rtol=1e-3, check=False)
    return Given(problem, run, solution, symmetries, tmp_path_factory.mktemp("calls"))


SGD = nm_ode.SGD(lr=0.1)
HEAVY = nm_ode.SGD(lr=0.1, momentum=0.5)

Call = Callable[[Given, Any], Any]
"""With one argument that is to be another."""

CALLS: dict[str, Call] = {
    "train problem": lambda g, v: nm_ode.train(v, SGD, 2),
    "train optimizer": lambda g, v: nm_ode.train(g.problem, v, 2),
    "train steps": lambda g, v: nm_ode.train(g.problem, SGD, v),
    "train batch_size": lambda g, v: nm_ode.train(g.problem, SGD, 2, batch_size=v),
    "train seed": lambda g, v: nm_ode.train(g.problem, SGD, 2, seed=v),
    "train save_every": lambda g, v: nm_ode.train(g.problem, SGD, 2, save_every=v),
    "train theta0": lambda g, v: nm_ode.train(g.problem, SGD, 2, theta0=v),
    "train state0": lambda g, v: nm_ode.train(g.problem, HEAVY, 2, state0=v),
    "train schedule": lambda g, v: nm_ode.train(g.problem, SGD, 2, schedule=v),
    "train observe": lambda g, v: nm_ode.train(g.problem, SGD, 2, observe=v),
    "train observe[0]": lambda g, v: nm_ode.train(g.problem, SGD, 2, observe=[v]),
    "train on_step": lambda g, v: nm_ode.train(g.problem, SGD, 1, on_step=v),
    "train members": lambda g, v: nm_ode.train(g.problem, SGD, 1, members=v),
    "Members seed": lambda g, v: nm_ode.train(g.problem, SGD, 1, members=nm_ode.Members(seed=v)),
    "Members lr": lambda g, v: nm_ode.train(g.problem, SGD, 1, members=nm_ode.Members(lr=v)),
    "Members theta0": lambda g, v: nm_ode.train(g.problem, SGD, 1, members=nm_ode.Members(theta0=v)),
    "Members state0": lambda g, v: nm_ode.train(g.problem, HEAVY, 1, members=nm_ode.Members(state0=v)),
    "Members vectorise": lambda g, v: nm_ode.train(
        g.problem, SGD, 1, members=nm_ode.Members(seed=[0], vectorise=v)
    ),
    "SGD lr": lambda g, v: nm_ode.train(g.problem, nm_ode.SGD(lr=v), 1),
    "SGD momentum": lambda g, v: nm_ode.SGD(lr=0.1, momentum=v),
    "SGD weight_decay": lambda g, v: nm_ode.SGD(lr=0.1, weight_decay=v),
    "SGD nesterov": lambda g, v: nm_ode.SGD(lr=0.1, momentum=0.9, nesterov=v),
    "Adam lr": lambda g, v: nm_ode.Adam(lr=v),
    "Adam betas": lambda g, v: nm_ode.Adam(lr=0.1, betas=v),
    "Adam betas[1]": lambda g, v: nm_ode.Adam(lr=0.1, betas=(0.9, v)),
    "AdamW eps": lambda g, v: nm_ode.AdamW(lr=0.1, eps=v),
    "RMSprop alpha": lambda g, v: nm_ode.RMSprop(lr=0.1, alpha=v),
    "Drop at": lambda g, v: nm_ode.train(g.problem, SGD, 2, schedule=nm_ode.Drop(v)),
    "Drop factor": lambda g, v: nm_ode.train(g.problem, SGD, 2, schedule=nm_ode.Drop([1], v)),
    "Warmup steps": lambda g, v: nm_ode.train(g.problem, SGD, 2, schedule=nm_ode.Warmup(v)),
    "Cosine final": lambda g, v: nm_ode.train(g.problem, SGD, 2, schedule=nm_ode.Cosine(v)),
    "Cosine warmup": lambda g, v: nm_ode.train(g.problem, SGD, 2, schedule=nm_ode.Cosine(warmup=v)),
    "GradientFlow problem": lambda g, v: nm_ode.GradientFlow(v),
    "GradientFlow optimizer": lambda g, v: nm_ode.GradientFlow(g.problem, v),
    "modified_flow problem": lambda g, v: nm_ode.modified_flow(v, SGD),
    "modified_flow optimizer": lambda g, v: nm_ode.modified_flow(g.problem, v, 2),
    "modified_flow order": lambda g, v: nm_ode.modified_flow(g.problem, HEAVY, v),
    "modified_flow form": lambda g, v: nm_ode.modified_flow(g.problem, SGD, 2, v),
    "HessianFlow order": lambda g, v: nm_ode.modified_flow(g.problem, SGD, v, "hessian"),
    "SecondOrderFlow optimizer": lambda g, v: nm_ode.SecondOrderFlow(g.problem, v),
    "SlowManifoldFlow order": lambda g, v: nm_ode.SlowManifoldFlow(g.problem, HEAVY, v),
    "StochasticModifiedFlow order": lambda g, v: nm_ode.StochasticModifiedFlow(
        g.problem, SGD, torch.ones_like(g.theta), v
    ),
    "MinibatchFlow flow": lambda g, v: nm_ode.MinibatchFlow(v, nm_ode.run_info(g.run).grid),
    "MinibatchFlow grid": lambda g, v: nm_ode.MinibatchFlow(nm_ode.GradientFlow(g.problem), v),
    "MinibatchFlow run": lambda g, v: nm_ode.MinibatchFlow.beside(nm_ode.GradientFlow(g.problem), v),
    "Charges": lambda g, v: nm_ode.train(g.problem, SGD, 1, observe=[nm_ode.Charges(v)]),
    "Curvature points": lambda g, v: nm_ode.train(g.problem, SGD, 1, observe=[nm_ode.Curvature(v)]),
    "KinkCrossings points": lambda g, v: nm_ode.train(g.problem, SGD, 1, observe=[nm_ode.KinkCrossings(v)]),
    "compare run": lambda g, v: nm_ode.compare(v, g.solution),
    "compare solution": lambda g, v: nm_ode.compare(g.run, v),
    "compare average": lambda g, v: nm_ode.compare(g.run, g.solution, average=v),
    "gaussian_window width": lambda g, v: nm_ode.gaussian_window(v),
    "final_state": lambda g, v: nm_ode.final_state(v),
    "run_info": lambda g, v: nm_ode.run_info(v),
    "solve_info": lambda g, v: nm_ode.solve_info(v),
    "study_info": lambda g, v: nm_ode.study_info(v),
    "predict_charges run": lambda g, v: nm_ode.predict_charges(v, "exact"),
    "predict_charges law": lambda g, v: nm_ode.predict_charges(g.run, v),
    "solve_charges law": lambda g, v: nm_ode.solve_charges(g.run, v),
    "observed_order errors": lambda g, v: nm_ode.observed_order([0.1, 0.2], v),
    "sgd_ensemble members": lambda g, v: nm_ode.sgd_ensemble(g.problem, SGD, 1, batch_size=2, members=v),
    "sgd_ensemble optimizer": lambda g, v: nm_ode.sgd_ensemble(g.problem, v, 1, batch_size=2, members=2),
    "sgd_ensemble theta0": lambda g, v: nm_ode.sgd_ensemble(
        g.problem, SGD, 1, batch_size=2, members=2, theta0=v
    ),
    "open_store": lambda g, v: nm_ode.open_store(v),
    "open_study": lambda g, v: nm_ode.open_study(v),
    "study_frame": lambda g, v: nm_ode.study_frame(v),
    "frame data": lambda g, v: nm_ode.frame(v),
    "frame per": lambda g, v: nm_ode.frame(g.run, v),
    "write_study_report tree": lambda g, v: write_study_report(v, g.folder / "report.html"),
    "write_study_report path": lambda g, v: write_study_report(xr.DataTree(), v),
    "write_csv path": lambda g, v: write_csv(xr.DataTree(), v),
    "write_report tree": lambda g, v: write_report(v, g.folder / "report.html"),
    "write_report path": lambda g, v: write_report(xr.DataTree(), v),
    "View.memory": lambda g, v: nm_ode.View(g.problem, 0, 0.0, g.theta).memory(v),
}
"""Every argument of a kind of its own; those of `Problem` and of `solve` have tests beside their code."""


def _module() -> nn.Module:
    return nn.Linear(3, 2)


def _torchs(scheduled: bool = False) -> Any:
    optimizer = torch.optim.SGD(_module().parameters(), lr=0.1, momentum=0.9)
    return torch.optim.lr_scheduler.StepLR(optimizer, 1) if scheduled else optimizer


class Plain:
    """Of no use."""


VALUES: dict[str, Callable[[Given], Any]] = {
    "None": lambda g: None,
    "True": lambda g: True,
    "zero": lambda g: 0,
    "negative": lambda g: -1,
    "half": lambda g: 2.5,
    "nan": lambda g: math.nan,
    "inf": lambda g: math.inf,
    "huge": lambda g: 10**30,
    "of thousands of digits": lambda g: 10**5000,
    "fraction": lambda g: Fraction(1, 3),
    "complex": lambda g: 1 + 2j,
    "text": lambda g: "4",
    "empty text": lambda g: "",
    "text with a NUL": lambda g: "a\0b",
    "bytes": lambda g: b"4",
    "empty list": lambda g: [],
    "list": lambda g: [1, 2],
    "list of texts": lambda g: ["a", "b"],
    "ragged": lambda g: [[1], [1, 2]],
    "dict": lambda g: {"a": 1},
    "set": lambda g: {1, 2},
    "lambda": lambda g: lambda *a: 0.1,
    "class": lambda g: nm_ode.SGD,
    "schedule class": lambda g: nm_ode.Cosine,
    "object": lambda g: Plain(),
    "module": lambda g: _module(),
    "torch.optim": lambda g: _torchs(),
    "lr_scheduler": lambda g: _torchs(scheduled=True),
    "int64": lambda g: np.int64(2),
    "uint8": lambda g: np.uint8(2),
    "float32": lambda g: np.float32(0.25),
    "bool_": lambda g: np.bool_(True),
    "complex128": lambda g: np.complex128(1j),
    "0-d array": lambda g: np.array(2),
    "array": lambda g: np.array([0.5, 0.25]),
    "object array": lambda g: np.array([None, "a"], dtype=object),
    "dates": lambda g: np.array(["2020-01-01"], dtype="datetime64[D]"),
    "0-d tensor": lambda g: torch.tensor(2),
    "tensor": lambda g: torch.tensor([0.5, 0.25]),
    "tensor with a graph": lambda g: torch.tensor(0.1, requires_grad=True),
    "complex tensor": lambda g: torch.zeros(17, dtype=torch.complex64),
    "sparse tensor": lambda g: torch.zeros(17).to_sparse(),
    "empty dataset": lambda g: xr.Dataset(),
    "empty tree": lambda g: xr.DataTree(),
    "run": lambda g: g.run,
    "run cut": lambda g: g.run.isel(step=slice(1)),
    "run without theta": lambda g: g.run.drop_vars("theta"),
    "run without attributes": lambda g: g.run.drop_attrs(),
    "solution": lambda g: g.solution,
    "data array": lambda g: g.run["theta"],
    "problem": lambda g: g.problem,
    "SGD": lambda g: SGD,
    "Adam": lambda g: nm_ode.Adam(lr=0.1),
    "flow": lambda g: nm_ode.GradientFlow(g.problem),
    "symmetries": lambda g: g.symmetries,
    "a symmetry": lambda g: g.symmetries[0],
    "observer": lambda g: nm_ode.Curvature(),
    "theta": lambda g: g.theta,
    "theta in NumPy": lambda g: g.theta.numpy(),
    "theta in a list": lambda g: g.theta.tolist(),
    "path": lambda g: Path("nowhere"),
    "slice": lambda g: slice(None),
    "generator": lambda g: (i for i in ()),
}


def outcome(call: str, value: str, about: Given) -> str | None:
    """The sentence of the error; None if the call went well.

    Raises:
        Exception: another than nm_ode's: the call is a failure of the test.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            CALLS[call](about, VALUES[value](about))
    except NmOdeError as error:
        return str(error)
    return None


@settings(derandomize=True, max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(call=st.sampled_from(sorted(CALLS)), value=st.sampled_from(sorted(VALUES)))
def test_a_wrong_call_ends_in_an_error_of_nm_ode_or_goes_well(about: Given, call: str, value: str) -> None:
    sentence = outcome(call, value, about)
    assert sentence is None or (sentence.strip() and "object at 0x" not in sentence)


PLAIN = [
    ("SGD lr", "0-d tensor"),
    ("SGD lr", "float32"),
    ("SGD lr", "tensor with a graph"),
    ("SGD lr", "fraction"),
    ("train steps", "int64"),
    ("train steps", "0-d tensor"),
    ("train batch_size", "int64"),
    ("train batch_size", "uint8"),
    ("train seed", "int64"),
    ("train save_every", "int64"),
    ("train theta0", "theta in NumPy"),
    ("train theta0", "theta in a list"),
    ("sgd_ensemble members", "int64"),
    ("modified_flow order", "int64"),
    ("Drop at", "int64"),
    ("Drop at", "list"),
    ("Adam betas", "array"),
    ("train observe", "generator"),
    ("train schedule", "None"),
]


@pytest.mark.parametrize(("call", "value"), PLAIN)
def test_what_has_a_plain_meaning_is_taken(about: Given, call: str, value: str) -> None:
    assert outcome(call, value, about) is None


REFUSED = [
    ("train optimizer", "torch.optim", "write nm_ode.SGD(lr=0.1, momentum=0.9)"),
    ("modified_flow optimizer", "torch.optim", "write nm_ode.SGD(lr=0.1, momentum=0.9)"),
    ("train problem", "module", "nm_ode.Problem(model, loss_fn"),
    ("train batch_size", "text", "'full' or from 1 to 12"),
    ("train batch_size", "True", "'full' or from 1 to 12"),
    ("train batch_size", "half", "'full' or from 1 to 12"),
    ("train steps", "half", "steps must be a whole number; 2.5"),
    ("train seed", "negative", "seed must be"),
    ("train seed", "huge", "seed must be"),
    ("train save_every", "zero", "save_every must be at least 1"),
    ("train schedule", "lr_scheduler", "nm_ode.Cosine()"),
    ("train schedule", "lambda", "nm_ode.Cosine()"),
    ("train on_step", "text", "on_step must be a function"),
    ("train theta0", "complex tensor", "real numbers"),
    ("SGD lr", "complex", "lr must be a number"),
    ("SGD lr", "negative", "lr must be a positive number"),
    ("SGD lr", "nan", "lr must be a positive number"),
    ("SGD nesterov", "text", "nesterov must be True or False"),
    ("modified_flow order", "half", "order must be a whole number"),
    ("modified_flow order", "huge", "order must be at most"),
    ("modified_flow order", "zero", "order must be at least 1"),
    ("compare run", "solution", "run"),
    ("Charges", "text", "symmetries"),
    ("View.memory", "text", "memory"),
    ("predict_charges law", "text", "law"),
    ("open_store", "None", "path must be a path"),
    ("study_frame", "None", "open_study"),
    ("frame data", "None", "a run, a solution"),
    ("frame per", "text", "'layer'"),
    ("open_study", "None", "path must be a path"),
]


@pytest.mark.parametrize(("call", "value", "fragment"), REFUSED)
def test_a_refusal_says_what_to_give(about: Given, call: str, value: str, fragment: str) -> None:
    assert fragment in (outcome(call, value, about) or "")


def test_a_run_and_a_solution_the_wrong_way_round_are_told_apart(about: Given) -> None:
    with pytest.raises(NmOdeError, match="the run comes first"):
        nm_ode.compare(about.solution, about.run)


def test_numbers_of_any_kind_train_the_same(about: Given) -> None:
    """To the last bit."""
    plain = nm_ode.train(about.problem, nm_ode.SGD(lr=0.25), 2, batch_size=4, seed=1)
    kinds = nm_ode.train(
        about.problem,
        nm_ode.SGD(lr=torch.tensor(0.25)),  # type: ignore[arg-type]
        np.int64(2),  # type: ignore[arg-type]
        batch_size=np.int32(4),  # type: ignore[arg-type]
        seed=np.uint16(1),  # type: ignore[arg-type]
        theta0=about.theta.numpy(),  # type: ignore[arg-type]
    )
    xr.testing.assert_identical(plain, kinds)
