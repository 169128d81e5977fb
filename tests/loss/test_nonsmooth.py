"""Which operations count as kinks, and on which side of them each unit is."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nm_ode import SGD, GradientFlow, KinkCrossings, Problem, solve, solve_info, train
from nm_ode.loss.nonsmooth import changed_share, kinks, sides
from nm_ode.models import vgg


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


def of_output(function, dtype=torch.float64) -> tuple[str, ...]:
    """Kinks of a linear network's output under a function of it and of the targets."""
    generator = torch.Generator().manual_seed(2)
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.copy_(0.4 * torch.randn(2, 4, generator=generator))
        model.bias.zero_()
    x, y = (torch.randn(24, n, dtype=torch.float64, generator=generator) for n in (4, 2))
    return kinks(Problem(model, function, (x, y), dtype=dtype))


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.saved_tensors[0] > 0)


JUMPING = {
    "SELU": lambda o, t: F.selu(o).mean(),
    "ELU, alpha = 3": lambda o, t: F.elu(o, 3.0).mean(),
    "x (x > 0)": lambda o, t: (o * (o > 0)).mean(),
    "a mask made a number": lambda o, t: (o * (o > 0).to(o)).mean(),
    "x[x > 0]": lambda o, t: o[o > 0].sum(),
    "x at the indices of x > 0": lambda o, t: o[(o > 0).nonzero(as_tuple=True)].sum(),
    "masked_select": lambda o, t: torch.masked_select(o, o > 0).sum(),
    "masked_fill": lambda o, t: o.masked_fill(o < 0, 0).mean(),
    "clamp_min": lambda o, t: torch.clamp_min(1 - o * t, 0).mean(),
    "clip in place": lambda o, t: (1 * o).clip_(max=0.1).mean(),
    "1-norm": lambda o, t: (o - t).norm(p=1),
    "1-norm of linalg": lambda o, t: torch.linalg.vector_norm(o, 1),
    "max-norm": lambda o, t: torch.linalg.vector_norm(o, float("inf")),
    "distances of p = 1": lambda o, t: torch.cdist(o, t, p=1.0).mean(),
    "pairwise distance": lambda o, t: F.pairwise_distance(o, t, p=1).mean(),
    "x sign(x)": lambda o, t: (o * o.sign()).mean(),
    "√x²": lambda o, t: o.square().sqrt().mean(),
    "copysign": lambda o, t: torch.copysign(o, t).mean(),
    "median": lambda o, t: o.median(),
    "sum of the largest": lambda o, t: o.flatten().topk(3).values.sum(),
    "margin": lambda o, t: F.multi_margin_loss(o, (t[:, 0] > 0).long()),
    "triplets": lambda o, t: F.triplet_margin_loss(o, t, t.flip(0)),
    "ranking": lambda o, t: F.margin_ranking_loss(o[:, 0], o[:, 1], t[:, 0].sign()),
    "own backward": lambda o, t: _Rectified.apply(o).mean(),
    "a branch of Python": lambda o, t: o[0, 0] if o[0, 0] > 0 else -2 * o[0, 0],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("what", JUMPING)
def test_a_gradient_that_jumps_is_no_smooth_one_by_whatever_name(what: str, dtype: torch.dtype) -> None:
    assert of_output(JUMPING[what], dtype) != ()


CONTINUOUS = {
    "softsign": lambda o, t: F.softsign(o).mean(),
    "relu(x)²": lambda o, t: F.relu(o).square().mean(),
    "x|x|": lambda o, t: (o * o.abs()).mean(),
    "smooth L1": F.smooth_l1_loss,
    "Huber by hand": lambda o, t: torch.where(
        (o - t).abs() < 1, (o - t).square() / 2, (o - t).abs() - 0.5
    ).mean(),
    "CELU": lambda o, t: F.celu(o, 2.0).mean(),
    "a softplus that does not overflow": lambda o, t: (o.clamp(min=0) + (-o.abs()).exp().log1p()).mean(),
    "a guarded norm": lambda o, t: F.normalize(o)[:, 0].square().mean(),
    "a guarded logarithm": lambda o, t: -F.softmax(o, 1)[:, 0].clamp(min=1e-8).log().mean(),
    "cosine similarity": lambda o, t: F.cosine_similarity(o, t).mean(),
    "Gaussian likelihood": lambda o, t: F.gaussian_nll_loss(o[:, 0], t[:, 0], o[:, 1].exp()),
    "a steep tanh": lambda o, t: torch.tanh(100 * o).mean(),
    "a mask of the targets": lambda o, t: (o.square() * (t > 0)).mean(),
    "an assertion": lambda o, t: o.square().mean() if (o.square() >= 0).all() else o.mean(),
    "no gradient at all": lambda o, t: 0 * o.sum(),
    "sizes of complex numbers": lambda o, t: torch.complex(o, t[:, :1].expand_as(o)).abs().mean(),
    "phases of complex numbers": lambda o, t: torch.complex(o, t[:, :1].expand_as(o)).sgn().real.mean(),
    "a 1-norm of complex numbers": lambda o, t: torch.linalg.vector_norm(
        torch.complex(o, t[:, :1].expand_as(o)), 1
    ),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("what", CONTINUOUS)
def test_a_continuous_gradient_is_smooth_whatever_it_is_made_of(what: str, dtype: torch.dtype) -> None:
    assert of_output(CONTINUOUS[what], dtype) == ()


def test_float32_inside_a_float64_network_is_no_kink() -> None:
    def rounded(o, t):
        return (o.float().tanh() * 3).to(o).square().mean()

    assert of_output(rounded) == ()


def test_a_loss_written_for_all_samples_is_measured_on_all() -> None:
    weights = torch.linspace(0, 1, 24, dtype=torch.float64)[:, None]
    assert of_output(lambda o, t: (weights * (o - t).abs()).mean()) == ("abs",)


def test_a_model_that_is_not_defined_everywhere_goes_by_names() -> None:
    def loss(o, t):
        if not torch.equal(o.detach(), seen.setdefault("first", o.detach())):
            raise ValueError("another theta")
        return o.abs().mean()

    seen: dict[str, torch.Tensor] = {}
    problem = Problem(nn.Linear(4, 2), lambda o, t: o.square().mean(), (torch.randn(3, 4), torch.randn(3, 2)))
    problem.objective.loss_fn = loss
    assert kinks(problem) == ("abs",)


def test_auto_takes_the_method_for_kinks_for_a_rectifier_written_by_hand() -> None:
    class Rectifier(nn.Module):
        def forward(self, x):
            return x * (x > 0)

    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(24, n, generator=generator) for n in (4, 2))
    hidden, output = nn.Linear(4, 8), nn.Linear(8, 2)
    infos = []
    for rectifier in (nn.ReLU(), Rectifier()):
        flow = GradientFlow(Problem(nn.Sequential(hidden, rectifier, output), F.mse_loss, (x, y)))
        infos.append(solve_info(solve(flow, [0.0, 1.0], check=False)))
    assert len({(info.engine, info.method, info.rtol, info.rhs_evaluations) for info in infos}) == 1


def test_crossings_count_the_units_that_are_kinked_and_no_others() -> None:
    made = problem(conv(nn.Softsign(), nn.Conv2d(2, 3, 3, padding=1), nn.ReLU()))
    assert len(sides(made, made.theta0)) == 2
    assert [side.shape for side in sides(made, made.theta0, kinks(made))] == [(6, 3, 4, 4)]
    run = train(made, SGD(lr=0.1), steps=1, observe=[KinkCrossings(1)])
    before, after = (sides(made, torch.from_numpy(theta), ["ReLU"]) for theta in run["theta"].values)
    assert run["crossing_share"].item() == changed_share(before, after)


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_kinks_of_many_units_are_found_in_either_precision(dtype: torch.dtype) -> None:
    """In float32 many units change sides between two neighbouring points."""
    generator = torch.Generator("cpu").manual_seed(0)
    x = torch.rand(16, 3, 16, 16, generator=generator)
    model = vgg(plan=[8, 8, "M", 16], hidden=(16,), classes=4, image=16, seed=1)
    y = torch.arange(16, device="cpu") % 4
    assert set(kinks(Problem(model, nn.functional.cross_entropy, (x, y), dtype=dtype))) == {
        "ReLU",
        "max-pooling",
    }
