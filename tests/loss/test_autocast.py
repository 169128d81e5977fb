"""Mixed precision: what is rounded, what is not, and what a solver is told of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Problem, ProblemError
from nm_ode.loss.precision import gradient_precision

EPS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


def network(*more: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), *more, nn.Linear(32, 3))


def data(scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator("cpu").manual_seed(1)
    x = torch.randn(48, 6, generator=generator, device="cpu")
    return x * scale, (x[:, 0] > 0).long() + (x[:, 1] > 1).long()


def made(autocast: Any, **options: Any) -> Problem:
    return Problem(network(), F.cross_entropy, data(), dtype=torch.float32, autocast=autocast, **options)


def by_hand(autocast: str, theta: Tensor) -> tuple[Tensor, Tensor]:
    model = network()
    nn.utils.vector_to_parameters(theta, model.parameters())
    x, y = data()
    with torch.autocast("cpu", getattr(torch, autocast)):
        loss = F.cross_entropy(model(x), y)
    scale = 2.0**10
    (loss * scale).backward()
    return loss.detach(), torch.cat([one.grad.flatten() for one in model.parameters()]) / scale


@pytest.mark.parametrize("autocast", ["bfloat16", "float16"])
def test_loss_and_gradient_are_those_of_torch_under_autocast(autocast: str) -> None:
    problem = made(autocast)
    loss, gradient = problem.loss_and_grad(problem.theta0)
    assert loss.dtype == gradient.dtype == problem.theta0.dtype == torch.float32
    wanted = by_hand(autocast, problem.theta0)
    torch.testing.assert_close(loss, wanted[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(
        gradient, wanted[1], rtol=0.02, atol=float(gradient.norm()) * EPS[autocast] / 8
    )
    exact = made(None).grad(problem.theta0)
    error = float((gradient - exact).norm() / exact.norm())
    assert 0.02 * EPS[autocast] < error < 3 * EPS[autocast]
    assert torch.equal(gradient, problem.grad(problem.theta0))


def test_a_solvers_tolerance_knows_the_rounding_and_where_it_comes_from() -> None:
    problem = made("bfloat16")
    precision = gradient_precision(problem)
    assert 0.02 * EPS["bfloat16"] < precision.noise < 3 * EPS["bfloat16"]
    assert any("bfloat16 in module '0' (Linear)" in one for one in precision.coarse)
    with pytest.raises(nm_ode.NmOdeError, match=r"rtol = 1e-05 is below what this field holds"):
        nm_ode.solve(nm_ode.GradientFlow(problem), t=[0.0, 1.0], rtol=1e-5)


def test_hessian_products_and_checks_are_in_float32() -> None:
    problem, exact = made("bfloat16"), made(None)
    v = torch.linspace(-1, 1, problem.layout.size)
    assert problem.foreign_gradient == ""
    torch.testing.assert_close(
        problem.hvp(problem.theta0, v), exact.hvp(exact.theta0, v), rtol=1e-6, atol=1e-7
    )
    torch.testing.assert_close(
        problem.third_derivative(problem.theta0, v),
        exact.third_derivative(exact.theta0, v),
        rtol=1e-6,
        atol=1e-7,
    )
    assert problem.reduction == "mean"


def test_a_foreign_gradient_is_seen_through_the_rounding() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x)
            return out + out.detach() ** 2

    problem = Problem(Detached(), F.cross_entropy, data(), dtype=torch.float32, autocast="bfloat16")
    assert "not this loss's" in problem.foreign_gradient


def test_small_gradients_do_not_vanish_in_float16_and_large_ones_do_not_overflow() -> None:
    for factor in (1e-6, 1e4, 1e7):

        def loss_fn(output: Tensor, target: Tensor, factor: float = factor) -> Tensor:
            return factor * F.cross_entropy(output, target)

        problems = [
            Problem(network(), loss_fn, data(), dtype=torch.float32, autocast=autocast)  # type: ignore[arg-type]
            for autocast in ("float16", None)
        ]
        gradient, exact = (one.grad(one.theta0) for one in problems)
        assert float((gradient - exact).norm()) < 3 * EPS["float16"] * float(exact.norm())
    far = problems[0].theta0 * 50  # where the gradient is another
    gradient, exact = (one.grad(far) for one in problems)
    assert float((gradient - exact).norm()) < 0.1 * float(exact.norm())


def test_what_float16_cannot_hold_is_said() -> None:
    x, y = data(1e5)
    problem = Problem(network(), F.cross_entropy, (x, y), dtype=torch.float32, autocast="float16")
    with pytest.raises(nm_ode.NmOdeError, match="take autocast='bfloat16'"):
        nm_ode.train(problem, nm_ode.SGD(lr=0.1), 2)
    with pytest.raises(nm_ode.NmOdeError, match="take autocast='bfloat16'"):
        nm_ode.solve(nm_ode.GradientFlow(problem), t=[0.0, 1.0])


def test_runs_chunks_and_members_are_under_autocast_too() -> None:
    problem, chunked = made("bfloat16"), made("bfloat16", chunk_size=13)
    optimizer = nm_ode.SGD(lr=0.1)
    run = nm_ode.train(problem, optimizer, 4, batch_size=16, seed=2)
    for step, batch in enumerate(nm_ode.run_info(run).grid.batches):
        theta = torch.from_numpy(run.theta.values[step]).float()
        np.testing.assert_array_equal(run.loss[step], problem.loss_and_grad(theta, batch)[0])
    torch.testing.assert_close(chunked.loss(problem.theta0), problem.loss(problem.theta0), rtol=1e-4, atol=0)
    with pytest.raises(ProblemError, match="under autocast to bfloat16"):
        nm_ode.train(problem, optimizer, 4, batch_size=16, members=nm_ode.Members(seed=[2, 3]))
    assert nm_ode.run_info(run).autocast == "bfloat16"
    members = nm_ode.Members(seed=[2, 3], vectorise="auto")
    runs = nm_ode.train(problem, optimizer, 4, batch_size=16, members=members)
    np.testing.assert_array_equal(nm_ode.member_run(runs, 0).theta, run.theta)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"autocast": "float8"}, "'bfloat16', 'float16' or None"),
        ({"autocast": "bfloat16", "dtype": torch.float64}, "needs parameters in float32"),
    ],
)
def test_what_autocast_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ProblemError, match=said):
        Problem(network(), F.cross_entropy, data(), **{"dtype": torch.float32, **options})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
@pytest.mark.parametrize("autocast", ["bfloat16", "float16"])
def test_on_a_gpu_the_rounding_is_no_more(autocast: str) -> None:
    there, exact = made(autocast, device="cuda"), made(None)
    gradient, wanted = there.grad(there.theta0).cpu(), exact.grad(exact.theta0)
    assert float((gradient - wanted).norm()) < 3 * EPS[autocast] * float(wanted.norm())
    run = nm_ode.train(there, nm_ode.SGD(lr=0.1), 4, batch_size=16)
    assert np.isfinite(run.loss).all()
