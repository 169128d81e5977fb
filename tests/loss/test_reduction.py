"""What a loss is over subsets: mean, sum or neither, measured for every use of samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Problem, ProblemError
from nm_ode.loss.operators import GradientCovariance

N = 48


class OwnBatchNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()


class FunctionalBatchNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True)


class GhostNorm(nn.Module):
    """Normalised over each eight samples: batches of whole groups agree with their parts, in this order."""

    def forward(self, x: Tensor) -> Tensor:
        groups = x.reshape(-1, 8, x.shape[1]) if len(x) % 8 == 0 else x[None]
        return F.layer_norm(groups.mT, groups.shape[1:2]).mT.reshape(x.shape)


class AcrossTheBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.T, x.shape[:1]).T


class Float32Inside(nn.Module):
    """A product in float32, whatever it is given: its rounding depends on how many samples there are."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.float(), self.weight.float()).to(x.dtype)


def contrastive(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z @ F.normalize(z).T, torch.arange(len(z)))


def with_a_term_of_the_batch_in_its_gradient_alone(z: Tensor, y: Tensor) -> Tensor:
    spread = z.std(0).sum()
    return F.mse_loss(z, y) + spread - spread.detach()


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


X, Y = numbers(N, 4), numbers(N, 3).flip(1)
LABELS = torch.arange(N) * 7 % 5 % 3
SORTED = LABELS.sort().values
IGNORED = LABELS.clone()
IGNORED[5] = -100
WEIGHT = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)


def mean_of_pairs(z: Tensor, y: Tensor) -> Tensor:
    return (z[:, :1] - y[:, 0]).square().mean()


KINDS: dict[str, tuple[Any, nn.Module, Callable[[Tensor, Tensor], Tensor], Tensor]] = {
    "mean": ("mean", nn.Tanh(), F.mse_loss, Y),
    "mean and constant": ("mean", nn.Tanh(), lambda z, y: F.mse_loss(z, y) + 0.1, Y),
    "mean over the batch": ("mean", nn.Tanh(), lambda z, y: F.kl_div(z, y.exp(), reduction="batchmean"), Y),
    "GroupNorm": ("mean", nn.GroupNorm(2, 6), F.cross_entropy, LABELS),
    "kinks": ("mean", nn.ReLU(), F.cross_entropy, LABELS),
    "float32 inside": ("mean", Float32Inside(), F.mse_loss, Y),
    "sum": ("sum", nn.Tanh(), nn.MSELoss(reduction="sum"), Y),
    "sum over a constant": ("sum", nn.Tanh(), lambda z, y: F.mse_loss(z, y, reduction="sum") / N, Y),
    "sum of weighted classes": ("sum", nn.Tanh(), nn.CrossEntropyLoss(WEIGHT, reduction="sum"), LABELS),
    "sum and constant": (None, nn.Tanh(), lambda z, y: F.mse_loss(z, y, reduction="sum") + 0.1, Y),
    "sum over the root": (None, nn.Tanh(), lambda z, y: (z - y).square().sum() / len(z) ** 0.5, Y),
    "root of the mean": (None, nn.Tanh(), lambda z, y: F.mse_loss(z, y).sqrt(), Y),
    "class weights": (None, nn.Tanh(), nn.CrossEntropyLoss(WEIGHT), LABELS),
    "class weights, sorted": (None, nn.Tanh(), nn.CrossEntropyLoss(WEIGHT), SORTED),
    "ignored target": (None, nn.Tanh(), F.cross_entropy, IGNORED),
    "contrastive": (None, nn.Tanh(), contrastive, Y),
    "pairs by broadcasting": (None, nn.Tanh(), mean_of_pairs, Y),
    "gradient alone": (None, nn.Tanh(), with_a_term_of_the_batch_in_its_gradient_alone, Y),
    "median": (None, nn.Tanh(), lambda z, y: (z - y).abs().median(), Y),
    "BatchNorm": (None, nn.BatchNorm1d(6), F.cross_entropy, LABELS),
    "own BatchNorm": (None, OwnBatchNorm(), F.cross_entropy, LABELS),
    "functional BatchNorm": (None, FunctionalBatchNorm(), F.cross_entropy, LABELS),
    "ghost norm": (None, GhostNorm(), F.cross_entropy, LABELS),
    "across the batch": (None, AcrossTheBatch(), F.cross_entropy, LABELS),
}
NEITHER = [kind for kind, (expected, *_) in KINDS.items() if expected is None]


def make(kind: str, last_is_zero: bool = False, **options: Any) -> Problem:
    _, middle, loss, y = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), middle, nn.Linear(6, 3))
    if last_is_zero:
        nn.init.zeros_(model[2].weight)
        nn.init.zeros_(model[2].bias)
    return Problem(model, loss, (X, y), **options)


