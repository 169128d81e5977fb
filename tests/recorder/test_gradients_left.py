"""The gradient of the record before is held where the loop lets go of it, else copied: the angles are the same."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode import Recorder, Statistics

STEPS = 8
Clear = Callable[[int, Any, torch.optim.Optimizer], object]


def to_none(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()


def in_place(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=False)


def past_the_count(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Torch does not count what is written through `.data`."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.data.zero_()
    optimizer.zero_grad()


def buckets(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """New tensors at each step, in a memory of their own that is always the same."""
    for parameter in model.parameters():
        if not hasattr(parameter, "bucket"):
            parameter.bucket = torch.zeros_like(parameter)
        parameter.grad = parameter.bucket.data
        parameter.grad.zero_()


def changes_its_mind(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=step < 5)


def recorded(
    clear: Clear, *, every: int = 1, **options: Any
) -> tuple[xr.Dataset, list[Tensor], list[list[Tensor]]]:
    """The run, each step's gradient as it was, and the tensors in which it was."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **options)
    draw = torch.Generator().manual_seed(1)
    gradients: list[Tensor] = []
    tensors: list[list[Tensor]] = []
    with Recorder(model, optimizer, observe=[Statistics(every=every)]) as recorder:
        for step in range(STEPS):
            x = torch.randn(6, 5, dtype=torch.float64, generator=draw)
            y = torch.randint(2, (6,), generator=draw)
            clear(step, model, optimizer)
            F.cross_entropy(model(x), y).backward()
            mine = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            tensors.append(mine)
            gradients.append(torch.cat([one.reshape(-1) for one in mine]))
            optimizer.step()
    return recorder.run, gradients, tensors


def cosines(gradients: list[Tensor], every: int = 1) -> list[float]:
    seen = gradients[::every]
    return [float(F.cosine_similarity(a, b, dim=0)) for a, b in pairwise(seen)]


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("clear", [to_none, in_place, past_the_count, buckets])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "nesterov": True}])
def test_angles_are_those_of_the_gradients(clear: Clear, every: int, options: dict[str, Any]) -> None:
    run, gradients, _ = recorded(clear, every=every, **options)
    np.testing.assert_allclose(run["gradient_cosine"][1:], cosines(gradients, every), rtol=0, atol=1e-12)


def test_where_it_is_written_over_nothing_is_said() -> None:
    run, gradients, _ = recorded(changes_its_mind)
    found, expected = run["gradient_cosine"].values[1:], np.array(cosines(gradients))
    lost = np.isnan(found)
    # Steps 4 and 5 share their tensors, and the fifth's gradient was written over the fourth's.
    assert np.flatnonzero(lost).tolist() == [4]
    np.testing.assert_allclose(found[~lost], expected[~lost], rtol=0, atol=1e-12)


@pytest.mark.parametrize("clear", [to_none, changes_its_mind])
def test_nobody_writes_to_the_loops_own_tensors(clear: Clear) -> None:
    _, gradients, tensors = recorded(clear)
    for gradient, mine in list(zip(gradients, tensors, strict=True))[:4]:
        assert torch.equal(gradient, torch.cat([one.reshape(-1) for one in mine]))


def by_hook(optimizer: torch.optim.Optimizer, spoil: Callable[[Tensor], object], step: int) -> None:
    taken = [0]

    def hook(*_: object) -> None:
        taken[0] += 1
        for group in optimizer.param_groups if taken[0] > step else ():
            for parameter in group["params"]:
                spoil(parameter.grad)

    optimizer.register_step_post_hook(hook)


@pytest.mark.parametrize(
    "spoil", [lambda g: g.zero_(), lambda g: g.data.mul_(2), lambda g: g.numpy().fill(1)]
)
@pytest.mark.parametrize("within", [False, True])
def test_whoever_writes_to_a_gradient_late_makes_no_wrong_number(
    spoil: Callable[[Tensor], object], within: bool
) -> None:
    """After the step, or in a hook of the optimiser that is called before the recorder's."""
    torch.manual_seed(0)
    model = nn.Linear(5, 3).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if within:
        by_hook(optimizer, spoil, 5)
    gradients: list[Tensor] = []
    with Recorder(model, optimizer, observe=[Statistics()]) as recorder:
        for step in range(STEPS):
            optimizer.zero_grad()
            model(torch.randn(6, 5, dtype=torch.float64)).square().mean().backward()
            mine = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            gradients.append(torch.cat([one.reshape(-1) for one in mine]))
            optimizer.step()
            if step >= 5 and not within:
                for one in mine:
                    spoil(one)
    found = recorder.run["gradient_cosine"].values[1:]
    descent = recorder.run["gradient_update"].values
    known, told = ~np.isnan(found), ~np.isnan(descent)
    assert known[:5].all()
    assert known.sum() < len(known)
    np.testing.assert_allclose(found[known], np.array(cosines(gradients))[known], rtol=1e-12)
    expected = np.array([-0.1 * float(gradient @ gradient) for gradient in gradients])
    np.testing.assert_allclose(descent[told], expected[told], rtol=1e-10)
    assert told.sum() == STEPS - within
