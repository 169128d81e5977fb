"""One addition is one file and one registration: each is run by a case, and its results are held against an oracle.

What the case schema knows of an addition, it reads from the signature: options, types, ranges, defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from bridges.trials import try_engines
from nm_ode.data import DATA, diabetes
from nm_ode.flows import FLOWS
from nm_ode.models import MODELS, Network
from nm_ode.observers import OBSERVERS, Charges, KinkCrossings, Norms, Observer
from nm_ode.optimizers import OPTIMIZERS
from nm_ode.registry import Registry
from nm_ode.results import run_info, solve_info
from nm_ode.studies import CaseError, build_study, load_case, run_case
from tests.additions.columns import columns
from tests.additions.extremes import Extremes
from tests.additions.lion import Lion
from tests.additions.slow_flow import SlowFlow
from tests.additions.squares import squares
from tests.bridges.toy_engine import toy_registered
from tests.oracles.linear import Quadratic

CASE = """
name = "addition"
seed = 2
loss = "mse"
flows = ["gradient"]
observe = []

[model]
name = "linear"
inputs = 10
outputs = 1

[data]
name = "diabetes"
samples = 60

[optimizer]
lr = 0.05

[training]
steps = 20

[solver]
rtol = 1e-10
"""

Write = Callable[..., Path]


@contextmanager
def registered(registry: Registry[Any], name: str, entry: Any) -> Iterator[None]:
    registry.register(name, entry)
    try:
        yield
    finally:
        registry.unregister(name)


@pytest.fixture
def edited(tmp_path: Path) -> Write:
    def edit(*pairs: tuple[str, str]) -> Path:
        text = CASE
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "addition.toml"
        path.write_text(text)
        return path

    return edit


def run(path: Path) -> xr.DataTree:
    outcome = run_case(load_case(path), path, path.parent / "out")
    assert outcome.failures == ()
    return outcome.tree


def mistake(path: Path) -> str:
    with pytest.raises(CaseError) as caught:
        build_study(load_case(path), path)
    return str(caught.value)


def test_an_optimiser(edited: Write) -> None:
    lion = ("lr = 0.05", 'name = "lion"\nlr = 0.01\nbetas = [0.8, 0.95]\nweight_decay = 0.1')
    with registered(OPTIMIZERS, "lion", Lion):
        tree = run(edited(lion, ('["gradient"]', "[]")))
        assert mistake(edited(lion)).endswith(
            "flows[0]: gradient flow with Lion: it is that of SGD alone; take the modified flow in iterated-map form, "
            "which every optimiser has"
        )
        assert "optimizer.lr: -1 was given" in mistake(edited(("lr = 0.05", 'name = "lion"\nlr = -1')))
        assert "optimizer.betas[1]: 1.0 was given; it must be less than 1" in mistake(
            edited(("lr = 0.05", 'name = "lion"\nlr = 1\nbetas = [0.5, 1.0]'))
        )
        assert "unknown key 'beta'; did you mean 'betas'?" in mistake(
            edited(("lr = 0.05", 'name = "lion"\nlr = 1\nbeta = 0.5'))
        )
    assert "'lion' was given" in mistake(edited(lion))

    # by hand
    study = build_study(load_case(edited()), edited())
    data, model = diabetes(60), study.problem.model
    torch.nn.utils.vector_to_parameters(study.problem.theta0, model.parameters())
    parameters = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    momenta = [torch.zeros_like(parameter) for parameter in parameters]
    for _ in range(20):
        loss = nn.functional.mse_loss(data.x @ parameters[0].T + parameters[1], data.y)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, momentum, gradient in zip(parameters, momenta, gradients, strict=True):
                update = torch.sign(0.8 * momentum + 0.2 * gradient)
                momentum.mul_(0.95).add_(gradient, alpha=0.05)
                parameter.sub_(0.01 * (update + 0.1 * parameter))
    by_hand = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    run_by_case = tree["discrete"].dataset
    np.testing.assert_allclose(run_by_case["theta"][-1], by_hand, rtol=1e-10, atol=1e-13)
    info = run_info(run_by_case)
    assert (info.optimizer, info.stateful) == ("Lion", True)
    assert info.hyperparameters["betas"] == [0.8, 0.95]


def test_a_flow(edited: Write) -> None:
    with registered(FLOWS, "slow", SlowFlow):
        tree = run(edited(('["gradient"]', '["slow", { kind = "gradient" }]')))
        quick = edited(('["gradient"]', '[{ kind = "slow", speed = 2 }]'))
        assert load_case(quick).flows[0].options == {"speed": 2.0}
        assert "flows[0].speed: 0 was given; it must be greater than 0" in mistake(
            edited(('["gradient"]', '[{ kind = "slow", speed = 0 }]'))
        )
    slow = tree["flows/slow"].dataset
    data = diabetes(60)
    oracle = Quadratic(data.x.numpy(), data.y.numpy())
    start = slow["theta"].values[0]
    for at, time in enumerate(slow["time"].values):
        expected = oracle.gradient_flow(start, time / 2)  # half the speed: as far in twice the time
        np.testing.assert_allclose(slow["theta"].values[at], expected, rtol=1e-7, atol=1e-9)
    assert solve_info(slow).title == "slow gradient flow"
    errors = tree["comparison/slow/error"], tree["comparison/gradient/error"]
    assert float(errors[0][-1]) > float(errors[1][-1])


def test_an_observer(edited: Write) -> None:
    with registered(OBSERVERS, "extremes", Extremes):
        tree = run(edited(("observe = []", 'observe = [{ name = "extremes", count = 3 }, "kink_crossings"]')))
        assert "observe[0].count: 0 was given" in mistake(
            edited(("observe = []", 'observe = [{ name = "extremes", count = 0 }]'))
        )
    for group in ("discrete", "flows/gradient"):
        theta, found = tree[group]["theta"].values, tree[group]["extremes"]
        expected = -np.sort(-np.abs(theta[: len(found)]), axis=1)[:, :3]
        np.testing.assert_allclose(found, expected, rtol=1e-14)
        assert found.attrs["long_name"] == "largest sizes of entries of theta"
    assert tree["discrete"]["crossing_share"].sizes["crossing_step"] == 6


def test_a_network(edited: Write) -> None:
    with registered(MODELS, "squares", Network(squares, inputs="inputs", outputs="outputs")):
        path = edited(('name = "linear"', 'name = "squares"'))
        tree = run(path)
        assert "model.inputs: 9 was given" in mistake(
            edited(('name = "linear"\ninputs = 10', 'name = "squares"\ninputs = 9'))
        )
        assert "model.outputs: is missing" in mistake(
            edited(('name = "linear"', 'name = "squares"'), ("outputs = 1\n", ""))
        )
    data, model = diabetes(60), squares(10, 1, seed=2)
    descent = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(20):
        descent.zero_grad()
        nn.functional.mse_loss(model(data.x), data.y).backward()
        descent.step()
    expected = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    np.testing.assert_allclose(tree["discrete/theta"][-1], expected, rtol=1e-10, atol=1e-12)


def test_a_data_set(edited: Write) -> None:
    numbers = np.random.default_rng(0).standard_normal((9, 4))
    with registered(DATA, "columns", columns):
        path = edited(
            ('name = "diabetes"\nsamples = 60', 'name = "columns"\npath = "mine.txt"\ndelimiter = ";"'),
            ("inputs = 10", "inputs = 3"),
        )
        assert "data: " in mistake(path)
        assert "mine.txt has no columns of numbers" in mistake(path)
        np.savetxt(path.parent / "mine.txt", numbers, delimiter=";")  # beside the case file
        tree = run(path)
    quadratic = Quadratic(numbers[:, :3], numbers[:, 3])
    theta = tree["discrete/theta"].values
    np.testing.assert_allclose(theta[-1], quadratic.descent(theta[0], 20, 0.05), rtol=1e-10, atol=1e-12)
    flow = tree["flows/gradient"].dataset
    expected = quadratic.gradient_flow(theta[0], float(flow["time"][-1]))
    np.testing.assert_allclose(flow["theta"].values[-1], expected, rtol=1e-7, atol=1e-9)


def test_an_engine(edited: Write) -> None:
    toy = ("rtol = 1e-10", 'engine = "toy"\nstep = 0.01')
    with toy_registered():
        tree = run(edited(toy))
        assert [trial.works for trial in try_engines() if trial.name == "toy"] == [True]
        stepless = edited(("rtol = 1e-10", 'engine = "toy"'))
        assert "solver: every method of engine 'toy' has a fixed step" in mistake(stepless)
        assert "did you mean 'toy'?" in mistake(edited(("rtol = 1e-10", 'engine = "toi"')))
        jumps = edited(
            toy,
            ('["gradient"]', '[{ kind = "gradient", batches = "same" }]'),
            ("steps = 20", "steps = 20\nbatch_size = 30"),
        )
        build_study(load_case(jumps), jumps)  # its method may be used with jumps
    assert "solver.engine: 'toy' was given" in mistake(edited(toy))
    flow, data = tree["flows/gradient"].dataset, diabetes(60)
    oracle = Quadratic(data.x.numpy(), data.y.numpy())
    start, end = flow["theta"].values[[0, -1]]
    np.testing.assert_allclose(end, oracle.gradient_flow(start, float(flow["time"][-1])), rtol=1e-6)
    assert (solve_info(flow).engine, solve_info(flow).method) == ("toy", "RK4")


def test_an_option_that_no_case_file_can_give_is_named(edited: Write) -> None:
    @dataclass(frozen=True)
    class Nearness(Observer):
        other: torch.Tensor

    with registered(OBSERVERS, "nearness", Nearness):
        assert "observe[0]: 'nearness' needs 'other'" in mistake(
            edited(("observe = []", 'observe = ["nearness"]'))
        )


def test_an_observer_of_symmetries_is_given_those_of_the_case(edited: Write) -> None:
    with registered(OBSERVERS, "charges", Charges):
        assert "add [symmetries]" in mistake(edited(("observe = []", 'observe = ["charges"]')))
        path = edited(("observe = []", 'symmetries = {}\nobserve = ["charges"]'))
        (made,) = build_study(load_case(path), path).observers("run", symmetries=())
        assert isinstance(made, Charges)


@pytest.mark.parametrize(
    ("kind", "variable"), [(Norms, "grad_norm"), (KinkCrossings, "crossing_share")], ids=["built in", "twice"]
)
def test_two_observers_of_one_variable_are_refused_before_anything_is_computed(
    edited: Write, kind: type[Observer], variable: str
) -> None:
    with registered(OBSERVERS, "another", kind):
        path = edited(("observe = []", 'observe = ["kink_crossings", "another"]'))
        with pytest.raises(CaseError, match=f"two observers have a variable '{variable}'"):
            run_case(load_case(path), path, path.parent / "out")
        corrected = edited(("observe = []", 'observe = ["kink_crossings"]'))
        assert run_case(load_case(corrected), corrected, path.parent / "out").failures == ()
