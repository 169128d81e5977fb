"""A loss is a function of theta: what draws random numbers is refused, whoever draws and from what; seeds are kept."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode import Problem, ProblemError
from tests.loss.doing import Doing, X, Y, around, assert_trains_as_torch_does

DRAWN = torch.Generator()
NUMPY = np.random.default_rng(0)


class Held:
    """Something that has a generator."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(3)


DRAWS: list[Any] = [
    (lambda m, out: torch.rand(()) < 0.1, {}),
    (lambda m, out: F.dropout(torch.ones(1), 0.5), {}),
    (lambda m, out: np.random.rand(), {}),  # noqa: NPY002
    (lambda m, out: random.random(), {}),
    (lambda m, out: m.rng.random(), {"rng": np.random.default_rng(0)}),
    (lambda m, out: m.rngs["first"][0].random(), {"rngs": {"first": [np.random.default_rng(0)]}}),
    (lambda m, out: m.rng.rand(), {"rng": np.random.RandomState(0)}),
    (lambda m, out: m.rng.random(), {"rng": random.Random(0)}),
    (lambda m, out: m.held.rng.random(), {"held": Held()}),
    (lambda m, out: torch.rand(1, generator=m.rng), {"rng": torch.Generator()}),
    (lambda m, out: torch.rand(1, generator=DRAWN), {}),
    (lambda m, out: NUMPY.random(), {}),
]


@pytest.mark.parametrize(("draw", "attributes"), DRAWS)
def test_a_layer_that_draws_is_refused_though_the_number_has_no_effect(draw: Any, attributes: Any) -> None:
    layer = Doing(lambda m, out: (draw(m, out), None)[1], **attributes)
    with pytest.raises(ProblemError, match=r"the loss is random: module '2' .Doing. draws"):
        Problem(around(layer), F.mse_loss, (X, Y))


def forked(m: Doing, out: Tensor) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.rand(1)


def seeded_fork(m: Doing, out: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return 0 * out + torch.rand(2, dtype=out.dtype)


OUT_OF_SIGHT: list[Callable[[Any, Tensor], Any]] = [
    lambda m, out: np.random.default_rng().random(),
    lambda m, out: random.Random().random(),
    lambda m, out: random.SystemRandom().random(),
    lambda m, out: uuid.uuid4(),
    lambda m, out: torch.rand(1, generator=unseeded()),
    forked,
]


def unseeded() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator


@pytest.mark.parametrize("draw", OUT_OF_SIGHT)
def test_generators_that_a_pass_makes_or_puts_back_are_found(draw: Any) -> None:
    layer = Doing(lambda m, out: (draw(m, out), None)[1])
    with pytest.raises(ProblemError, match="the loss is random"):
        Problem(around(layer), F.mse_loss, (X, Y))


@pytest.mark.parametrize(
    "draw",
    [
        seeded_fork,
        lambda m, out: torch.rand(2, generator=torch.Generator().manual_seed(3), dtype=out.dtype) + 0 * out,
        lambda m, out: 0 * out + np.random.default_rng(3).random(),
        lambda m, out: 0 * out + random.Random(3).random(),
        lambda m, out: F.dropout(out, 0.0),
    ],
)
def test_what_is_drawn_from_a_fixed_seed_is_a_constant(draw: Any) -> None:
    assert_trains_as_torch_does(around(Doing(draw)))


def test_a_loss_that_draws_is_named() -> None:
    with pytest.raises(ProblemError, match="the loss function draws"):
        Problem(around(nn.Linear(8, 2)), lambda o, t: F.mse_loss(F.dropout(o, 1e-9), t), (X, Y))


def test_a_branch_that_is_dropped_rarely_is_refused_for_every_seed() -> None:
    rarely = Doing(lambda m, out: 0 * out if torch.rand(()) < 0.1 else out)
    for seed in range(20):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            with pytest.raises(ProblemError, match="random"):
                Problem(around(rarely), F.mse_loss, (X, Y))


def test_a_generator_that_is_held_and_not_drawn_from_is_welcome() -> None:
    assert_trains_as_torch_does(around(Doing(lambda m, out: None, rng=np.random.default_rng(0))))


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_the_callers_generators_stay_where_they_are(rate: float) -> None:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        drawn = random.random() + np.random.rand() + torch.rand(()) if rate else 0.0  # noqa: NPY002
        return F.mse_loss(out, y) + rate * drawn

    model = around(nn.Linear(8, 2))
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    try:
        Problem(model, loss, (X, Y))
    except ProblemError as error:
        assert "random" in str(error)  # noqa: PT017
    after = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_data_that_are_drawn_as_they_are_read_are_refused() -> None:
    class Augmented(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 24

        def __getitem__(self, i: int) -> Any:
            return X[i] + 0 * torch.rand(4), Y[i]

    with pytest.raises(ProblemError, match="the loss is random: reading"):
        Problem(around(nn.Linear(8, 2)), F.mse_loss, Augmented(), chunk_size=24)
