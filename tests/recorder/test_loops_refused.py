"""What a Recorder cannot know it refuses or says; it never shifts or mixes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nm_ode
from nm_ode import ArgumentError, Charges, Recorder

from .witness import batches, network


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


def test_a_parameter_that_was_replaced_is_an_error() -> None:
    model = network()
    optimizer = sgd(model)
    model[2].bias = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    x, y = batches(1)[0]
    with Recorder(model, optimizer):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()  # the new one is none of the optimiser's, and not followed
    model, again = network(), batches(2)
    optimizer = sgd(model)
    with Recorder(model, optimizer):
        F.cross_entropy(model(again[0][0]), again[0][1]).backward()
        optimizer.step()
        optimizer.zero_grad()
        model[2].bias = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        F.cross_entropy(model(again[1][0]), again[1][1]).backward()
        with pytest.raises(ArgumentError, match=r"'2\.bias'"):
            optimizer.step()


@pytest.mark.parametrize("late", [False, True])
def test_a_hook_that_comes_between_the_recorder_and_the_step_is_an_error(late: bool) -> None:
    """It may change the gradient after it was seen; one that was there before is seen through."""
    model = network()
    optimizer = sgd(model)

    def clip(*_: object) -> None:
        nn.utils.clip_grad_value_(model.parameters(), 0.01)

    x, y = batches(1)[0]
    F.cross_entropy(model(x), y).backward()
    if not late:
        optimizer.register_step_pre_hook(clip)
    with Recorder(model, optimizer) as recorder, Recorder(model, optimizer):
        if late:
            handle = optimizer.register_step_pre_hook(clip)
            with pytest.raises(ArgumentError, match="before the Recorder begins"):
                optimizer.step()
            handle.remove()
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert recorder.steps == 1
    assert (float(recorder.run.grad_norm[0]) > 0.08) == late


def test_losses_that_are_added_and_averaged_at_once_are_refused() -> None:
    model = network()
    with Recorder(model, sgd(model)) as recorder:
        recorder.loss(1.0, add=True)
        with pytest.raises(ArgumentError, match="add alike"):
            recorder.loss(2.0)


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


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"model": nn.Linear}, "instance"),
        ({"model": 3}, "model"),
        ({"observe": Charges}, "observe"),
        ({"observe": [Charges]}, "the class Charges"),
        ({"save_every": 0}, "save_every"),
        ({"full_batch": "yes"}, "full_batch"),
        ({"follow_frozen": None}, "follow_frozen"),
        ({"problem": F.cross_entropy}, "problem"),
    ],
)
def test_wrong_arguments_are_told(wrong: dict[str, Any], told: str) -> None:
    model = network()
    given = {"model": model, "optimizer": sgd(model), **wrong}
    with pytest.raises(ArgumentError, match=told):
        Recorder(**given)


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
