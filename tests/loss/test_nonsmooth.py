"""Which operations count as kinks, and on which side of them each unit is."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nm_ode import Problem
from nm_ode.loss.nonsmooth import changed_share, kinks, sides


def conv(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), *between, nn.Flatten(), nn.LazyLinear(2))


def problem(model: nn.Module, loss=F.mse_loss) -> Problem:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 1, 4, 4, generator=generator), torch.randn(6, 2, generator=generator)
    model(x)
    return Problem(model, loss, (x, y))


@pytest.mark.parametrize(
    "smooth", [nn.Tanh(), nn.GELU(), nn.SiLU(), nn.Softplus(), nn.Sigmoid(), nn.ELU(), nn.AvgPool2d(2)]
)
def test_smooth_operations_are_no_kinks(smooth: nn.Module) -> None:
    assert kinks(problem(conv(smooth))) == ()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.ReLU(), "ReLU"),
        (nn.LeakyReLU(), "LeakyReLU"),
        (nn.PReLU(), "PReLU"),
        (nn.ReLU6(), "hardtanh / ReLU6"),
        (nn.Hardtanh(), "hardtanh / ReLU6"),
        (nn.Threshold(0.1, 0.0), "threshold"),
        (nn.MaxPool2d(2), "max-pooling"),
        (nn.AdaptiveMaxPool2d(2), "max-pooling"),
        (nn.Hardswish(), "hardswish"),
        (nn.Softshrink(), "softshrink"),
    ],
)
def test_kinked_modules_are_named(module: nn.Module, name: str) -> None:
    assert kinks(problem(conv(module))) == (name,)


class ByHand(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.abs, "abs"),
        (lambda x: x.clamp(min=0), "clamp"),
        (lambda x: torch.maximum(x, 0.1 * x), "maximum"),
        (lambda x: torch.where(x > 0, x, 0.0), "where"),
        (lambda x: x.max(dim=-1, keepdim=True).values * x, "max"),
        (lambda x: x.amax(dim=-1, keepdim=True) * x, "max"),
    ],
)
def test_kinks_written_by_hand_are_found(function, name: str) -> None:
    assert kinks(problem(conv(ByHand(function)))) == (name,)


def test_a_kink_in_the_loss_counts() -> None:
    assert kinks(problem(conv(), loss=F.l1_loss)) == ("abs",)


def test_a_kink_that_no_gradient_passes_does_not_count() -> None:
    class PreparesInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = conv()

        def forward(self, x):
            return self.model(x.abs())

    assert kinks(problem(PreparesInputs())) == ()


class Elementwise(nn.Module):
    """theta itself goes through the operation: what is on which side can be read off theta."""

    def __init__(self, function) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(6, dtype=torch.float64))
        self.function = function

    def forward(self, x):
        return self.function(x[:, :1] * self.theta)


ONE = torch.tensor([-4.0, -0.7, -0.2, 0.2, 0.7, 4.0], dtype=torch.float64)
JUMPS = [
    (F.relu, [0.0]),
    (torch.relu, [0.0]),
    (lambda x: F.leaky_relu(x, 0.1), [0.0]),
    (lambda x: F.relu(x * 1.0, inplace=True), [0.0]),
    (torch.abs, [0.0]),
    (lambda x: x.clamp(min=0.5), [0.5]),
    (lambda x: x.clamp(-0.5, 0.5), [-0.5, 0.5]),
    (F.hardtanh, [-1.0, 1.0]),
    (F.relu6, [0.0, 6.0]),
    (lambda x: F.threshold(x, 0.5, 0.0), [0.5]),
    (F.softshrink, [-0.5, 0.5]),
    (F.hardswish, [-3.0, 3.0]),
    (lambda x: torch.maximum(x, 0.1 * x), [0.0]),
    (lambda x: torch.where(x > 0, x, 0.0), [0.0]),
]


@pytest.mark.parametrize(("function", "jumps"), JUMPS)
@pytest.mark.parametrize("moved", [0.4, 3.0, 10.0])
def test_units_that_change_sides_are_counted(function, jumps: list[float], moved: float) -> None:
    model = Elementwise(function)
    problem = Problem(model, lambda out, y: out.square().mean(), (torch.ones(3, 1), torch.zeros(3)))
    before, after = sides(problem, ONE), sides(problem, ONE + moved)
    assert sum(side.numel() for side in before) == 18
    edges = torch.tensor(jumps, dtype=torch.float64)
    crossed = torch.bucketize(ONE, edges) != torch.bucketize(ONE + moved, edges)
    assert changed_share(before, after) == pytest.approx(float(crossed.double().mean()))
    assert changed_share(before, before) == 0


def test_share_by_hand_on_a_network() -> None:
    made = problem(conv(nn.ReLU(), nn.MaxPool2d(2)))
    generator = torch.Generator().manual_seed(1)
    other = made.theta0 + 0.3 * torch.randn(made.layout.size, dtype=torch.float64, generator=generator)

    def by_hand(theta):
        weight = theta[made.layout["0.weight"].slice].reshape(2, 1, 3, 3)
        bias = theta[made.layout["0.bias"].slice]
        hidden = F.conv2d(made.x, weight, bias, padding=1)
        winners = F.max_pool2d(hidden.relu(), 2, return_indices=True)[1]
        return [hidden > 0, winners]

    before, after = by_hand(made.theta0), by_hand(other)
    changed = sum(int((a != b).sum()) for a, b in zip(before, after, strict=True))
    share = changed_share(sides(made, made.theta0), sides(made, other))
    assert share == pytest.approx(changed / (before[0].numel() + before[1].numel()))
    assert 0 < share < 1


def test_a_smooth_network_has_no_sides() -> None:
    made = problem(conv(nn.Tanh()))
    assert sides(made, made.theta0) == []


def test_chunks_do_not_change_the_share() -> None:
    model = conv(nn.ReLU())
    whole = problem(model)
    parts = Problem(model, F.mse_loss, (whole.x, whole.y), chunk_size=4)
    other = whole.theta0 * 0.5 - 0.1
    shares = [changed_share(sides(p, whole.theta0), sides(p, other)) for p in (whole, parts)]
    assert shares[0] == shares[1] > 0
