"""Gradient, Hessian product and third derivative of what torch offers, each against differences of the one below."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode.loss import NoSecondDerivative, Problem
from nm_ode.loss.derivatives import thrice_differentiable
from tests.oracles.operations import LOSSES, OPERATIONS, SAMPLES, After

aten = torch.ops.aten


def smooth(model: Any, batch: Any) -> Tensor:
    """A loss with third derivatives of its own."""
    made = model(batch)
    return (
        (0.3 * made + torch.linspace(0, 1, made.numel(), dtype=made.dtype).reshape(made.shape)).sin().mean()
    )


def errors(problem: Problem, orders: int = 3, step: float = 2e-4) -> list[float]:
    """Relative errors of ⟨g, v⟩, Hv and ∇³L[v, v] against differences of fourth order."""
    source = torch.Generator().manual_seed(1)
    theta = problem.theta0 + 0.05 * torch.randn(problem.theta0.shape, generator=source, dtype=torch.float64)
    v = torch.randn(theta.shape, generator=source, dtype=torch.float64)
    v /= v.norm()

    def slope(function: Callable[[Tensor], Tensor]) -> Tensor:
        far, near = (function(theta + k * step * v) - function(theta - k * step * v) for k in (2, 1))
        return (8 * near - far) / (12 * step)

    pairs = [
        (lambda: problem.grad(theta) @ v, problem.loss),
        (lambda: problem.hvp(theta, v), problem.grad),
        (lambda: problem.third_derivative(theta, v), lambda at: problem.hvp(at, v)),
    ]
    found = []
    for derivative, below in pairs[:orders]:
        got, want = derivative(), slope(below)
        # Piecewise linear operations have derivatives that are 0: then the one below gives the size.
        found.append(float((got - want).norm() / max(want.norm(), 1e-2 * below(theta).norm(), 1e-9)))
    return found


def problem_of(model: nn.Module, x: Tensor) -> Problem:
    return Problem.from_objective(model.double(), smooth, x)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_have_right_derivatives(name: str) -> None:
    shape, make = OPERATIONS[name]
    torch.manual_seed(0)
    problem = problem_of(After(shape, make()), torch.randn(SAMPLES, 4, dtype=torch.float64))
    assert max(errors(problem)) < 1e-6


@pytest.mark.parametrize("name", LOSSES)
def test_losses_have_right_derivatives(name: str) -> None:
    loss, targets = LOSSES[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5)).double()
    problem = Problem(model, loss, (torch.randn(SAMPLES, 4), targets))
    assert max(errors(problem)) < 1e-6


@pytest.mark.parametrize(
    ("mode", "weighted"), [("sum", False), ("sum", True), ("mean", False), ("max", False)]
)
@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("include_last", [False, True])
def test_bags_of_embeddings(mode: str, padding_idx: int | None, weighted: bool, include_last: bool) -> None:
    torch.manual_seed(0)

    class Bags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Parameter(torch.randn(7, 3, dtype=torch.float64))
            self.weights = nn.Parameter(torch.rand(9, dtype=torch.float64))

        def forward(self, indices: Tensor) -> Tensor:
            offsets = [0, 3, 3, 4, 7] + [9] * include_last  # the second bag is empty
            made = F.embedding_bag(
                indices.reshape(-1),
                self.rows,
                torch.tensor(offsets),
                mode=mode,
                padding_idx=padding_idx,
                include_last_offset=include_last,
                per_sample_weights=self.weights if weighted else None,
            )
            return torch.cat([made.reshape(-1), self.weights])

    problem = problem_of(Bags(), torch.tensor([[0, 2, 1], [2, 6, 6], [5, 0, 3]]))
    assert max(errors(problem)) < 1e-6


class _Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)
        self.layer, self.batch = nn.LayerNorm(8), nn.BatchNorm1d(8, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.batch(self.layer(self.first(x)))))


DOORS: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "exported": lambda model, x: torch.export.export(model, (x,)).module(),
    "exported, decomposed": lambda model, x: torch.export.export(model, (x,)).run_decompositions().module(),
    "traced by fx": lambda model, x: torch.fx.symbolic_trace(model),
    "compiled": lambda model, x: torch.compile(model, backend="aot_eager"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::UserWarning",
    "ignore::torch.jit.TracerWarning",
)
def test_every_way_to_call_a_normalisation_has_the_derivatives_of_the_module(door: str) -> None:
    torch.manual_seed(0)
    model, x = _Normed().double(), torch.randn(SAMPLES, 4, dtype=torch.float64)
    plain, other = problem_of(model, x), problem_of(DOORS[door](model, x), x)
    # The order of the parameters may be another.
    assert sorted(plain.theta0.tolist()) == sorted(other.theta0.tolist())
    assert max(errors(other)) < 1e-6


def test_nothing_is_left_in_torchs_tables() -> None:
    table = {
        name: dict(getattr(aten, name).default.py_kernels) for name in ("native_layer_norm", "hardsigmoid")
    }
    x = torch.randn(3, 4, requires_grad=True)
    with thrice_differentiable(), thrice_differentiable():
        assert "Hardsigmoid" not in F.hardsigmoid(x).grad_fn.name()
    with pytest.raises(ZeroDivisionError), thrice_differentiable():
        raise ZeroDivisionError
    assert "Hardsigmoid" in F.hardsigmoid(x).grad_fn.name()
    for name, before in table.items():
        assert getattr(aten, name).default.py_kernels == before


def _ctc(outputs: Tensor, targets: Tensor) -> Tensor:
    lengths = torch.full((SAMPLES,), 4), torch.full((SAMPLES,), 2)
    return F.ctc_loss(outputs.unflatten(1, (4, -1)).log_softmax(-1).transpose(0, 1), targets, *lengths)


class _Segments(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return torch.segment_reduce(h, "sum", lengths=torch.tensor([2, 4]), unsafe=True)


MISSING: dict[str, tuple[Callable[[], Problem], list[str]]] = {
    "in the loss": (
        lambda: Problem(nn.Linear(4, 12), _ctc, (torch.randn(SAMPLES, 4), torch.ones(SAMPLES, 2).long())),
        ["ctc_loss", "loss function"],
    ),
    "in a module": (
        lambda: problem_of(nn.Sequential(nn.Linear(4, 3), _Segments()), torch.randn(SAMPLES, 4).double()),
        ["segment_reduce", "'1'", "_Segments"],
    ),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_torch_has_no_second_derivative_of_is_named(name: str) -> None:
    make, words = MISSING[name]
    torch.manual_seed(0)
    problem = make()
    assert not problem.has_hessian
    assert not problem.foreign_gradient
    for ask in (problem.hvp, problem.third_derivative):
        with pytest.raises(NoSecondDerivative) as caught:
            ask(problem.theta0, problem.theta0)
        for word in [*words, "elementary operations"]:
            assert word in str(caught.value)
    assert problem.grad(problem.theta0).isfinite().all()
