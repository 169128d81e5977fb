"""What a Recorder cannot know it refuses or says; it never shifts or mixes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nm_ode
from nm_ode import ArgumentError, Charges, LawError, Recorder

from .witness import Seen, batches, network


def sgd(model: nn.Module, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, **options})


def test_a_late_loss_is_refused_in_the_first_step() -> None:
    model = network()
    optimizer = sgd(model)
    with Recorder(model, optimizer) as recorder:
        x, y = batches(1)[0]
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        with pytest.raises(ArgumentError, match=r"before optimizer\.step"):
            recorder.loss(loss)


def test_a_loss_after_a_closure_is_refused() -> None:
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    x, y = batches(1)[0]

    def closure() -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    with Recorder(model, optimizer) as recorder:
        loss = optimizer.step(closure)
        with pytest.raises(ArgumentError, match="closure"):
            recorder.loss(loss)


@pytest.mark.parametrize("every", [1, 3])
def test_a_loss_may_be_given_now_and_then(every: int) -> None:
    model = network()
    optimizer = sgd(model)
    wanted = []
    with Recorder(model, optimizer) as recorder:
        for i, (x, y) in enumerate(batches(7)):
            loss = F.cross_entropy(model(x), y)
            if i % every == 0:
                recorder.loss(loss)
            wanted.append(loss.item() if i % every == 0 else np.nan)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    np.testing.assert_array_equal(recorder.run.loss, wanted)


def with_charges(
    model: nn.Module, optimizer: torch.optim.Optimizer, between: Any = None, **options: Any
) -> Any:
    symmetries = nm_ode.find_symmetries(network(), batches(1)[0][0], loss="cross_entropy")
    with Recorder(model, optimizer, observe=[Charges(symmetries)], **options) as recorder:
        for i, (x, y) in enumerate(batches(6)):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            if between is not None and i == 3:
                between(model, optimizer)
            optimizer.step()
    return recorder.run


def other_momentum(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["momentum"] = 0.5


def write(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        model[0].weight.mul_(0.5)  # type: ignore[index]


def load(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    state = copy.deepcopy(optimizer.state_dict())
    for kept in state["state"].values():
        kept["momentum_buffer"].mul_(2)
    optimizer.load_state_dict(state)


def drop_a_gradient(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model[2].weight.grad = None  # type: ignore[index]


def other_rate(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["lr"] = 0.05


@pytest.mark.parametrize(
    ("between", "told"),
    [
        (other_momentum, "momentum"),
        (write, "written to"),
        (load, "loaded"),
        (drop_a_gradient, "2.weight"),
    ],
)
def test_no_law_is_given_of_what_no_law_describes(between: Any, told: str) -> None:
    model = network()
    run = with_charges(model, sgd(model, momentum=0.9), between)
    with pytest.raises(LawError, match=told):
        nm_ode.predict_charges(run, "exact")
    assert run.sizes["step"] == 6


def test_another_learning_rate_changes_no_law() -> None:
    model = network()
    run = with_charges(model, sgd(model, momentum=0.9), other_rate)
    np.testing.assert_allclose(nm_ode.predict_charges(run, "exact").charge, run.charge, atol=1e-13)


@pytest.mark.parametrize(
    ("of_weights", "of_biases", "told"),
    [({"lr": 0.1}, {"lr": 0.05}, "learning rates"), ({"weight_decay": 0.1}, {}, "weight_decay")],
)
def test_no_law_is_given_where_groups_differ(of_weights: Any, of_biases: Any, told: str) -> None:
    model = network()
    weights, biases = (
        [p for p in model.parameters() if (p.ndim > 1) == is_weight] for is_weight in (True, False)
    )
    optimizer = torch.optim.SGD(
        [{"params": weights, **of_weights}, {"params": biases, **of_biases}], lr=0.1, momentum=0.9
    )
    run = with_charges(model, optimizer)
    with pytest.raises(LawError, match=told):
        nm_ode.predict_charges(run, "exact")


def test_no_law_of_sgd_is_given_of_a_class_of_that_name() -> None:
    class SGD(torch.optim.SGD):
        pass

    model = network()
    run = with_charges(model, SGD(model.parameters(), lr=0.1))
    with pytest.raises(LawError, match="does not know"):
        nm_ode.predict_charges(run, "exact")


def test_a_parameter_that_turns_up_later_is_an_error() -> None:
    model = network()
    model[0].requires_grad_(False)
    optimizer = sgd(model)
    x, y = batches(1)[0]
    with Recorder(model, optimizer):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        model[0].requires_grad_(True)
        F.cross_entropy(model(x), y).backward()
        with pytest.raises(ArgumentError, match=r"'0\.weight'.*follow_frozen"):
            optimizer.step()


def test_one_that_is_added_later_is_an_error_too() -> None:
    model = network()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    x, y = batches(1)[0]
    with Recorder(model, optimizer):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.add_param_group({"params": model[0].parameters()})
        with pytest.raises(ArgumentError, match=r"'0\.weight'.*follow_frozen"):
            optimizer.step()


def test_an_optimiser_that_moves_before_its_closure_is_refused() -> None:
    class Sharpness(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.add_(0.01)
            with torch.enable_grad():
                closure()
            return super().step()

    model = network()
    optimizer = Sharpness(model.parameters(), lr=0.1)
    x, y = batches(1)[0]
    with pytest.raises(ArgumentError, match="closure"), Recorder(model, optimizer):
        optimizer.step(lambda: F.cross_entropy(model(x), y).backward())


def test_what_is_no_model_of_the_optimiser_is_refused() -> None:
    model = network()
    with pytest.raises(ArgumentError, match="no parameter"):
        Recorder(model, sgd(nn.Linear(2, 2)))
    with pytest.raises(ArgumentError, match="each optimiser"):
        Recorder(model, [sgd(model)])  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"torch\.optim"):
        Recorder(model, nm_ode.SGD(lr=0.1))  # type: ignore[arg-type]
    model.requires_grad_(False)
    with pytest.raises(ArgumentError, match="frozen"):
        Recorder(model, sgd(model))


def test_a_recorder_is_used_once() -> None:
    model = network()
    recorder = Recorder(model, sgd(model))
    with pytest.raises(ArgumentError, match="no loop"):
        _ = recorder.run
    with recorder:
        pass
    with pytest.raises(ArgumentError, match="new one"):
        recorder.__enter__()


def test_a_problem_of_other_parameters_is_refused() -> None:
    model = network()
    problem = nm_ode.Problem(model, F.cross_entropy, batches(1)[0])
    with pytest.raises(ArgumentError, match="other parameters"):
        Recorder(model, torch.optim.SGD(model[0].parameters(), lr=0.1), problem=problem)


class Failing(nm_ode.Observer):
    """Fails at a step, before or after it."""

    variables: Mapping[str, nm_ode.Variable] = {"one": nm_ode.Variable((), "one")}
    update_variables: Mapping[str, nm_ode.Variable] = {"two": nm_ode.Variable((), "two")}

    def __init__(self, where: str) -> None:
        self._where = where

    def observe(self, view: nm_ode.View) -> Any:
        if view.step == 2 and self._where == "before":
            raise ZeroDivisionError
        return {"one": 1.0}

    def observe_update(self, view: nm_ode.View) -> Any:
        if view.step == 2 and self._where == "after":
            raise ZeroDivisionError
        return {"two": 1.0}


@pytest.mark.parametrize("where", ["before", "after"])
def test_an_error_of_an_observer_ends_the_recording_and_says_so(where: str) -> None:
    model = network()
    optimizer = sgd(model)
    failures = 0
    with Recorder(model, optimizer, observe=[Seen(), Failing(where)]) as recorder:
        for x, y in batches(5):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            try:
                optimizer.step()
            except ZeroDivisionError:
                failures += 1
    run = recorder.run
    assert failures == 1
    assert run.sizes["step"] == 2
    assert np.isfinite(run.seen_update).all()
    assert "ZeroDivisionError" in nm_ode.run_info(run).message


def test_an_exception_in_the_loop_leaves_what_was_recorded() -> None:
    model = network()
    optimizer = sgd(model)
    recorder = Recorder(model, optimizer, observe=[Seen()], save_every=2)

    def loop() -> None:
        with recorder:
            for i, (x, y) in enumerate(batches(5)):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                if i == 2:
                    raise RuntimeError

    with pytest.raises(RuntimeError):
        loop()
    assert recorder.run.sizes["step"] == 3
    assert "RuntimeError" in nm_ode.run_info(recorder.run).message
    assert not model[0].weight._backward_hooks


def test_a_step_that_failed_ends_the_recording_though_the_loop_goes_on() -> None:
    class Fragile(torch.optim.SGD):
        fails = False

        def step(self, closure: Any = None) -> Any:
            if self.fails:
                raise RuntimeError
            return super().step(closure)

    model = network()
    optimizer = Fragile(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, observe=[Seen()]) as recorder:
        for i, (x, y) in enumerate(batches(5)):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.fails = i == 2
            try:
                optimizer.step()
            except RuntimeError:
                assert i == 2
    assert recorder.run.sizes["step"] == 2
    assert "step 2" in nm_ode.run_info(recorder.run).message


def test_a_closure_that_failed_costs_no_later_step() -> None:
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    x, y = batches(1)[0]

    def closure() -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    def broken() -> Any:
        raise RuntimeError

    with Recorder(model, optimizer, observe=[Seen()]) as recorder:
        optimizer.step(closure)
        with pytest.raises(RuntimeError):
            optimizer.step(broken)
        optimizer.step(closure)
    assert recorder.run.sizes["step"] == 2
