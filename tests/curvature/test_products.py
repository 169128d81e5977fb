"""Products on a user's own model: against dense matrices, and what they leave behind."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from nm_ode.loss import NoSecondDerivative, ProblemError
from nm_ode.loss.objective import Supervised
from nm_ode.loss.probed import probed
from nm_ode.loss.trusted import require_true_products
from nm_ode.parameters import Layout, Parts
from tests.oracles.as_found import seen
from tests.oracles.dense import dense_hessian, dense_loss, flat_parameters
from tests.oracles.networks import MODELS


def example(kind: str, dtype: torch.dtype = torch.float64):
    """A model of one's own in train mode, and a batch."""
    build, shape = MODELS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = build().to(dtype)
        return model, (torch.randn(11, *shape, dtype=dtype), torch.randint(0, 3, (11,)))


def where_it_lies(model: nn.Module) -> tuple[Parts, Layout]:
    layout = Layout.of(model)
    parameters = dict(model.named_parameters())
    tensors = [parameters[name].detach() for name in layout.names]
    return Parts(layout.slots, tensors, tensors[0]), layout


def matrix_of(operator) -> torch.Tensor:
    return operator.matmat(torch.eye(operator.size, dtype=operator.like.dtype))


def by_differences(loss, theta: torch.Tensor, h: float = 1e-4) -> torch.Tensor:
    """Central differences of gradients, of fourth order."""

    def gradient(at: torch.Tensor) -> torch.Tensor:
        leaf = at.detach().requires_grad_()
        return torch.autograd.grad(loss(leaf), leaf)[0]

    rows = []
    for v in torch.eye(len(theta), dtype=theta.dtype):
        near, far = (gradient(theta + s * h * v) - gradient(theta - s * h * v) for s in (1, 2))
        rows.append((8 * near - far) / (12 * h))
    return torch.stack(rows, dim=1)


def of_outputs(model: nn.Module, batch) -> torch.Tensor:
    """JᵀHJ by forward-mode Jacobian and dense Hessian of the loss in the outputs."""
    x, y = batch
    layout = Layout.of(model)

    def outputs(theta: torch.Tensor) -> torch.Tensor:
        named = dict(zip(layout.names, layout.split(theta), strict=True))
        return functional_call(model, named, (x,)).reshape(-1)

    with torch.no_grad():
        shape = model(x).shape
    jacobian = torch.autograd.functional.jacobian(outputs, flat_parameters(model))
    at = outputs(flat_parameters(model)).detach()
    inner = torch.func.hessian(lambda z: F.cross_entropy(z.reshape(shape), y))(at)
    return jacobian.T @ inner @ jacobian


@pytest.mark.parametrize("kind", MODELS)
def test_hessian_products_are_those_of_the_dense_matrix(kind: str) -> None:
    model, (x, y) = example(kind)
    theta, layout = where_it_lies(model)
    dense = dense_loss(copy.deepcopy(model), F.cross_entropy, x, y)
    at = flat_parameters(model)
    if kind == "weight norm":  # neither mode of torch's own has its second derivative right
        expected = by_differences(dense, at)
    else:  # forward over reverse is wrong for LayerNorm
        expected = dense_hessian(dense, at, reverse_over_reverse="norm" in kind)
    rtol = 1e-6 if kind == "weight norm" else 1e-9
    with probed(model, Supervised(F.cross_entropy), (x, y), theta, layout) as operator:
        torch.testing.assert_close(matrix_of(operator), expected, rtol=rtol, atol=1e-2 * rtol)
        torch.testing.assert_close(operator.loss, dense(at).detach())
        leaf = at.requires_grad_()
        torch.testing.assert_close(operator.gradient, torch.autograd.grad(dense(leaf), leaf)[0])
        assert not operator.random


@pytest.mark.parametrize("kind", ["mlp", "relu", "tied", "frozen", "convolution", "attention", "weight norm"])
def test_gauss_newton_products_are_those_of_the_dense_matrix(kind: str) -> None:
    model, batch = example(kind)
    if kind == "tied":  # functional_call ties by one of the two names
        expected = None
    else:
        expected = of_outputs(model, batch)
    theta, layout = where_it_lies(model)
    objective = Supervised(F.cross_entropy)
    with probed(model, objective, batch, theta, layout, matrix="gauss_newton") as operator:
        found = matrix_of(operator)
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
        assert torch.linalg.eigvalsh((found + found.T) / 2)[0] > -1e-12
        with probed(model, objective, batch, theta, layout) as hessian:
            torch.testing.assert_close(operator.gradient, hessian.gradient)
            torch.testing.assert_close(operator.loss, hessian.loss)


