"""SGD as a pure map: torch.optim.SGD step for step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nm_ode import SGD

probabilities = st.one_of(st.just(0.0), st.floats(0.01, 0.99))


@st.composite
def optimizers(draw: st.DrawFn) -> SGD:
    momentum = draw(probabilities)
    nesterov = momentum > 0 and draw(st.booleans())
    return SGD(
        lr=draw(st.floats(1e-4, 1.0)),
        momentum=momentum,
        dampening=0.0 if nesterov else draw(probabilities),
        weight_decay=draw(st.one_of(st.just(0.0), st.floats(1e-5, 0.5))),
        nesterov=nesterov,
    )


@given(optimizer=optimizers(), seed=st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_every_step_equals_torch(optimizer: SGD, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    theirs = torch.randn(7, dtype=torch.float64, generator=generator).requires_grad_()
    mine, velocity = theirs.detach().clone(), None
    torch_optimizer = optimizer.torch_optimizer([theirs])
    for _ in range(6):
        gradient = torch.randn(7, dtype=torch.float64, generator=generator)
        theirs.grad = gradient.clone()
        torch_optimizer.step()
        mine, velocity = optimizer.update(mine, velocity, gradient)
        assert (mine - theirs.detach()).norm() <= 1e-12 * theirs.detach().norm()


@given(optimizer=optimizers())
@settings(max_examples=50, deadline=None)
def test_the_map_is_pure(optimizer: SGD) -> None:
    theta, velocity, gradient = (torch.full((3,), value, dtype=torch.float64) for value in (1.0, 2.0, 3.0))
    optimizer.update(theta, velocity, gradient)
    assert (theta == 1).all()
    assert (velocity == 2).all()
    assert (gradient == 3).all()


def test_flow_time_of_a_step() -> None:
    assert SGD(lr=0.2).time_per_step == 0.2
    assert SGD(lr=0.2, momentum=0.9, dampening=0.5).time_per_step == 0.1
    assert SGD(lr=0.2, dampening=0.5).time_per_step == 0.2  # torch ignores dampening without momentum


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lr": -0.1}, "lr must be a positive number; -0.1"),
        ({"lr": 0.0}, "lr must be a positive number"),
        ({"lr": float("nan")}, "lr must be a positive number"),
        ({"lr": 0.1, "momentum": 1.0}, r"momentum must lie in \[0, 1\)"),
        ({"lr": 0.1, "dampening": -1.0}, r"dampening must lie in \[0, 1\)"),
        ({"lr": 0.1, "weight_decay": -1.0}, "weight_decay must be 0 or positive"),
        ({"lr": 0.1, "nesterov": True}, "nesterov needs momentum > 0"),
        ({"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "nesterov": True}, "dampening = 0.1 were given"),
    ],
)
def test_values_out_of_range_are_named(options, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SGD(**options)
