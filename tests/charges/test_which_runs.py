"""Each law says which runs it describes, and refuses all others in one sentence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional as F

import nm_ode
from nm_ode.charges import (
    LAWS,
    Driven,
    Law,
    LawError,
    laws_for,
    predict_charges,
    require_described,
    solve_charges,
)
from nm_ode.observers import Charges
from nm_ode.optimizers import OPTIMIZERS, Optimizer, hyperparameters
from nm_ode.symmetries import Symmetries, symmetries_of

HYPERPARAMETERS: dict[str, list[dict[str, object]]] = {
    "sgd": [
        {},
        {"weight_decay": 1e-3},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.5},
        {"momentum": 0.9, "nesterov": True},
    ],
    "adam": [{}],
    "adamw": [{}],
}
RUNS = [(name, options) for name in sorted(OPTIMIZERS) for options in HYPERPARAMETERS.get(name, [{}])]


@pytest.fixture(scope="module")
def found(relu) -> Symmetries:
    return symmetries_of(relu)


@pytest.fixture
def run_of(relu, found) -> Callable[..., xr.Dataset]:
    """A few steps of an optimiser, with charges."""

    def run(optimizer: Optimizer, **options: object) -> xr.Dataset:
        return nm_ode.train(relu, optimizer, 5, observe=[Charges(found)], **options)

    return run


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("name", "options"), RUNS, ids=str)
@pytest.mark.parametrize("law", sorted(LAWS))
def test_each_law_predicts_or_names_each_optimiser(relu, found, law, name, options, dtype):
    problem = nm_ode.Problem(relu.model, F.cross_entropy, (relu.x, relu.y), dtype=dtype)
    optimizer = OPTIMIZERS[name](lr=0.01, **options)
    run = nm_ode.train(problem, optimizer, 5, observe=[Charges(found)])
    described = name == "sgd" and not (law == "first_order" and options.get("momentum"))
    if described:
        predicted = predict_charges(run, law)["charge"]
        moved = np.abs(run["charge"] - run["charge"][0]).max()
        assert np.abs(predicted - run["charge"]).max() < moved
        return
    with pytest.raises(LawError) as refused:
        predict_charges(run, law)
    text = str(refused.value)
    assert LAWS[law].title in text or "momentum" in text
    assert "\n" not in text
    if name != "sgd":
        assert type(optimizer).__name__ in text


@pytest.mark.parametrize(("name", "options"), RUNS, ids=str)
@pytest.mark.parametrize("law", sorted(LAWS))
def test_an_engine_is_asked_only_for_laws_that_describe_the_run(run_of, law, name, options):
    run = run_of(OPTIMIZERS[name](lr=0.01, **options))
    if name == "sgd" and law != "exact" and not (law == "first_order" and options.get("momentum")):
        assert np.isfinite(solve_charges(run, law)["charge"]).all()
    else:
        with pytest.raises(LawError):
            solve_charges(run, law)


def test_a_case_can_ask_before_the_run():
    sgd = hyperparameters(nm_ode.SGD(lr=0.1, momentum=0.9))
    require_described("second_order", "SGD", sgd)
    for law, optimizer, at_rest in [
        ("first_order", "SGD", True),
        ("exact", "SGD", False),
        ("exact", "Adam", True),
    ]:
        with pytest.raises(LawError):
            require_described(law, optimizer, sgd, at_rest=at_rest)


def test_laws_are_listed_for_each_optimiser():
    assert laws_for("SGD") == ["exact", "first_order", "second_order"]
    assert laws_for("Adam") == []


@pytest.mark.parametrize("predict", [predict_charges, solve_charges])
def test_a_run_that_went_on_with_a_velocity(relu, run_of, predict):
    # The laws begin with v = 0, and the run did not.
    sgd = nm_ode.SGD(lr=0.01, momentum=0.9)
    state = nm_ode.final_state(nm_ode.train(relu, sgd, 5))
    with pytest.raises(LawError, match="at rest"):
        predict(run_of(sgd, state0=state), "second_order")
    # Plain descent remembers nothing.
    plain = nm_ode.SGD(lr=0.01)
    state = nm_ode.final_state(nm_ode.train(relu, plain, 5))
    run = run_of(plain, state0=state)
    np.testing.assert_allclose(predict_charges(run, "exact")["charge"], run["charge"], atol=1e-11)


@pytest.mark.parametrize("law", ["exact", "second_order"])
def test_nesterov_without_its_second_driver(run_of, law):
    run = run_of(nm_ode.SGD(lr=0.01, momentum=0.9, nesterov=True)).drop_vars("charge_cross_driver")
    with pytest.raises(LawError, match="charge_cross_driver"):
        predict_charges(run, law)


@pytest.mark.parametrize("predict", [predict_charges, solve_charges])
def test_a_run_without_charges(relu, predict):
    run = nm_ode.train(relu, nm_ode.SGD(lr=0.1), 2)
    with pytest.raises(LawError, match="recorded no charges"):
        predict(run, "second_order")


@pytest.mark.parametrize("predict", [predict_charges, solve_charges])
def test_what_is_no_run(relu, found, predict):
    observe = [Charges(found)]
    solution = nm_ode.solve(nm_ode.GradientFlow(relu), [0.0, 0.1], observe=observe, check=False)
    with pytest.raises(LawError, match="run of"):
        predict(solution, "second_order")


def test_a_run_that_took_no_step(relu, run_of):
    with pytest.raises(nm_ode.TrainingDiverged) as diverged:
        run_of(nm_ode.SGD(lr=0.1), theta0=torch.full_like(relu.theta0, torch.inf))
    with pytest.raises(LawError, match="no step"):
        predict_charges(diverged.value.run, "exact")


@pytest.mark.parametrize(
    ("law", "options", "fragment"),
    [
        ("third_order", {}, "'third_order'"),
        ("second_order", {"with_residual": True}, "'exact'"),
        ("exact", {"from_rest": True}, "'second_order'"),
    ],
)
def test_laws_and_options_that_there_are_not(run_of, law, options, fragment):
    run = run_of(nm_ode.SGD(lr=0.02))
    with pytest.raises(LawError, match=fragment):
        predict_charges(run, law, **options)


def test_the_exact_law_is_no_differential_equation(run_of):
    with pytest.raises(LawError, match="'exact' is no differential equation"):
        solve_charges(run_of(nm_ode.SGD(lr=0.1)), "exact")


@pytest.fixture
def registered() -> Callable[[str, Law], None]:
    names: list[str] = []

    def register(name: str, law: Law) -> None:
        LAWS.register(name, law)
        names.append(name)

    yield register
    for name in names:
        LAWS.unregister(name)


def test_a_law_of_ones_own_is_one_registration(run_of, registered):
    def still(run: Driven) -> np.ndarray:
        return np.repeat(run.start[None], len(run.lr) + 1, axis=0)

    registered("still", Law("law that nothing moves", still, optimizers=("Adam",)))
    run = run_of(nm_ode.Adam(lr=1e-3))
    prediction = predict_charges(run, "still")
    assert (prediction["charge"] == run["charge"][0]).all()
    with pytest.raises(LawError, match="use 'still'"):
        predict_charges(run, "exact")