class Messy(nn.Module):
    """Counts, keeps, normalises, drops, draws from three generators, holds what it made last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.spectral_norm(nn.Conv1d(1, 4, 3))
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.3)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.read = nn.Linear(4, 3)
        self.calls, self.kept, self.by_name = 0, [], {}
        self.mean = torch.zeros(4)
        self.register_buffer("largest", torch.zeros(()), persistent=False)
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, x):
        self.calls += 1
        x = torch.tanh(self.norm(self.conv(x[:, None]))).mean(-1)
        self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        self.kept.append(x.detach())
        self.by_name["last"] = x
        self.last = x
        self.largest = torch.maximum(self.largest, x.detach().abs().max())
        x = x * (1 + 0.1 * np.random.rand() + 0.1 * random.random())  # noqa: NPY002 (the global one)
        x = x + 0.01 * torch.randn(x.shape, generator=self.generator).to(x)
        return self.read(self.drop(self.frozen(x)))


def messy():
    torch.manual_seed(3)
    model = Messy()
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    F.cross_entropy(model(x), y).backward()
    model.drop.eval()
    model.frozen.training = False
    return model, (x, y)


@pytest.mark.parametrize("mode", [None, "train", "eval"])
@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_the_model_is_left_exactly_as_it_was_found(mode, matrix) -> None:
    model, batch = messy()
    teacher = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))

    def loss(out, y):
        return F.cross_entropy(out, y) + F.mse_loss(out, teacher(batch[0]).detach())

    hooked = []
    model.read.register_full_backward_hook(lambda module, got, given: hooked.append(1) or (got[0] * 2,))
    model.read.weight.register_hook(lambda grad: hooked.append(2))
    model.read.weight.register_post_accumulate_grad_hook(lambda grad: hooked.append(3))
    theta, layout = where_it_lies(model)
    values = flat_parameters(model)
    before = seen(model, teacher)
    with torch.no_grad(), torch.autocast("cpu"):
        with probed(model, Supervised(loss), batch, theta, layout, matrix=matrix, mode=mode) as operator:
            products = [operator.matvec(torch.ones(operator.size)) for _ in range(2)]
        assert torch.is_autocast_enabled("cpu")
        assert not torch.is_grad_enabled()
    assert torch.equal(*products)
    assert operator.random
    assert products[0].dtype == torch.float32
    assert torch.equal(values, flat_parameters(model))
    assert seen(model, teacher) == before
    assert not hooked


def test_it_is_left_so_after_an_error_too() -> None:
    model, batch = messy()
    theta, layout = where_it_lies(model)
    before = seen(model)

    def fails(module, batch):
        module(batch[0])
        raise KeyError("of the user's")

    with pytest.raises(KeyError), probed(model, fails, batch, theta, layout):
        pass
    assert seen(model) == before


def test_what_is_drawn_is_the_same_each_time() -> None:
    """Dropout in train mode: products are those of the loss with the seed's masks."""
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    x, y = torch.randn(9, 5, dtype=torch.float64), torch.randint(0, 3, (9,))
    theta, layout = where_it_lies(model)

    def with_masks(theta):
        torch.manual_seed(5)
        return dense_loss(model, F.cross_entropy, x, y)(theta)

    with torch.random.fork_rng():
        expected = torch.autograd.functional.hessian(with_masks, flat_parameters(model))
    for _ in range(2):
        with probed(model, Supervised(F.cross_entropy), (x, y), theta, layout, seed=5) as operator:
            torch.testing.assert_close(matrix_of(operator), expected, rtol=1e-9, atol=1e-12)
    with probed(model, Supervised(F.cross_entropy), (x, y), theta, layout, seed=6) as operator:
        assert not torch.allclose(matrix_of(operator), expected, rtol=1e-3)


def test_hooks_on_gradients_change_no_hessian() -> None:
    model, (x, y) = example("mlp")
    theta, layout = where_it_lies(model)
    with probed(model, Supervised(F.cross_entropy), (x, y), theta, layout) as operator:
        expected = matrix_of(operator)
    model[1].register_full_backward_hook(lambda module, got, given: (2 * got[0],))
    with probed(model, Supervised(F.cross_entropy), (x, y), theta, layout) as operator:
        torch.testing.assert_close(matrix_of(operator), expected)


@pytest.mark.parametrize("reentrant", [False])
def test_activation_checkpoints_compute_again_with_the_same_parameters(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=reentrant)

    model, batch = example("batch norm, train")
    plain, layout = where_it_lies(model)
    with probed(model, Supervised(F.cross_entropy), batch, plain, layout) as operator:
        expected = matrix_of(operator)
    outer = Checkpointed(model)
    theta, layout = where_it_lies(outer)
    before = seen(outer)
    with probed(outer, Supervised(F.cross_entropy), batch, theta, layout) as operator:
        torch.testing.assert_close(matrix_of(operator), expected)
    assert seen(outer) == before


