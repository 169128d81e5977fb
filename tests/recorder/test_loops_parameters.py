"""Parameters: of half precision, in other layouts, tied, with sparse gradients, frozen, of two optimisers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nm_ode

from .witness import STEPS, Witness, batches, flat, network, recorder_of


def test_half_precision_is_followed_in_float32() -> None:
    model, witness = network(torch.bfloat16), Witness()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    with recorder_of(model, optimizer) as recorder:
        for x, y in batches(STEPS, torch.bfloat16):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            witness.step(model, optimizer, recorder, loss)
    witness.end(model)
    witness.agrees_with(recorder.run, 1e-7)
    assert recorder.run.seen_update.dtype == np.float32


def test_channels_last() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)).double()
    model = model.to(memory_format=torch.channels_last)
    witness = Witness()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with recorder_of(model, optimizer) as recorder:
        for i in range(STEPS):
            x = torch.randn(5, 2, 4, 4, dtype=torch.float64).to(memory_format=torch.channels_last)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), torch.arange(5) % 3 * i % 3)
            witness.step(model, optimizer, recorder, loss)
    witness.end(model)
    assert not model[0].weight.is_contiguous()
    witness.agrees_with(recorder.run)


def test_tied_parameters_are_followed_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4, bias=False)).double()
    model[2].weight = model[0].weight
    witness = Witness()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with recorder_of(model, optimizer) as recorder:
        for x, _ in batches(STEPS):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            witness.step(model, optimizer, recorder, loss)
    witness.end(model)
    assert recorder.run.sizes["param"] == 16
    witness.agrees_with(recorder.run)


def test_sparse_gradients_are_made_dense() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Linear(4, 3)).double()
    witness = Witness()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with recorder_of(model, optimizer) as recorder:
        for i in range(STEPS):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(torch.tensor([i % 5, 1, 1])), torch.tensor([0, 1, 2]))
            witness.step(model, optimizer, recorder, loss)
    witness.end(model)
    witness.agrees_with(recorder.run)


def test_a_late_unfrozen_layer_is_followed_if_asked_for() -> None:
    model, witness = network(), Witness()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1, momentum=0.9)
    with recorder_of(model, optimizer, follow_frozen=True) as recorder:
        for i, (x, y) in enumerate(batches(STEPS)):
            if i == 3:
                model[0].requires_grad_(True)
                optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.02})
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            witness.step(model, optimizer, recorder, loss)
    witness.end(model)
    run = recorder.run
    witness.agrees_with(run)
    assert run.parameter_lr[2].values.tolist() == [0, 0, 0.1, 0.1]
    assert run.parameter_lr[3].values.tolist() == [0.02, 0.02, 0.1, 0.1]
    assert nm_ode.run_info(run).beyond_laws


def test_frozen_parameters_are_not_followed_by_default() -> None:
    model = network()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with recorder_of(model, optimizer) as recorder:
        x, y = batches(1)[0]
        F.cross_entropy(model(x), y).backward()
        gradient = flat(p.grad for p in model[2].parameters())
        optimizer.step()
    assert recorder.run.seen_gradient[0].values == pytest.approx(gradient.numpy())
    assert recorder.run.layer.values.tolist() == ["2"]


def test_two_optimisers_of_one_model_have_a_recorder_each() -> None:
    model = network()
    optimizers = [torch.optim.SGD(model[0].parameters(), lr=0.1), torch.optim.Adam(model[2].parameters())]
    with recorder_of(model, optimizers[0]) as first, recorder_of(model, optimizers[1]) as second:
        for x, y in batches(STEPS):
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            for recorder, optimizer in zip((first, second), optimizers, strict=True):
                recorder.loss(loss)
                optimizer.step()
    assert first.run.layer.values.tolist() == ["0"]
    assert second.run.layer.values.tolist() == ["2"]
    np.testing.assert_array_equal(first.run.loss, second.run.loss)
    assert first.steps == second.steps == STEPS
