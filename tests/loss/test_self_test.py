"""Backward passes that are not the derivative of the forward pass: found by differences, and said or refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode
from nm_ode.charges import LawError
from nm_ode.comparison import summary
from nm_ode.loss import NoSecondDerivative, Problem
from nm_ode.loss.self_test import compare, line
from nm_ode.loss.spectrum import sharpness
from nm_ode.parameters import Layout, Slot
from nm_ode.reporting.words import flow_sentences
from tests.oracles.networks import Reversed, Sign

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
Y = torch.randn(24, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


class Swish(torch.autograd.Function):
    """Keeps what depends on the input on ctx, where autograd does not see it."""

    @staticmethod
    def forward(ctx, x):
        ctx.s = torch.sigmoid(x)
        ctx.save_for_backward(x)
        return x * ctx.s

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (ctx.s * (1 + x * (1 - ctx.s)))


class SwishSlope(torch.autograd.Function):
    """The derivative of swish, with a right derivative of its own that is taken for a constant."""

    @staticmethod
    def forward(ctx, x):
        s = torch.sigmoid(x)
        ctx.slope = s * (1 - s) * (2 + x * (1 - 2 * s))
        return s * (1 + x * (1 - s))

    @staticmethod
    def backward(ctx, g):
        return g * ctx.slope


class SwishTwice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * SwishSlope.apply(x)


class SwishRight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return g * (s * (1 + x * (1 - s)))


class Apply(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Named(Apply):
    """Its name is looked for in messages."""


def detached(h: Tensor) -> Tensor:
    return h / (1 + h.norm(dim=1, keepdim=True).detach())


def without_gradients(h: Tensor) -> Tensor:
    with torch.no_grad():
        size = 1 + h.norm(dim=1, keepdim=True)
    return h / size


def rounded(h: Tensor) -> Tensor:
    return h + ((16 * h).round() / 16 - h).detach()


def in_float32(h: Tensor) -> Tensor:
    x = h.float()
    return (x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()).to(h.dtype)


def network(function, width: int = 8) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, width), Named(function), nn.Linear(width, 2))


def problem(function, dtype: torch.dtype = torch.float64, width: int = 8) -> Problem:
    return Problem(network(function, width), F.mse_loss, (X, Y), dtype=dtype)


FOREIGN = {
    "reversed": (Reversed.apply, "Reversed"),
    "straight through": (Sign.apply, "Sign"),
    "detached": (detached, "detached"),
    "without gradients": (without_gradients, "without gradients"),
    "rounded": (rounded, "detached"),
    "data": (lambda h: h * h.data.sigmoid(), "detached"),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_gradient_that_is_not_the_losss_is_named_and_has_no_hessian(name: str, dtype: torch.dtype) -> None:
    function, word = FOREIGN[name]
    made = problem(function, dtype)
    for part in ("not this loss's", word, "'1'", "Named"):
        assert part in made.foreign_gradient
    assert not made.has_hessian
    for ask in (made.hvp, made.third_derivative, made.subset(slice(0, 4)).hvp):
        with pytest.raises(NoSecondDerivative, match="not this loss's"):
            ask(made.theta0, made.theta0)
    with pytest.raises(NoSecondDerivative):
        sharpness(made, made.theta0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_custom_function_with_a_wrong_second_derivative_is_refused(dtype: torch.dtype) -> None:
    made = problem(Swish.apply, dtype)
    assert not made.foreign_gradient
    for ask in (made.hvp, made.third_derivative):
        with pytest.raises(NoSecondDerivative, match=r"Swish in module '1' \(Named\)"):
            ask(made.theta0, made.theta0)


def test_a_custom_function_with_a_wrong_third_derivative_has_products_alone() -> None:
    made, right = problem(SwishTwice.apply), problem(F.silu)
    torch.testing.assert_close(made.hvp(made.theta0, made.theta0), right.hvp(right.theta0, right.theta0))
    with pytest.raises(NoSecondDerivative, match=r"third derivative.*SwishTwice"):
        made.third_derivative(made.theta0, made.theta0)


def test_a_custom_function_with_right_derivatives_is_taken() -> None:
    made, right = problem(SwishRight.apply), problem(F.silu)
    for ask in ("hvp", "third_derivative"):
        torch.testing.assert_close(
            getattr(made, ask)(made.theta0, made.theta0), getattr(right, ask)(right.theta0, right.theta0)
        )


ORDINARY = {
    "relu": (F.relu, 64),
    "max": (lambda h: F.max_pool1d(h, 2).repeat(1, 2), 8),
    "float32 inside": (in_float32, 8),
    "float32 and kinks": (lambda h: in_float32(h).relu(), 64),
    "bfloat16 inside": (lambda h: (h.bfloat16() * 2).relu().to(h.dtype), 64),
    "checkpointed": (lambda h: torch.utils.checkpoint.checkpoint(torch.tanh, h, use_reentrant=False), 8),
    "shift that cancels": (lambda h: (h - h.amax(1, keepdim=True).detach()).softmax(1), 8),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ORDINARY)
def test_kinks_and_rounding_raise_no_alarm(name: str, dtype: torch.dtype) -> None:
    function, width = ORDINARY[name]
    for scale in (1.0, 4.0):
        model = network(function, width)
        for parameter in model.parameters():
            parameter.data *= scale
        made = Problem(model, F.mse_loss, (X, Y), dtype=dtype)
        assert not made.foreign_gradient
        assert made.hvp(made.theta0, made.theta0).shape == made.theta0.shape
        made.third_derivative(made.theta0, made.theta0)


def test_a_padding_row_that_training_does_not_move_is_no_error() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4, padding_idx=2), nn.Flatten(), nn.Tanh(), nn.Linear(12, 2))
    indices = torch.randint(0, 7, (24, 3))
    assert Problem(model, F.mse_loss, (indices, Y)).has_hessian
    model[0].scale_grad_by_freq = True
    assert "'0' (Embedding)" in Problem(model, F.mse_loss, (indices, Y)).foreign_gradient


class Frozen(nn.Module):
    """The first layer has no gradient, though it is a trainable one."""

    def __init__(self, how) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)
        self.how = how

    def forward(self, x):
        return self.second(torch.tanh(self.how(self.first, x)))


def in_no_grad(layer: nn.Linear, x: Tensor) -> Tensor:
    with torch.no_grad():
        return layer(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("how", "names"),
    [
        (in_no_grad, ("first.weight", "first.bias")),
        (lambda layer, x: layer(x).detach(), ("first.weight", "first.bias")),
        (lambda layer, x: F.linear(x, layer.weight, layer.bias.detach()), ("first.bias",)),
        (lambda layer, x: F.linear(x, layer.weight.data, layer.bias), ("first.weight",)),
    ],
)
def test_a_parameter_without_any_gradient_is_named_unless_it_is_held_constant(how, names, dtype) -> None:
    made = Problem(Frozen(how), F.mse_loss, (X, Y), dtype=dtype)
    assert not made.has_hessian
    for name in (*names, "requires_grad_(False)"):
        assert name in made.foreign_gradient
    model = Frozen(how)
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    assert Problem(model, F.mse_loss, (X, Y), dtype=dtype).has_hessian


def test_a_parameter_that_the_loss_does_not_use_is_no_error() -> None:
    model = Frozen(lambda layer, x: F.linear(x, layer.weight))
    assert Problem(model, F.mse_loss, (X, Y)).has_hessian


def test_the_callers_random_numbers_stay_as_they_are() -> None:
    made = problem(F.relu)
    state = torch.get_rng_state()
    made.third_derivative(made.theta0, made.theta0)
    assert torch.equal(torch.get_rng_state(), state)


def test_runs_and_flows_of_a_foreign_gradient_say_so_and_claim_nothing() -> None:
    made = problem(detached)
    optimizer = nm_ode.SGD(lr=0.05)
    run = nm_ode.train(made, optimizer, steps=20)
    assert nm_ode.run_info(run).foreign_gradient == made.foreign_gradient != ""
    flows = {
        flow.name: nm_ode.solve(flow, run, rtol=1e-8)
        for flow in (nm_ode.GradientFlow(made), nm_ode.modified_flow(made, optimizer, 3, "iterated_map"))
    }
    # The iterated map needs no Hessian: it follows whatever field the run follows.
    errors = {name: float(nm_ode.compare(run, flow).error[-1]) for name, flow in flows.items()}
    assert errors["modified_3_iterated_map"] < 0.05 * errors["gradient"]
    assert all(nm_ode.solve_info(flow).foreign_gradient == made.foreign_gradient for flow in flows.values())
    with pytest.raises(NoSecondDerivative, match="not this loss's"):
        nm_ode.solve(nm_ode.modified_flow(made, optimizer, 2, "hessian"), run)
    with pytest.raises(NoSecondDerivative, match="not this loss's"):
        nm_ode.train(made, optimizer, steps=2, observe=[nm_ode.Curvature()])


def test_laws_of_charges_are_refused_for_a_foreign_gradient() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Apply(Reversed.apply), nn.Linear(6, 2))
    plain = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Identity(), nn.Linear(6, 2))
    found = nm_ode.find_symmetries(plain, X, loss="mse")
    made = Problem(model, F.mse_loss, (X, Y))
    run = nm_ode.train(made, nm_ode.SGD(lr=0.02), steps=5, observe=[nm_ode.Charges(found)])
    with pytest.raises(LawError, match="Reversed"):
        nm_ode.predict_charges(run, "exact")
    # With the recorded ⟨g, ξ⟩ the exact law holds for any field.
    law = nm_ode.predict_charges(run, "exact", with_residual=True)
    np.testing.assert_allclose(law.charge.values, run.charge.values, atol=1e-12)


def test_an_implicit_method_does_without_products_that_are_not_there() -> None:
    made, times = problem(detached), [0.0, 0.5]
    implicit = nm_ode.solve(nm_ode.GradientFlow(made), times, engine="sundials", method="BDF", rtol=1e-8)
    explicit = nm_ode.solve(nm_ode.GradientFlow(made), times, engine="scipy", method="DOP853", rtol=1e-10)
    np.testing.assert_allclose(implicit.theta.values[-1], explicit.theta.values[-1], atol=1e-6)


def test_differences_of_a_known_function() -> None:
    """sin with its own slope, with another, and with rounding that hides the difference."""
    steps = (1e-2, 1e-3, 1e-4, 1e-5)

    def sin(s: float) -> Tensor:
        return torch.tensor([0.3 + s], dtype=torch.float64).sin()

    def steps_of(size: float):
        return lambda s: (sin(s) / size).round() * size

    slope = torch.tensor([0.3], dtype=torch.float64).cos()
    assert not compare(slope, sin, steps, 1e-15).differs
    found = compare(1.01 * slope, sin, steps, 1e-15)
    assert found.differs
    assert found.error == pytest.approx(0.01 / 1.01, rel=1e-3)
    assert compare(slope * float("nan"), sin, steps, 1e-15).differs
    assert not compare(1.01 * slope, steps_of(1e-4), steps, 1e-4).differs


def test_a_line_leaves_out_what_has_no_gradient() -> None:
    theta = torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0], dtype=torch.float64)
    gradient = torch.tensor([1.0, -2.0, 0.0, 1e-3, 0.0], dtype=torch.float64)
    layout = Layout((Slot("weight", (3,), 0), Slot("bias", (2,), 3)))
    found = line(theta, layout, lambda _: gradient)
    point, direction = found.point, found.direction
    assert ((direction != 0) == (gradient != 0)).all()
    apart = Layout((Slot("weight", (2,), 0), Slot("scale", (1,), 2), Slot("bias", (2,), 3)))
    assert (line(theta, apart, lambda _: gradient).direction != 0).tolist() == [True, True, True, True, False]
    assert torch.linalg.vector_norm(direction) == pytest.approx(float(torch.linalg.vector_norm(point)))
    assert 0 < float((point - theta).abs().max()) < 0.2
    assert gradient @ direction > 0


def test_a_report_says_that_the_gradient_is_foreign() -> None:
    import xarray as xr

    made = problem(detached)
    run = nm_ode.train(made, nm_ode.SGD(lr=0.05), steps=5)
    flow = nm_ode.solve(nm_ode.GradientFlow(made), run)
    rows = summary(xr.DataTree.from_dict({"discrete": run, "flows/gradient": flow}))
    assert any(sentence.warns and "detached" in sentence.text for sentence in flow_sentences(rows))
