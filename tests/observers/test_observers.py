"""One protocol for what is observed along a run and a flow; a user's own observer is like those of nm_ode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import nm_ode
from nm_ode import (
    SGD,
    Adam,
    Charges,
    GradientFlow,
    Observer,
    Problem,
    TrainingDiverged,
    Variable,
    solve,
    train,
)
from nm_ode.errors import ArgumentError
from nm_ode.observers.sinks import MemorySink


@dataclass(frozen=True)
class LargestWeights(Observer):
    """As a user would write it."""

    count: int = 2
    variables = {"largest_weights": Variable(("rank",), "largest absolute weights")}  # noqa: RUF012
    update_variables = {"largest_change": Variable((), "largest change of a weight")}  # noqa: RUF012

    def observe(self, view) -> Mapping[str, object]:
        return {"largest_weights": view.theta.abs().topk(self.count).values}

    def observe_update(self, view) -> Mapping[str, object]:
        return {"largest_change": view.update.abs().max()}


def test_a_users_own_observer_along_a_run(tiny: Problem) -> None:
    run = train(tiny, SGD(lr=0.1), 6, observe=[LargestWeights(3)])
    theta = run["theta"].values
    assert run["largest_weights"].dims == ("step", "rank")
    np.testing.assert_array_equal(run["largest_weights"], -np.sort(-np.abs(theta[:6]), axis=1)[:, :3])
    np.testing.assert_allclose(run["largest_change"], np.abs(np.diff(theta, axis=0)).max(axis=1), rtol=1e-9)
    assert run["largest_weights"].attrs == {"long_name": "largest absolute weights", "units": "1"}


def test_the_same_observer_along_a_flow(tiny: Problem) -> None:
    solution = solve(GradientFlow(tiny), [0.0, 0.5, 1.0], observe=[LargestWeights()], check=False)
    theta = np.abs(solution["theta"].values)
    assert solution["largest_weights"].dims == ("time", "rank")
    np.testing.assert_array_equal(solution["largest_weights"], -np.sort(-theta, axis=1)[:, :2])
    assert "largest_change" not in solution  # a flow takes no steps


def test_an_observer_changes_nothing(tiny: Problem) -> None:
    watched = train(tiny, Adam(lr=0.1), 8, batch_size=6, observe=[LargestWeights()])
    alone = train(tiny, Adam(lr=0.1), 8, batch_size=6)
    xr.testing.assert_identical(watched[list(alone.data_vars)], alone)


def test_two_variables_of_one_name_are_refused_before_the_first_step(tiny: Problem) -> None:
    @dataclass(frozen=True)
    class AnotherLoss(Observer):
        variables = {"loss": Variable((), "another")}  # noqa: RUF012

    told = []
    with pytest.raises(nm_ode.NmOdeError, match="two observers have a variable 'loss'"):
        train(tiny, SGD(lr=0.1), 3, observe=[AnotherLoss()], on_step=told.append)
    assert told == []


class EveryThird(Observer):
    dim = "third_step"
    variables = {"spread": Variable((), "spread of the weights")}  # noqa: RUF012

    def steps(self, context):
        return range(0, context.steps + 1, 3)

    def observe(self, view):
        return {"spread": view.theta.std()}


def test_an_observer_has_steps_and_a_dimension_of_its_own(tiny: Problem) -> None:
    run = train(tiny, SGD(lr=0.1), 7, observe=[EveryThird()])
    assert run["third_step"].values.tolist() == [0, 3, 6]
    np.testing.assert_allclose(run["third_time"], [0.0, 0.3, 0.6])
    np.testing.assert_allclose(run["spread"], run["theta"].values[::3].std(axis=1, ddof=1))
    assert all({"long_name", "units"} <= set(variable.attrs) for variable in run.variables.values())


def test_what_it_saw_survives_a_store(tiny: Problem, tmp_path) -> None:
    run = train(tiny, SGD(lr=0.1), 4, observe=[EveryThird(), LargestWeights()])
    run.to_zarr(tmp_path / "run.zarr", zarr_format=3, consolidated=False)
    with xr.open_zarr(tmp_path / "run.zarr", consolidated=False) as back:
        xr.testing.assert_identical(back.load(), run)


def test_parameters_and_memory_by_name(tiny: Problem) -> None:
    seen = {}

    class Looker(Observer):
        update_variables = {"velocity_norm": Variable((), "norm of the velocity")}  # noqa: RUF012

        def observe_update(self, view):
            seen.update({name: part.clone() for name, part in view.parameters().items()})
            return {"velocity_norm": view.memory("velocity").norm()}

    sgd = SGD(lr=0.1, momentum=0.9)
    run = train(tiny, sgd, 5, observe=[Looker()])
    assert {name: part.shape for name, part in seen.items()} == {
        slot.name: slot.shape for slot in tiny.layout.slots
    }
    np.testing.assert_allclose(run["velocity_norm"], run["update_norm"] / 0.1, rtol=1e-12)
    with pytest.raises(KeyError):
        train(tiny, SGD(lr=0.1), 1, observe=[Looker()])  # plain descent has no velocity


@pytest.mark.parametrize("together", [1, 3, 64])
def test_a_run_that_diverges_is_cut_where_it_does_however_seldom_one_looks(
    tiny: Problem, together: int, monkeypatch
) -> None:
    """On a GPU losses are looked at some steps later; what was recorded beyond is dropped."""
    monkeypatch.setattr("nm_ode.training.steps_between_checks", lambda device: together)
    with pytest.raises(TrainingDiverged) as caught:
        train(tiny, SGD(lr=1e4), 200, save_every=4, observe=[EveryThird(), LargestWeights()])
    run, step = caught.value.run, caught.value.step
    monkeypatch.undo()
    with pytest.raises(TrainingDiverged) as reference:
        train(tiny, SGD(lr=1e4), 200, save_every=4, observe=[EveryThird(), LargestWeights()])
    assert step == reference.value.step
    xr.testing.assert_identical(run, reference.value.run)
    assert run.sizes["step"] == step
    assert run["third_step"].values.tolist() == list(range(0, step, 3))
    assert run["saved_step"].values.tolist() == list(range(0, step, 4))


def test_a_run_that_diverges_at_once_is_an_empty_run() -> None:
    x, y = torch.full((2, 1), 1e200, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    problem = Problem(nn.Linear(1, 1), nn.functional.mse_loss, (x, y))
    with pytest.raises(TrainingDiverged) as caught:
        train(problem, SGD(lr=0.1), 3)
    assert caught.value.step == 0
    assert caught.value.run.sizes["step"] == caught.value.run.sizes["saved_step"] == 0
    assert {"loss", "theta", "grad_norm"} <= set(caught.value.run.data_vars)


def test_a_sink_keeps_order_between_small_and_large_observations() -> None:
    sink = MemorySink(600)
    for i in range(600):
        sink.take({"small": torch.tensor(float(i)), "large": torch.full((5000,), float(i))})
    arrays = sink.arrays(600)
    np.testing.assert_array_equal(arrays["small"], np.arange(600.0))
    np.testing.assert_array_equal(arrays["large"][:, 7], np.arange(600.0))


class _Fetches(TorchDispatchMode):
    """Counts the times that a tensor's number is asked for: on a device each waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device(tiny: Problem, monkeypatch) -> None:
    """As many numbers are fetched in twice as many steps."""
    monkeypatch.setattr("nm_ode.training.steps_between_checks", lambda device: 64)
    symmetries = nm_ode.symmetries_of(tiny)
    counts = []
    for steps in (1, 20, 40):  # the first run of a problem measures what is measured once
        with _Fetches() as fetches:
            train(
                tiny,
                SGD(lr=0.1, momentum=0.9),
                steps,
                batch_size=7,
                save_every=steps,
                observe=[Charges(symmetries), LargestWeights()],
            )
        counts.append(fetches.count)
    assert counts[1] == counts[2]


