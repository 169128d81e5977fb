"""Small networks, one for each kind of layer whose derivatives are tested."""

from __future__ import annotations

import copy

import torch
from torch import nn

from nm_ode import Problem
from tests.oracles.dense import dense_loss


class OnceRelu(torch.autograd.Function):
    """ReLU with the right derivative, written by hand, and only the first."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (x > 0)


class Reversed(torch.autograd.Function):
    """The identity, whose gradient is turned round."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -grad


class Sign(torch.autograd.Function):
    """Straight through."""

    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, grad):
        return grad


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(5, 5)
        self.decode = nn.Linear(5, 5)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(torch.tanh(self.encode(x)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.read = nn.Linear(4, 3)

    def forward(self, x):
        x = self.norm(x.reshape(len(x), 2, 4))
        return self.read(self.attend(x, x, x, need_weights=False)[0].mean(dim=1))


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    model[0].weight.requires_grad_(False)
    return model


def batch_norm_eval() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))
    model(torch.randn(50, 5, generator=torch.Generator().manual_seed(0)) + 1)  # running statistics of its own
    return model.eval()


def weight_norm() -> nn.Module:
    norm = nn.utils.parametrizations.weight_norm
    return nn.Sequential(norm(nn.Linear(5, 4)), nn.Tanh(), norm(nn.Linear(4, 3), dim=1))


def with_unused() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 3))
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    return model


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), (5,)),
    "gelu": (lambda: nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)), (5,)),
    "relu": (lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), (5,)),
    "tied": (Tied, (5,)),
    "frozen": (frozen, (5,)),
    "unused parameter": (with_unused, (5,)),
    "batch norm, eval": (batch_norm_eval, (5,)),
    "batch norm, train": (lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), (5,)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)), (5,)),
    "group norm": (lambda: nn.Sequential(nn.Linear(5, 4), nn.GroupNorm(2, 4), nn.Linear(4, 3)), (5,)),
    "rms norm": (lambda: nn.Sequential(nn.Linear(5, 4), nn.RMSNorm(4), nn.Linear(4, 3)), (5,)),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3, 3)),
        (2, 3, 3),
    ),
    "instance norm": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.InstanceNorm2d(3, affine=True), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
        ),
        (2, 3, 3),
    ),
    "attention": (Attention, (8,)),
    "weight norm": (weight_norm, (5,)),
}


def make(kind: str, dtype: torch.dtype = torch.float64, **options):
    """A problem on 11 samples, its loss by torch.func, and a theta that is not its start."""
    build, shape = MODELS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = build()
        x = torch.randn(11, *shape, dtype=dtype)
        y = torch.randint(0, 3, (11,))
    problem = Problem(model, nn.functional.cross_entropy, (x, y), dtype=dtype, **options)
    dense = dense_loss(copy.deepcopy(model).to(dtype), nn.functional.cross_entropy, x, y)
    theta = problem.theta0 + 0.1 * torch.randn(
        problem.layout.size, dtype=dtype, generator=torch.Generator().manual_seed(1)
    )
    return problem, dense, theta
