"""Ghost batches: the loss over many samples as the mean of those over parts, each with statistics of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Problem, ProblemError

N, SIZE = 30, 8


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2)).double()


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator("cpu").manual_seed(1)
    x = torch.randn(N, 4, generator=generator, dtype=torch.float64, device="cpu")
    return x, (x[:, 0] > 0).long()


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem(network(), F.cross_entropy, data(), chunk_size=SIZE, ghost_batches=True)


def test_the_loss_is_the_weighted_mean_over_parts_in_a_fixed_order_by_chance(problem: Problem) -> None:
    model, (x, y) = network(), data()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    parts = order.split([8, 8, 7, 7])
    total = sum(len(part) / N * F.cross_entropy(model(x[part]), y[part]) for part in parts)
    assert isinstance(total, Tensor)
    total.backward()
    wanted = torch.cat([one.grad.flatten() for one in model.parameters()])
    loss, gradient = problem.loss_and_grad(problem.theta0)
    torch.testing.assert_close(loss, total.detach())
    torch.testing.assert_close(gradient, wanted)
    torch.testing.assert_close(problem.loss(problem.theta0), loss)
    whole = Problem(network(), F.cross_entropy, data())
    assert float((loss - whole.loss(whole.theta0)).abs()) > 1e-4


def test_a_batch_that_fits_is_as_without_and_a_larger_one_is_cut_in_its_order(problem: Problem) -> None:
    whole, theta = Problem(network(), F.cross_entropy, data()), problem.theta0
    some = torch.tensor([3, 9, 1, 28, 14, 0, 7])
    torch.testing.assert_close(problem.grad(theta, some), whole.grad(theta, some))
    more = torch.arange(20, 9, -1)
    cut = (6 * whole.grad(theta, more[:6]) + 5 * whole.grad(theta, more[6:])) / 11
    torch.testing.assert_close(problem.grad(theta, more), cut)
    rows, _ = problem.ensemble_loss_and_grad(theta.repeat(2, 1), torch.stack([more, more.flip(0)]))
    torch.testing.assert_close(rows[0], problem.loss(theta, more))


def test_a_same_batch_flow_has_the_parts_of_the_step(problem: Problem) -> None:
    theta, batch = problem.theta0, torch.tensor([3, 9, 1, 28, 14, 0, 7, 20, 11, 5, 17])
    part = problem.subset(batch)
    torch.testing.assert_close(part.grad(theta), problem.grad(theta, batch))
    torch.testing.assert_close(part.grad(theta, slice(1, 10)), problem.grad(theta, batch[1:10]))
    few = problem.subset(slice(2, 20))
    torch.testing.assert_close(few.grad(theta), problem.grad(theta, slice(2, 20)))


def test_it_is_neither_mean_nor_sum_of_its_samples(problem: Problem) -> None:
    assert problem.reduction is None
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 4, batch_size=SIZE)
    solution = nm_ode.solve(nm_ode.GradientFlow(problem), run)
    assert nm_ode.solve_info(solution).batch_bias is not None
    assert float(run.full_loss[0]) == pytest.approx(float(problem.loss(problem.theta0)))


def test_of_a_sum_the_parts_are_summed() -> None:
    def summed(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, reduction="sum")

    model = nn.Linear(4, 2).double()
    plain = Problem(model, summed, data())
    ghosts = Problem(model, summed, data(), chunk_size=SIZE, ghost_batches=True)
    torch.testing.assert_close(ghosts.loss(plain.theta0), plain.loss(plain.theta0))
    assert ghosts.reduction == "sum"


def test_ghosts_without_a_size_are_refused() -> None:
    with pytest.raises(ProblemError, match="give that too"):
        Problem(network(), F.cross_entropy, data(), ghost_batches=True)
    with pytest.raises(ProblemError, match="ghost_batches"):
        Problem(network(), F.cross_entropy, data(), chunk_size=SIZE)