@pytest.mark.parametrize(
    ("observe", "fragment"),
    [
        ([LargestWeights], r"observe\[0\].*the class LargestWeights"),
        ([Charges([]), "loss"], r"observe\[1\].*str"),
        (LargestWeights(), r"\[LargestWeights"),
    ],
)
def test_a_mistake_in_an_observer_is_named(tiny: Problem, observe, fragment: str) -> None:
    with pytest.raises(ArgumentError, match=fragment):
        train(tiny, SGD(lr=0.1), 2, observe=observe)
    with pytest.raises(ArgumentError, match=fragment):
        solve(GradientFlow(tiny), [0.0, 1.0], observe=observe)


DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


def linear(device: str) -> Problem:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    data = torch.randn(8, 3), torch.randn(8, 1)
    return Problem(nn.Linear(3, 1), nn.functional.mse_loss, data, device=device)


class Plain(Observer):
    """Declares and returns what a test wants."""

    def __init__(self, returned, *, dims=(), dim="step", name="seen", looks_at=None, values=None) -> None:
        self.variables = {name: Variable(dims, "what is seen")}
        self.dim, self._returned, self._name = dim, returned, name
        self._looks_at, self._values = looks_at, values

    def steps(self, context):
        return super().steps(context) if self._looks_at is None else self._looks_at

    def coordinates(self):
        return {} if self._values is None else {"rank": ("rank", np.array(self._values))}

    def observe(self, view):
        found = self._returned(view)
        return found if isinstance(found, dict) else {self._name: found}


def test_a_whole_number_first_does_not_round_what_comes_after(tiny: Problem) -> None:
    run = train(
        tiny, SGD(lr=0.1), 4, observe=[Plain(lambda view: view.loss if view.step else torch.tensor(3))]
    )
    np.testing.assert_array_equal(run["seen"], [3.0, *run["loss"].values[1:]])