def test_recurrent_networks() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.read = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.read(self.lstm(x)[0][:, -1])

    model = Last().double()
    x, y = torch.randn(7, 5, 3, dtype=torch.float64), torch.randint(0, 3, (7,))
    theta, layout = where_it_lies(model)
    dense = dense_loss(copy.deepcopy(model), F.cross_entropy, x, y)
    expected = dense_hessian(dense, flat_parameters(model), reverse_over_reverse=True)
    before = seen(model)
    with probed(model, Supervised(F.cross_entropy), (x, y), theta, layout) as operator:
        torch.testing.assert_close(matrix_of(operator), expected, rtol=1e-9, atol=1e-12)
    assert seen(model) == before


def test_half_precision_is_computed_in_float32_or_as_asked() -> None:
    model, (x, y) = example("batch norm, eval", torch.bfloat16)
    single = copy.deepcopy(model).double()
    dense = dense_loss(single, F.cross_entropy, x.double(), y)
    expected = dense_hessian(dense, flat_parameters(single), reverse_over_reverse=True)
    theta, layout = where_it_lies(model)
    with probed(model, Supervised(F.cross_entropy), (x, y), theta, layout) as operator:
        assert operator.gradient.dtype == torch.float32
        torch.testing.assert_close(matrix_of(operator).double(), expected, rtol=1e-3, atol=1e-5)
    with probed(model, Supervised(F.cross_entropy), (x, y), theta, layout, dtype=torch.float64) as operator:
        torch.testing.assert_close(matrix_of(operator), expected, rtol=1e-9, atol=1e-11)


def test_a_forward_pass_that_writes_its_parameters_or_its_batch_writes_copies() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Linear(4, 3)

        def forward(self, x):
            x.mul_(2)
            with torch.no_grad():
                self.read.weight.clamp_(-0.1, 0.1)
            return self.read(x)

    model, x, y = Writes(), torch.randn(5, 4), torch.randint(0, 3, (5,))
    theta, layout = where_it_lies(model)
    before, batch = seen(model), x.clone()
    with probed(model, Supervised(F.cross_entropy), (x, y), theta, layout) as operator:
        operator.matvec(torch.ones(operator.size))
    assert seen(model) == before
    assert torch.equal(x, batch)


def test_refusals_name_the_thing() -> None:
    model, batch = example("mlp")
    theta, layout = where_it_lies(model)

    for objective, matrix, told, error in (
        (lambda module, batch: module(batch[0]), "hessian", "scalar", ProblemError),
        (lambda module, batch: batch[0].sum(), "hessian", "does not depend", ProblemError),
        (lambda module, batch: module(batch[0]).sum(), "gauss_newton", "loss_fn", ProblemError),
    ):
        with pytest.raises(error, match=told), probed(model, objective, batch, theta, layout, matrix=matrix):
            pass
    bag = nn.Sequential(nn.EmbeddingBag(5, 3, max_norm=1.0))
    theta, layout = where_it_lies(bag)
    with pytest.raises(ProblemError, match="max_norm"), probed(bag, None, None, theta, layout):
        pass


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, given):
        return 2 * ctx.saved_tensors[0] * given


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (4 * x).round() / 4

    @staticmethod
    def backward(ctx, given):
        return given


class Apply(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("function", [Square, Rounded])
def test_products_that_are_not_the_losss_are_refused(matrix, dtype, function) -> None:
    """torch itself leaves out what it cannot differentiate, and says nothing."""
    model, batch = example("mlp", dtype)
    model = nn.Sequential(model, Apply(function), nn.Linear(3, 3).to(dtype))
    theta, layout = where_it_lies(model)
    before = seen(model)
    with pytest.raises(NoSecondDerivative, match=function.__name__):
        require_true_products(model, Supervised(F.cross_entropy), batch, theta, layout, matrix=matrix)
    assert seen(model) == before


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_products_of_torchs_own_operations_are_trusted(kind, matrix) -> None:
    for dtype in (torch.float64, torch.float32):
        model, batch = example(kind, dtype)
        theta, layout = where_it_lies(model)
        require_true_products(model, Supervised(F.cross_entropy), batch, theta, layout, matrix=matrix)


def test_what_draws_counts_and_keeps_is_trusted_and_left_as_found() -> None:
    model, batch = messy()
    theta, layout = where_it_lies(model)
    before = seen(model)
    require_true_products(model, Supervised(F.cross_entropy), batch, theta, layout)
    assert seen(model) == before
