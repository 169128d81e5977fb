"""Full-batch flows beside minibatches: of the loss that a batch has on average."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.linalg import expm
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode import (
    SGD,
    Cosine,
    Curvature,
    Drop,
    FlowError,
    GradientFlow,
    MinibatchFlow,
    Problem,
    ProblemError,
    compare,
    modified_flow,
    solve,
    solve_info,
    train,
)
from nm_ode.data import sample_batches
from nm_ode.flows import Flow
from nm_ode.results import run_info
from tests.loss.test_reduction import FunctionalBatchNorm

D = torch.float64
N, OUTPUTS = 24, 2


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def linear(reduction: str, n: int = N) -> Problem:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(4, OUTPUTS)
    return Problem(model, nn.MSELoss(reduction=reduction), (drawn(1, n, 4), drawn(2, n, OUTPUTS)))


def relative_error(problem: Problem, optimizer, flow_of, **options) -> float:
    run = train(problem, optimizer, 60, **options)
    return float(compare(run, solve(flow_of(problem, optimizer), run, rtol=1e-8)).relative_error[-1])


OPTIMIZERS = {
    "gradient": (lambda lr: SGD(lr=lr), lambda problem, _: GradientFlow(problem)),
    "modified": (lambda lr: SGD(lr=lr), lambda *of: modified_flow(*of, order=2)),
    "hessian": (lambda lr: SGD(lr=lr), lambda *of: modified_flow(*of, order=2, form="hessian")),
    "momentum": (lambda lr: SGD(lr=lr / 2, momentum=0.5), lambda *of: modified_flow(*of, order=2)),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_sum_is_followed_as_closely_as_a_mean(kind: str) -> None:
    """The same steps: over a batch of 6 the sum is 12 times the mean (2 outputs), and lr so much smaller."""
    optimizer, flow_of = OPTIMIZERS[kind]
    mean = relative_error(linear("mean"), optimizer(0.05), flow_of, batch_size=6)
    total = relative_error(linear("sum"), optimizer(0.05 / 12), flow_of, batch_size=6)
    assert total == pytest.approx(mean, rel=1e-4)
    assert mean < 0.1


@pytest.mark.parametrize("schedule", [None, Drop((7,), 0.3), Cosine(0.1)], ids=str)
def test_the_flow_of_a_sum_is_that_of_the_share_that_steps_take(schedule) -> None:
    """In closed form; the last batch of each epoch, 4 of 24, is smaller than the others of 10."""
    problem, lr = linear("sum"), 0.004
    run = train(problem, SGD(lr=lr), 20, batch_size=10, schedule=schedule, seed=3)
    sizes = [len(batch) for batch in islice(sample_batches(N, 10, 3), 20)]
    share = np.average(sizes, weights=run.lr) / N
    solution = solve(GradientFlow(problem), run, rtol=1e-10)
    assert solve_info(solution).batch_share == pytest.approx(share, rel=1e-14)
    x = np.column_stack([problem.x.numpy(), np.ones(N)])
    best = np.linalg.lstsq(x, problem.y.numpy(), rcond=None)[0]
    start = np.vstack([p.detach().numpy().T.reshape(-1, OUTPUTS) for p in parts(problem)])
    time = float(run_info(run).grid.times[-1])
    exact = best + expm(-2 * share * time * x.T @ x) @ (start - best)
    got = np.vstack([p.numpy().T.reshape(-1, OUTPUTS) for p in parts(problem, solution.theta.values[-1])])
    np.testing.assert_allclose(got, exact, rtol=1e-7, atol=1e-9)
    full = [float(problem.loss(torch.from_numpy(theta))) for theta in solution.theta.values]
    np.testing.assert_allclose(
        solution.loss, full, rtol=1e-12
    )  # what is recorded is the loss over all samples


def parts(problem: Problem, theta: np.ndarray | None = None) -> list[Tensor]:
    at = problem.theta0 if theta is None else torch.from_numpy(theta)
    return list(problem.layout.split(at))


@pytest.mark.parametrize(
    ("options", "share"), [({}, None), ({"batch_size": N}, None), ({"batch_size": 8}, 1 / 3)]
)
def test_the_share_is_in_the_record(options, share) -> None:
    for reduction in ("mean", "sum"):
        problem = linear(reduction)
        run = train(problem, SGD(lr=0.001), 6, **options)
        info = solve_info(solve(GradientFlow(problem), run))
        assert info.batch_share == (None if reduction == "mean" or share is None else pytest.approx(share))
        assert info.batch_bias is None


def test_a_same_batch_flow_takes_its_batches_loss_whatever_it_is() -> None:
    for loss in (nn.MSELoss(reduction="sum"), lambda z, y: F.mse_loss(z, y).sqrt()):
        problem = Problem(nn.Linear(4, OUTPUTS), loss, (drawn(1, N, 4), drawn(2, N, OUTPUTS)))
        run = train(problem, SGD(lr=0.001), 6, batch_size=10)
        flow = MinibatchFlow.beside(GradientFlow(problem), run)
        for step, batch in enumerate(islice(sample_batches(N, 10, 0), 6)):
            torch.testing.assert_close(
                flow.during(step).rhs(0.0, problem.theta0), -problem.grad(problem.theta0, batch)
            )
        info = solve_info(solve(flow, run))
        assert (info.batch_share, info.batch_bias) == (None, None)


def batch_norm(batches: int) -> tuple[Problem, xr.Dataset]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), FunctionalBatchNorm(), nn.Tanh(), nn.Linear(6, OUTPUTS))
    problem = Problem(model, F.mse_loss, (drawn(1, 96, 4), drawn(2, 96, OUTPUTS)))
    return problem, train(problem, SGD(lr=0.02), 10, batch_size=batches)


def test_where_batches_miss_the_gradient_it_is_measured_and_recorded() -> None:
    problem, run = batch_norm(4)
    info = solve_info(solve(GradientFlow(problem), run))
    generator = torch.Generator().manual_seed(9)
    draws = torch.stack(
        [problem.grad(problem.theta0, torch.randperm(96, generator=generator)[:4]) for _ in range(6000)]
    )
    full = problem.grad(problem.theta0)
    expected = float((draws.mean(0) - full).norm() / full.norm())
    assert info.batch_bias is not None
    assert info.batch_bias_error is not None
    assert info.batch_bias_error < 0.5 * expected
    assert abs(info.batch_bias - expected) < 4 * info.batch_bias_error
    assert info.batch_share is None


def test_in_one_batch_nothing_is_missed() -> None:
    problem, run = batch_norm(96)
    info = solve_info(solve(GradientFlow(problem), run))
    assert info.batch_bias == pytest.approx(0, abs=1e-12)


def test_the_full_batch_measures_nothing(monkeypatch) -> None:
    problem, _ = batch_norm(4)
    run = train(problem, SGD(lr=0.01), 3)
    monkeypatch.setattr("nm_ode.loss.expected.batch_bias", None)
    assert solve_info(solve(GradientFlow(problem), run)).batch_bias is None


def test_a_sum_over_other_samples_than_the_runs_is_refused() -> None:
    run = train(linear("sum"), SGD(lr=0.001), 5, batch_size=6)
    with pytest.raises(ProblemError, match="sums over its samples, 20, and the run on batches has 24"):
        solve(GradientFlow(linear("sum", 20)), run)


def test_a_flow_whose_problem_cannot_be_replaced_is_refused_for_a_sum_alone() -> None:
    class Plain(Flow):
        name, title, expected_order, depends_on_lr = "plain", "plain flow", 1, False  # type: ignore[assignment]

        def __init__(self, problem: Problem) -> None:
            self.problem = problem

        def rhs(self, t: float, state: Tensor) -> Tensor:
            return -self.problem.grad(state)

    mean, total = (train(linear(r), SGD(lr=0.001), 5, batch_size=6) for r in ("mean", "sum"))
    solve(Plain(linear("mean")), mean)
    with pytest.raises(FlowError, match="Plain is no dataclass"):
        solve(Plain(linear("sum")), total)


def test_a_flow_of_ones_own_that_is_a_dataclass_is_scaled() -> None:
    @dataclass(frozen=True, eq=False)
    class Own(GradientFlow):
        factor: float = 1.0

    problem = linear("sum")
    run = train(problem, SGD(lr=0.001), 5, batch_size=6)
    np.testing.assert_array_equal(solve(Own(problem), run).theta, solve(GradientFlow(problem), run).theta)


def test_the_sharpness_beside_batches_of_a_sum_is_that_of_their_share() -> None:
    """lr · λ_max is to be compared with the limits of the steps that are taken."""
    found = [
        train(linear(reduction), SGD(lr=lr), 8, batch_size=6, observe=[Curvature(3)])
        for reduction, lr in (("mean", 0.05), ("sum", 0.05 / 12))
    ]
    np.testing.assert_allclose(found[0].normalised_sharpness[0], found[1].normalised_sharpness[0], rtol=1e-6)