@DEVICES
def test_what_is_returned_may_be_the_loops_own_vector(device: str) -> None:
    run = train(linear(device), SGD(lr=0.1), 4, observe=[Plain(lambda view: view.theta, dims=("param",))])
    np.testing.assert_array_equal(run["seen"], run["theta"][:-1])


@pytest.mark.parametrize(
    "returned",
    [
        lambda view: torch.ones(3)[: 3 - view.step],  # another size at the second step
        lambda view: torch.tensor(1.0) if view.step else torch.ones(3),  # would be spread over the row
        lambda view: torch.ones(3, 1),
        lambda view: {},
        lambda view: {"seen": torch.ones(3), "more": 1.0},
        lambda view: None,
        lambda view: "a text",
        lambda view: view.update,  # no step has been taken
    ],
)
@pytest.mark.parametrize("along", ["run", "flow"])
def test_what_is_not_as_declared_is_named_when_it_is_returned(tiny: Problem, along: str, returned) -> None:
    observe, flow = [Plain(returned, dims=("rank",))], GradientFlow(tiny)
    run = {
        "run": lambda: train(tiny, SGD(lr=0.1), 4, observe=observe),
        "flow": lambda: solve(flow, [0.0, 0.1, 0.2], observe=observe, check=False),
    }[along]
    with pytest.raises(ArgumentError, match=r"observe|view\.update"):
        run()


@pytest.mark.parametrize("name", ["step", "time", "saved_time", "layer", "param", "lr", "final_state"])
def test_a_name_that_is_taken_is_refused(tiny: Problem, name: str) -> None:
    with pytest.raises(ArgumentError, match=f"'{name}'"):
        train(tiny, SGD(lr=0.1), 4, observe=[Plain(lambda view: view.loss, name=name)])


@pytest.mark.parametrize(
    "observers",
    [
        [Plain(lambda view: view.loss, looks_at=(0, 2))],
        [Plain(lambda view: view.loss, dim="saved_step", looks_at=(0, 2))],
        [Plain(lambda view: view.loss, dim="seldom")],
        [
            Plain(lambda view: view.loss, dim="my_step", looks_at=(0, 2)),
            Plain(lambda view: view.loss, dim="my_step", looks_at=(1, 3), name="other"),
        ],
        [
            Plain(lambda view: torch.ones(2), dims=("rank",), values=[1, 2]),
            Plain(lambda view: torch.ones(2), dims=("rank",), values=[3, 4], name="other"),
        ],
        [Plain(lambda view: torch.ones(9), dims=("layer",))],
    ],
)
def test_observers_that_would_lie_along_one_dimension_in_two_ways_are_refused(tiny, observers) -> None:
    with pytest.raises(ArgumentError, match="observe"):
        train(tiny, SGD(lr=0.1), 4, observe=observers)


class SavedUpdates(Observer):
    dim = "saved_step"
    update_variables = {"moved": Variable((), "norm of the update")}  # noqa: RUF012

    def observe_update(self, view):
        return {"moved": view.update.norm()}


def test_updates_at_saved_steps_end_with_none(tiny: Problem) -> None:
    run = train(tiny, SGD(lr=0.1), 5, save_every=2, observe=[SavedUpdates()])
    np.testing.assert_allclose(run["moved"], [*run["update_norm"].values[::2], np.nan], rtol=1e-14)


class AfterTheStep(Observer):
    update_variables = {"loss_after": Variable((), "loss over all samples, after the step")}  # noqa: RUF012

    def observe_update(self, view):
        return {"loss_after": view.full_loss}


@pytest.mark.parametrize("batch_size", ["full", 6])
@pytest.mark.parametrize("save_every", [1, 2])  # where theta is saved, the loss before the step is known
def test_the_loss_over_all_samples_after_a_step_is_that_of_the_new_theta(
    tiny: Problem, batch_size, save_every: int
) -> None:
    run = train(tiny, SGD(lr=0.1), 6, batch_size=batch_size, save_every=save_every, observe=[AfterTheStep()])
    every = train(tiny, SGD(lr=0.1), 6, batch_size=batch_size)
    np.testing.assert_allclose(run["loss_after"], every["full_loss"][1:], rtol=1e-14)


class GradientChange(Observer):
    update_variables = {"change": Variable((), "change of the gradient through the step")}  # noqa: RUF012

    def observe(self, view):
        self.before = view.gradient.clone()
        return {}

    def observe_update(self, view):
        return {"change": (view.gradient - self.before).abs().max()}


@DEVICES
def test_a_step_leaves_the_gradient_as_it_was(device: str) -> None:
    sgd = SGD(lr=0.1, momentum=0.9, nesterov=True)
    assert (train(linear(device), sgd, 4, observe=[GradientChange()])["change"] == 0).all()
