"""The gradient's rounding noise, against what is known of it: the dtype inside, or a gradient in twice the digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nm_ode import Problem
from nm_ode.loss.precision import gradient_precision, takes_tf32
from nm_ode.models import mlp, vgg
from tests.oracles.networks import MODELS, make

X = torch.randn(24, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randn(24, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Inside(nn.Module):
    """RMSNorm as language models have it: in a dtype of its own."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x):
        h = x.to(self.dtype)
        return (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


class Detached(nn.Module):
    """Only a factor is computed in float32, where autograd does not look."""

    def forward(self, x):
        return x * torch.rsqrt(x.detach().float().pow(2).mean(-1, keepdim=True) + 1e-6)


class ByNumpy(torch.autograd.Function):
    """A function whose inside torch does not see."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.from_numpy(np.tanh(x.detach().numpy().astype(np.float32)).astype(np.float64))

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.from_numpy((1 - np.tanh(x.numpy().astype(np.float32)) ** 2).astype(np.float64)) * g


class Hidden(nn.Module):
    def forward(self, x):
        return ByNumpy.apply(x)


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inner(x).float()


def problem(*inner: nn.Module, dtype: torch.dtype = torch.float64, loss=nn.functional.mse_loss) -> Problem:
    torch.manual_seed(3)
    return Problem(nn.Sequential(nn.Linear(4, 8), *inner, nn.Linear(8, 2)), loss, (X, Y), dtype=dtype)


@pytest.mark.parametrize("kind", MODELS)
def test_float64_networks_have_the_noise_of_float64(kind: str) -> None:
    found = gradient_precision(make(kind)[0])
    assert found.own
    assert 1e-17 < found.noise < 1e-15


@pytest.mark.parametrize(
    "build",
    [
        lambda: problem(nn.ReLU()),
        lambda: Problem(mlp([4, 200, 200, 2], "relu"), nn.functional.mse_loss, (X, Y)),
        lambda: Problem(mlp([4, 8, 2], "tanh"), nn.functional.mse_loss, (X * 1e6, Y * 1e6)),
        lambda: Problem(mlp([4, 8, 2], "tanh"), nn.functional.mse_loss, (X * 1e-6, Y * 1e6)),
        lambda: ill_scaled(),
        lambda: Problem(zeroed(nn.Linear(4, 2)), nn.functional.mse_loss, (X, Y)),
        lambda: Problem(
            vgg(plan=(8, "M", 16, "M"), image=8, channels=1, classes=10, hidden=(32,), batch_norm=True),
            nn.functional.cross_entropy,
            (X.new_ones(6, 1, 8, 8).cumsum(0).sin(), torch.arange(6)),
        ),
    ],
    ids=["relu", "wide relu", "large data", "small inputs", "ill-scaled layers", "zero weights", "vgg"],
)
def test_no_false_alarm_for_kinks_or_scales(build) -> None:
    found = gradient_precision(build())
    assert found.own
    assert found.noise < 1e-14


def ill_scaled() -> Problem:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    with torch.no_grad():
        model[0].weight.mul_(1e8)
        model[2].weight.mul_(1e-8)
    return Problem(model, nn.functional.mse_loss, (X, Y))


def zeroed(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


@pytest.mark.parametrize(
    ("dtype", "least", "most"),
    [(torch.float32, 1e-9, 1e-7), (torch.float16, 1e-5, 1e-3), (torch.bfloat16, 1e-4, 1e-2)],
)
@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_a_coarser_dtype_inside_is_measured_and_named(dtype, activation, least: float, most: float) -> None:
    found = gradient_precision(problem(Inside(dtype), activation()))
    assert not found.own
    assert least < found.noise < most
    assert found.coarse == (f"{str(dtype).removeprefix('torch.')} in module '1' (Inside)",)


def test_the_noise_is_about_the_gradients_true_error() -> None:
    coarse, fine = problem(Inside(torch.float32), nn.Tanh()), problem(Inside(torch.float64), nn.Tanh())
    right = fine.grad(fine.theta0)
    error = float((coarse.grad(coarse.theta0) - right).norm() / right.norm())
    assert error / 10 < gradient_precision(coarse).noise < error


@pytest.mark.parametrize("inside", [Detached, Hidden])
def test_float32_that_autograd_or_torch_does_not_see(inside) -> None:
    found = gradient_precision(problem(inside()))
    assert not found.own
    assert 1e-10 < found.noise < 1e-7


def test_float32_in_the_loss_alone() -> None:
    def loss(out, y):
        return -(torch.log_softmax(out, -1, dtype=torch.float32).double() * y).mean()

    found = gradient_precision(problem(nn.Tanh(), loss=loss))
    assert found.coarse == ("float32 in the loss",)
    assert 1e-10 < found.noise < 1e-7


def test_float32_problems_have_the_noise_of_float32() -> None:
    for activation in (nn.Tanh(), nn.ReLU()):
        found = gradient_precision(problem(activation, dtype=torch.float32))
        assert found.own
        assert 1e-8 < found.noise < 1e-6
    mixed = Problem(Autocast(), nn.functional.mse_loss, (X, Y), dtype=torch.float32)
    found = gradient_precision(mixed)
    assert not found.own
    assert 1e-4 < found.noise < 1e-2


def test_what_is_computed_beside_the_loss_is_no_noise() -> None:
    class Logging(nn.Module):
        def forward(self, x):
            self.seen = float(x.detach().float().mean())
            return x

    assert gradient_precision(problem(Logging())).own


def test_it_is_measured_once() -> None:
    calls = []

    def loss(out, y):
        calls.append(len(out))
        return nn.functional.mse_loss(out, y)

    counted = problem(nn.Tanh(), loss=loss)
    found = gradient_precision(counted)
    before = len(calls)
    assert gradient_precision(counted) == found
    assert len(calls) == before


def test_tf32_is_what_torch_is_set_to() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        for convolutions, products in ((True, False), (False, True)):
            torch.backends.cudnn.allow_tf32 = convolutions
            torch.backends.cuda.matmul.allow_tf32 = products
            assert takes_tf32("cudnn_convolution") is takes_tf32("convolution") is convolutions
            assert takes_tf32("addmm") is products
            assert not takes_tf32("relu")
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
def test_convolutions_in_tf32_are_measured_and_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 36, 3))
    x, y = torch.randn(32, 3, 8, 8), torch.arange(32) % 3
    options = {"dtype": torch.float32, "device": "cuda"}
    found = gradient_precision(Problem(model, nn.functional.cross_entropy, (x, y), **options))
    assert "TF32" in found.coarse[0]
    assert 1e-6 < found.noise < 1e-2
