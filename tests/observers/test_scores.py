"""Scores: numbers of the model at a cadence, in a loop of one's own, in `train` and along a flow."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode


def accuracy_on(x: Tensor, y: Tensor) -> Any:
    return lambda model: (model(x).argmax(-1) == y).double().mean()


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] > 0).long()


def test_in_a_loop_of_ones_own_they_are_those_of_the_model_at_that_step(data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def loss_and_noise(model: nn.Module) -> float:
        np.random.rand(3)  # noqa: NPY002 (the global generator is meant)
        random.random()
        assert not model.training
        torch.randn(7)
        return F.cross_entropy(model(x), y).item()

    scores = nm_ode.Scores({"accuracy": accuracy_on(x, y), "test_loss": loss_and_noise}, nm_ode.Every(3))
    wanted = []
    with nm_ode.Recorder(model, optimizer, observe=[scores]) as recorder:
        for i in range(8):
            model[0].eval()
            optimizer.zero_grad()
            F.cross_entropy(model(x[:20]), y[:20]).backward()
            buffers = {name: one.clone() for name, one in model.named_buffers()}
            generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
            if i % 3 == 0:  # the score is taken here, of running statistics that the forward pass has moved
                model.eval()
                wanted.append((accuracy_on(x, y)(model).item(), F.cross_entropy(model(x), y).item()))
                model.train()
                model[0].eval()
            optimizer.step()
            assert all(torch.equal(one, buffers[name]) for name, one in model.named_buffers())
            assert torch.equal(generators[0], torch.get_rng_state())
            assert generators[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
            assert [part.training for part in model] == [False, True, True, True]
    run = recorder.run
    assert run.score_step.values.tolist() == [0, 3, 6]
    np.testing.assert_array_equal(run.accuracy, [one for one, _ in wanted])
    np.testing.assert_allclose(run.test_loss, [one for _, one in wanted], rtol=1e-14)
    assert run.test_loss.attrs["long_name"] == "test loss"


def test_in_train_and_along_a_flow(data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    torch.manual_seed(0)
    problem = nm_ode.Problem(nn.Linear(3, 2), F.cross_entropy, (x, y))
    scores = nm_ode.Scores({"full": lambda model: F.cross_entropy(model(x), y)}, every=2)
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.5), 7, observe=[scores])
    np.testing.assert_allclose(run.full, run.loss[::2], rtol=1e-12)
    flow = nm_ode.solve(nm_ode.GradientFlow(problem), run, observe=[scores], check=False)
    np.testing.assert_allclose(flow.full, flow.loss, rtol=1e-12)


@pytest.mark.parametrize("functions", [{}, {"one": 1}, [len], {1: len}])
def test_what_is_no_function_is_refused(functions: Any) -> None:
    with pytest.raises(nm_ode.ArgumentError, match="Scores"):
        nm_ode.Scores(functions)


def test_what_is_no_number_is_refused() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with nm_ode.Recorder(model, optimizer, observe=[nm_ode.Scores({"one": lambda m: m.weight})]):
        model(torch.ones(1, 2)).sum().backward()
        with pytest.raises(nm_ode.ArgumentError, match="number"):
            optimizer.step()


def test_who_writes_to_the_trained_parameters_is_refused() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def averaged(model: nn.Module) -> float:
        for parameter in model.parameters():
            parameter.mul_(0.5)
        return 1.0

    with nm_ode.Recorder(model, optimizer, observe=[nm_ode.Scores({"averaged": averaged})]):
        model(torch.ones(1, 2)).sum().backward()
        with pytest.raises(nm_ode.ArgumentError, match="averaged"):
            optimizer.step()
