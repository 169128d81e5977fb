"""Losses that are drawn: trained with and followed, bit for bit from a seed; refused where one loss is needed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode

STEPS = 12


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return (
        torch.randn(24, 4, generator=generator, dtype=torch.float64),
        torch.randint(3, (24,), generator=generator),
    )


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 3))


def noisy(model: nn.Module, batch: Any) -> Tensor:
    """Two losses, and augmentation from three generators."""
    x, y = batch
    noise = 0.1 * torch.randn_like(x) + 0.01 * np.random.rand() + 0.01 * random.random()  # noqa: NPY002
    return F.cross_entropy(model(x + noise), y) + 0.1 * F.multi_margin_loss(model(x), y)


def test_each_step_draws_anew_and_the_seed_fixes_the_bits(data: tuple[Tensor, Tensor]) -> None:
    problem = nm_ode.RandomProblem.from_objective(network(), noisy, data)
    before = torch.get_rng_state(), random.getstate()
    still = nm_ode.train(problem, nm_ode.SGD(lr=1e-12), STEPS)
    assert len(set(still.loss.values.tolist())) == STEPS
    assert np.ptp(still.full_loss.values) < 1e-9
    first, again, other = (nm_ode.train(problem, nm_ode.SGD(lr=0.1), STEPS, seed=s) for s in (0, 0, 1))
    assert first.equals(again)
    assert not np.array_equal(first.loss, other.loss)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


def test_the_gradient_is_that_of_the_draw(data: tuple[Tensor, Tensor]) -> None:
    problem = nm_ode.RandomProblem(network(), F.cross_entropy, data)
    theta = problem.theta0
    direction = torch.randn_like(theta)
    for step in range(3):
        with problem.drawn(7, step):
            _, gradient = problem.loss_and_grad(theta)
            ahead, behind = (problem.loss(theta + sign * 1e-6 * direction) for sign in (1, -1))
        assert float((ahead - behind) / 2e-6) == pytest.approx(float(gradient @ direction), rel=1e-6)


def test_the_expected_loss_is_that_of_the_network_itself(data: tuple[Tensor, Tensor]) -> None:
    """Of a linear output under dropout the mean over draws is the output in eval mode."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 1))
    problem = nm_ode.RandomProblem.from_objective(model, lambda m, batch: m(batch[0]).mean(), data)
    losses = []
    for step in range(400):
        with problem.drawn(0, step):
            losses.append(float(problem.loss(problem.theta0)))
    exact = float(model.double().eval()(data[0]).mean().detach())
    assert abs(np.mean(losses) - exact) < 4 * np.std(losses) / 20
    assert np.std(losses) > 0


def test_charges_follow_the_law_whatever_was_drawn(data: tuple[Tensor, Tensor]) -> None:
    problem = nm_ode.RandomProblem.from_objective(network(), noisy, data)
    symmetries = nm_ode.find_symmetries(network(), data[0].float(), loss="cross_entropy")
    run = nm_ode.train(
        problem,
        nm_ode.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3),
        40,
        batch_size=8,
        observe=[nm_ode.Charges(symmetries)],
    )
    assert float(abs(run.charge - run.charge[0]).max()) > 1e-2
    np.testing.assert_allclose(nm_ode.predict_charges(run, "exact").charge, run.charge, atol=1e-12)


def test_symmetries_are_found_of_it(data: tuple[Tensor, Tensor]) -> None:
    problem = nm_ode.RandomProblem(network(), F.cross_entropy, data)
    assert nm_ode.symmetries_of(problem).n_charges("rescale") == 8


def test_one_that_was_cut_off_goes_on_to_the_same_bits(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    problem = nm_ode.RandomProblem(network(), F.cross_entropy, data)
    optimizer = nm_ode.SGD(lr=0.1, momentum=0.9)
    whole = nm_ode.train(problem, optimizer, STEPS, batch_size=8)
    checkpoint = nm_ode.Checkpoint(tmp_path / "kept", every=0)

    def stop(done: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nm_ode.train(problem, optimizer, STEPS, batch_size=8, checkpoint=checkpoint, on_step=stop)
    seen: list[int] = []
    run = nm_ode.train(problem, optimizer, STEPS, batch_size=8, checkpoint=checkpoint, on_step=seen.append)
    assert len(seen) < STEPS
    assert run.equals(whole)


def test_what_needs_one_loss_is_refused(data: tuple[Tensor, Tensor]) -> None:
    problem = nm_ode.RandomProblem(network(), F.cross_entropy, data)
    theta = problem.theta0
    refusals: list[Any] = [
        lambda: nm_ode.GradientFlow(problem),
        lambda: nm_ode.modified_flow(problem, nm_ode.SGD(lr=0.1), 2),
        lambda: problem.hvp(theta, theta),
        lambda: problem.third_derivative(theta, theta),
        lambda: problem.sample_grads(theta),
        lambda: problem.ensemble_hvp(theta[None], theta[None]),
        lambda: nm_ode.gradient_noise(problem, theta, 4),
        lambda: nm_ode.gradient_noise(problem, theta, 4, draws=5),
        lambda: nm_ode.sgd_ensemble(problem, nm_ode.SGD(lr=0.1), steps=2, members=2, batch_size=4),
        lambda: nm_ode.train(problem, nm_ode.SGD(lr=0.1), 3, observe=[nm_ode.Curvature()]),
    ]
    for refused in refusals:
        with pytest.raises(nm_ode.ProblemError, match="RandomProblem"):
            refused()


def test_noise_that_no_seed_reaches_is_refused(data: tuple[Tensor, Tensor]) -> None:
    own = torch.Generator().manual_seed(0)

    def objective(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]) * torch.rand((), generator=own), batch[1])

    with pytest.raises(nm_ode.ProblemError, match="draws from"):
        nm_ode.RandomProblem.from_objective(network(), objective, data)


def test_without_noise_it_is_a_problem(data: tuple[Tensor, Tensor]) -> None:
    model = network().eval()
    runs = [
        nm_ode.train(kind(model, F.cross_entropy, data), nm_ode.SGD(lr=0.1), STEPS)
        for kind in (nm_ode.Problem, nm_ode.RandomProblem)
    ]
    assert runs[0].equals(runs[1])
