"""Loops, steps, closures and observers that end in an exception: what was recorded is whole, and says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Recorder

from .witness import Seen, batches, network


def sgd(model: nn.Module, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, **options})


def test_ctrl_c_keeps_the_end() -> None:
    model = network()
    optimizer = sgd(model, momentum=0.9)
    recorder = Recorder(model, optimizer, save_every=2)

    def loop() -> None:
        with recorder:
            for i, (x, y) in enumerate(batches(5)):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                if i == 2:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop()
    run = recorder.run
    assert run.sizes["step"] == 3
    assert run.saved_step.values.tolist() == [0, 2, 3]
    np.testing.assert_array_equal(
        run.theta[-1], torch.cat([p.detach().flatten() for p in model.parameters()])
    )
    np.testing.assert_array_equal(run.final_state[:51], run.theta[-1])


@pytest.mark.parametrize("counted", [True, False])
def test_what_is_written_after_the_last_step_is_not_its_end(counted: bool) -> None:
    model = network()
    optimizer = sgd(model)
    with Recorder(model, optimizer, save_every=2) as recorder:
        for x, y in batches(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        best = network().state_dict()
        if counted:
            model.load_state_dict(best)
        else:
            for name, parameter in model.named_parameters():
                parameter.data.copy_(best[name])
    assert recorder.run.saved_step.values.tolist() == [0, 2]
    assert "written to" in nm_ode.run_info(recorder.run).message


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
