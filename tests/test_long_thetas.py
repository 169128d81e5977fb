"""What is done with a long theta parameter by parameter, or some entries at a time, has the bits of all at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import nm_ode
from nm_ode.loss import directions, evaluation, sums
from nm_ode.loss.self_test import compare
from nm_ode.optimizers import steppers

OPTIMIZERS = [
    nm_ode.SGD(lr=0.05),
    nm_ode.SGD(lr=0.05, momentum=0.9, dampening=0.3, weight_decay=1e-2),
    nm_ode.SGD(lr=0.05, momentum=0.9, nesterov=True),
    nm_ode.Adam(lr=1e-2, weight_decay=1e-2),
    nm_ode.AdamW(lr=1e-2),
    nm_ode.RMSprop(lr=1e-2, momentum=0.5, centered=True),
]


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with theta so long that each vector of its size counts."""
    monkeypatch.setattr(evaluation, "IN_PLACE", 1)
    monkeypatch.setattr(directions, "_DRAWN", 32)
    monkeypatch.setattr(steppers, "_PIECE", 32)


class Partly(nn.Module):
    """A parameter that the loss does not depend on, one that is tied, one that is frozen, and a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.unread = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)
        self.size = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        return self.size * torch.tanh(self.second(torch.tanh(self.first(x) * self.frozen)))


def problem_of(model: nn.Module | None = None, chunk_size: int | None = None) -> nm_ode.Problem:
    torch.manual_seed(0)
    model = Partly() if model is None else model
    x, y = torch.randn(12, 5, dtype=torch.float64), torch.randn(12, 5, dtype=torch.float64)
    return nm_ode.Problem(model, mse_loss, (x, y), chunk_size=chunk_size)


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_a_gradient_written_where_it_belongs(monkeypatch: pytest.MonkeyPatch, chunk_size: int | None) -> None:
    problem = problem_of(chunk_size=chunk_size)
    theta = problem.theta0 + 0.1
    loss, gradient = problem.loss_and_grad(theta)
    assert gradient.abs().max() > 0
    monkeypatch.setattr(evaluation, "IN_PLACE", 1)
    out = torch.full_like(theta, float("nan"))
    again, written = problem.loss_and_grad(theta, out=out)
    assert written.data_ptr() == out.data_ptr()
    assert torch.equal(loss, again)
    assert torch.equal(problem.grad(theta), written)
    torch.testing.assert_close(written, gradient, rtol=1e-15, atol=0)
    assert (
        torch.equal(written, gradient) or chunk_size is not None
    )  # chunks: sums in another order of operations
    unread = problem.layout["unread"].slice
    assert torch.equal(written[unread], torch.zeros_like(written[unread]))


def test_a_gradient_over_theta_itself_is_that_at_theta(in_pieces: None) -> None:
    problem = problem_of()
    expected = problem.grad(problem.theta0)
    both = torch.cat([problem.theta0, torch.zeros_like(problem.theta0)])
    theta, beside = both.chunk(2)
    assert torch.equal(problem.grad(theta, out=beside), expected)
    assert torch.equal(theta, problem.theta0)
    over = problem.theta0.clone()
    assert torch.equal(problem.grad(over, out=over), expected)


def test_what_lay_in_grad_is_there_afterwards_also_if_a_pass_fails(in_pieces: None) -> None:
    class Failing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
            raise RuntimeError("no backward pass")

    problem = problem_of()
    parameters = [one for one in problem.model.parameters() if one.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 3.0)
    problem.grad(problem.theta0)
    assert all(bool((one.grad == 3.0).all()) for one in parameters if one.grad is not None)
    assert all(one.grad is not None for one in parameters)
    of = Failing.apply(problem.loss_graph())
    with pytest.raises(RuntimeError, match="no backward pass"):
        evaluation.write_derivatives(of, parameters, [torch.empty_like(one) for one in parameters])
    assert all(one.grad is not None and bool((one.grad == 3.0).all()) for one in parameters)
    assert not any(getattr(one, "_post_accumulate_grad_hooks", None) for one in parameters)


def test_hessian_products_and_third_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of()
    direction = torch.randn(problem.layout.size, dtype=torch.float64)
    product, third = (of(problem.theta0, direction) for of in (problem.hvp, problem.third_derivative))
    monkeypatch.setattr(evaluation, "IN_PLACE", 1)
    assert torch.equal(problem.hvp(problem.theta0, direction), product)
    assert torch.equal(problem.third_derivative(problem.theta0, direction), third)


@pytest.mark.parametrize("size", [31, 32, 47, 48, 49, 64, 100])
def test_random_numbers_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    like = torch.empty(size, dtype=torch.float32, device="cpu")
    whole = directions.normal(like, 3)
    source = torch.Generator("cpu").manual_seed(3)
    monkeypatch.setattr(directions, "_DRAWN", 32)
    assert torch.equal(directions.normal(like, source), whole)
    after = torch.Generator("cpu").manual_seed(3)
    torch.randn(size, generator=after, dtype=torch.float64, device="cpu")
    assert torch.equal(source.get_state(), after.get_state())


def test_sums_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    u, v, w = torch.randn(3, 100, dtype=torch.float64)
    monkeypatch.setattr(sums, "PIECE", 32)
    for found, expected in [
        (sums.norm(u), u.norm()),
        (sums.distance(u, v), (u - v).norm()),
        (sums.bend(u, v, w), (w - 2 * v + u).norm()),
        (sums.combination_error((0.3, 0.7), (u, v), w), (0.3 * u + 0.7 * v - w).norm()),
        (sums.inner(u, v), u @ v),
    ]:
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)


def test_a_wrong_derivative_of_a_long_vector_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "PIECE", 32)
    sizes = torch.linspace(1, 2, 100, dtype=torch.float64)
    steps = [1e-5 * 10.0**-k for k in range(6)]
    assert not compare(sizes, lambda s: torch.sin(s * sizes), steps, 1e-15).differs
    wrong = sizes.clone()
    wrong[70] += 1.0
    assert compare(wrong, lambda s: torch.sin(s * sizes), steps, 1e-15).differs


def same(one: xr.Dataset, other: xr.Dataset) -> bool:
    return one.data_vars.keys() == other.data_vars.keys() and all(
        np.array_equal(one[name].values, other[name].values) for name in one.data_vars
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_training_in_pieces_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, optimizer: nm_ode.optimizers.Optimizer, tmp_path: Path
) -> None:
    problem = problem_of()
    whole = nm_ode.train(problem, optimizer, 4, batch_size=5, observe=[nm_ode.Sketch(m=64)])
    warm = nm_ode.train(problem, optimizer, 3, state0=nm_ode.final_state(nm_ode.train(problem, optimizer, 4)))
    monkeypatch.setattr(steppers, "_PIECE", 32)
    assert isinstance(steppers.start(optimizer, problem.theta0), steppers._PiecewiseStepper)
    assert same(nm_ode.train(problem, optimizer, 4, batch_size=5, observe=[nm_ode.Sketch(m=64)]), whole)
    before = nm_ode.train(problem, optimizer, 4)
    assert same(nm_ode.train(problem, optimizer, 3, state0=nm_ode.final_state(before)), warm)


@pytest.mark.parametrize("first", [32, 10**6])
@pytest.mark.parametrize("optimizer", OPTIMIZERS[1:4], ids=str)
def test_a_training_goes_on_in_pieces_or_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, optimizer: nm_ode.optimizers.Optimizer, first: int
) -> None:
    problem = problem_of()
    unbroken = nm_ode.train(problem, optimizer, 5)

    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    kept = nm_ode.Checkpoint(tmp_path / "kept", every=0.0)
    monkeypatch.setattr(steppers, "_PIECE", first)
    with pytest.raises(KeyboardInterrupt):
        nm_ode.train(problem, optimizer, 5, checkpoint=kept, on_step=stop)
    monkeypatch.setattr(steppers, "_PIECE", 32 if first > 32 else 10**6)
    done: list[int] = []
    assert same(nm_ode.train(problem, optimizer, 5, checkpoint=kept, on_step=done.append), unbroken)
    assert done[0] == 3


def test_an_optimiser_that_looks_at_all_of_theta_is_given_all_of_it(in_pieces: None) -> None:
    class Normalised(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.sub_(parameter.grad / parameter.grad.norm(), alpha=group["lr"])

    class Rule(nm_ode.SGD):
        def torch_optimizer(self, parameters: object) -> torch.optim.Optimizer:  # type: ignore[override]
            return Normalised(parameters, lr=self.lr)  # type: ignore[arg-type]

    problem = problem_of()
    run = nm_ode.train(problem, Rule(lr=0.25), 2)
    assert run["update_norm"].values == pytest.approx([0.25, 0.25])


def test_a_state_that_is_kept_is_a_copy(in_pieces: None) -> None:
    state = torch.cat([torch.arange(40.0), torch.zeros(60)])
    found = steppers.kept(state)
    assert torch.equal(found, state)
    state.add_(1)
    assert torch.equal(found, torch.cat([torch.arange(40.0), torch.zeros(60)]))


def test_after_training_the_problem_holds_none_of_the_optimisers_memory() -> None:
    problem = problem_of()
    nm_ode.train(problem, nm_ode.Adam(lr=0.1), 2)
    start = problem.theta0.data_ptr()
    first = next(one for one in problem.model.parameters() if one.requires_grad)
    assert start <= first.data_ptr() < start + 8 * problem.layout.size
