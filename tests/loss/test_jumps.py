"""Jumps of a gradient along a segment, and what it costs to find that there are none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nm_ode.loss.jumps import Segment

EPS = torch.finfo(torch.float64).eps


def smooth(s: float) -> Tensor:
    return torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).mul(0.7 * s).sin() + 1


def with_steps(*at: float, size: float) -> Callable[[float], Tensor]:
    step = size * torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    return lambda s: smooth(s) + step * sum(s > place for place in at)


@pytest.mark.parametrize("size", [1.0, 0.1, 0.03])
@pytest.mark.parametrize("at", [(0.017,), (0.51,), (0.83,), (0.3, 0.83), (0.51, 0.5201)])
def test_jumps_in_what_changes_besides_are_found(at: tuple[float, ...], size: float) -> None:
    assert Segment(with_steps(*at, size=size), EPS).has_jump


@pytest.mark.parametrize("interval", [0, 13, 31])
def test_equal_jumps_in_both_halves_of_an_interval_are_found(interval: int) -> None:
    places = ((interval + 0.25) / 32, (interval + 0.75) / 32)
    flat = torch.ones(4, dtype=torch.float64)
    assert Segment(lambda s: flat * (1 + 0.1 * sum(s > place for place in places)), EPS).has_jump


def test_that_nothing_jumps_is_known_after_a_hundred_gradients() -> None:
    taken: list[float] = []

    def gradient(s: float) -> Tensor:
        taken.append(s)
        return smooth(s)

    assert not Segment(gradient, EPS).has_jump
    assert len(taken) <= 100