@pytest.mark.parametrize("seed", range(80, 100))
def test_a_mean_that_is_rounded_to_float32_is_a_mean(seed: int) -> None:
    """Of another order of the samples too, whatever the weights: their rounding is looked for, not met by chance."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), Float32Inside(seed), nn.Linear(6, 3))
    assert Problem(model, F.mse_loss, (X, Y)).reduction == "mean"


@pytest.mark.parametrize("last_is_zero", [False, True], ids=["", "last layer zero"])
@pytest.mark.parametrize("kind", KINDS)
def test_mean_sum_or_neither(kind: str, last_is_zero: bool) -> None:
    """Where the last layer is zero, all samples have one loss at the start: values alone agree by accident."""
    assert make(kind, last_is_zero).reduction == KINDS[kind][0]


@pytest.mark.parametrize("kind", ["mean", "sum", "functional BatchNorm", "ignored target"])
def test_in_float32_too(kind: str) -> None:
    assert make(kind, dtype=torch.float32).reduction == KINDS[kind][0]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_of_few_samples(n: int) -> None:
    def of(model: nn.Module, reduction: str = "mean") -> Any:
        return Problem(model, nn.MSELoss(reduction=reduction), (X[:n], Y[:n])).reduction

    plain = nn.Linear(4, 3)
    assert of(plain) == "mean"
    if n > 1:
        assert of(plain, "sum") == "sum"
        assert of(nn.Sequential(plain, nn.BatchNorm1d(3))) is None


@pytest.mark.parametrize("kind", NEITHER)
def test_neither_is_refused_where_samples_would_have_to_add_up(kind: str) -> None:
    problem = make(kind)
    for use in (
        lambda: make(kind, chunk_size=16),
        lambda: problem.sample_grads(problem.theta0),
        lambda: GradientCovariance.at(problem, problem.theta0),
        lambda: nm_ode.gradient_noise(problem, problem.theta0, 6),
    ):
        with pytest.raises(ProblemError, match=r"neither the mean nor the sum|statistics from the batch"):
            use()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NEITHER and "float32" not in kind])
def test_samples_gradients_add_up_to_the_gradient_and_chunks_to_the_loss(kind: str) -> None:
    problem, chunked = make(kind), make(kind, chunk_size=11)
    theta = problem.theta0 + 0.1
    rows = problem.sample_grads(theta)
    together = rows.mean(0) if KINDS[kind][0] == "mean" else rows.sum(0)
    torch.testing.assert_close(together, problem.grad(theta), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(chunked.grad(theta), problem.grad(theta), rtol=1e-10, atol=1e-12)


def test_a_subset_has_a_measurement_of_its_own() -> None:
    problem = make("class weights, sorted")
    assert problem.reduction is None
    first = int((SORTED[0] == SORTED).sum())
    assert problem.subset(slice(0, first)).reduction == "mean"  # of one class: all weights are equal


@pytest.mark.parametrize("chunk_size", [None, 5])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_scaled_problem_is_a_multiple_in_all_it_gives(reduction: str, chunk_size: int | None) -> None:
    problem = Problem(nn.Linear(4, 3), nn.MSELoss(reduction=reduction), (X, Y), chunk_size=chunk_size)
    scaled, theta = problem.scaled(0.5).scaled(0.5), problem.theta0 + 0.1
    few, thetas = torch.tensor([3, 1, 4, 1, 5, 9]), torch.stack([theta, 2 * theta])
    for samples in (None, few):
        torch.testing.assert_close(scaled.loss(theta, samples), problem.loss(theta, samples) / 4)
        torch.testing.assert_close(scaled.grad(theta, samples), problem.grad(theta, samples) / 4)
        torch.testing.assert_close(scaled.hvp(theta, theta, samples), problem.hvp(theta, theta, samples) / 4)
        torch.testing.assert_close(
            scaled.sample_grads(theta, samples), problem.sample_grads(theta, samples) / 4
        )
        both = None if samples is None else torch.stack([few, few.flip(0)])
        for got, expected in zip(
            scaled.ensemble_loss_and_grad(thetas, both),
            problem.ensemble_loss_and_grad(thetas, both),
            strict=True,
        ):
            torch.testing.assert_close(got, expected / 4)
    assert scaled.subset(few).loss(theta) == scaled.loss(theta, few)
    assert scaled.reduction == problem.reduction == reduction


@pytest.mark.parametrize("loss", [F.mse_loss, nn.L1Loss(), F.smooth_l1_loss, nn.HuberLoss(reduction="sum")])
@pytest.mark.parametrize("wide", ["model", "target"])
def test_targets_that_would_be_broadcast_are_refused_with_both_shapes(loss: Any, wide: str) -> None:
    model = nn.Linear(4, 1) if wide == "model" else nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    y = Y[:, 0] if wide == "model" else Y[:, :1]
    shapes = [r"\(48\)", r"\(48, 1\)"]
    pattern = r"targets have shape {} and the model gives {}".format(
        *(shapes if wide == "model" else shapes[::-1])
    )
    with pytest.raises(ProblemError, match=pattern):
        Problem(model, loss, (X, y))
    with pytest.raises(ProblemError, match=pattern):
        Problem.from_objective(model, lambda model, batch: loss(model(batch[0]), batch[1]), (X, y))


def test_shapes_that_are_one_are_taken() -> None:
    assert Problem(nn.Linear(4, 1), F.mse_loss, (X, Y[:, :1])).reduction == "mean"
    assert (
        Problem(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), F.mse_loss, (X, Y[:, 0])).reduction == "mean"
    )
