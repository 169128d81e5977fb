"""What a loss holds of its own: parameters, tensors, other names for the model's; and losses torch cannot look into."""

from __future__ import annotations

import copy
import functools
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode import Problem, ProblemError
from tests.loss.doing import X, Y, around


def test_a_buffer_or_a_loss_with_a_second_name_is_refused() -> None:
    model = around(nn.Linear(8, 2))
    weight = model[0].weight.detach()
    with pytest.raises(ProblemError, match=r"'0.weight'"):
        Problem(model, lambda o, t: F.mse_loss(o, t) + weight.square().sum(), (X, Y))
    model[0].register_buffer("held", weight)
    with pytest.raises(ProblemError, match=r"'0.weight'"):
        Problem(model, F.mse_loss, (X, Y))


def test_a_penalty_on_the_parameters_of_the_original_is_refused() -> None:
    model = around(nn.Linear(8, 2))
    with pytest.raises(ProblemError, match="not in theta"):
        Problem(
            model, lambda o, t: F.mse_loss(o, t) + sum(p.square().sum() for p in model.parameters()), (X, Y)
        )
    frozen = copy.deepcopy(model).requires_grad_(False)
    Problem(model, lambda o, t: F.mse_loss(o, t) + F.mse_loss(o, frozen(X[: len(o)])), (X, Y))


def test_a_scripted_loss_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit's own
        scripted = torch.jit.script(nn.MSELoss())
    with pytest.raises(ProblemError, match=r"torch\.jit"):
        Problem(around(nn.Linear(8, 2)), scripted, (X, Y))


class Scaled(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, out: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(out * self.scale, y)


def test_a_loss_with_parameters_of_its_own_is_refused_unless_they_are_frozen() -> None:
    with pytest.raises(ProblemError, match="trainable parameter 'scale'"):
        Problem(nn.Linear(4, 2), Scaled(), (X, Y))
    problem = Problem(nn.Linear(4, 2), Scaled().requires_grad_(False), (X, Y))
    assert problem.layout.size == 10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_tensors_of_a_loss_follow_the_problems_dtype(dtype: torch.dtype) -> None:
    weight, classes = torch.tensor([1.0, 3.0]), torch.arange(24) % 2
    model = nn.Linear(4, 2)
    output = copy.deepcopy(model).to(dtype)(X.to(dtype))
    expected = float(F.cross_entropy(output, classes, weight=weight.to(dtype)).detach())
    for other in (torch.float32, torch.float64):
        module = nn.CrossEntropyLoss(weight=weight.to(other))
        for loss in (
            module,
            module.forward,
            functools.partial(module),
            functools.partial(F.cross_entropy, weight=weight.to(other)),
        ):
            problem = Problem(model, loss, (X, classes), dtype=dtype)
            assert float(problem.loss(problem.theta0)) == pytest.approx(expected, rel=1e-6)
        assert module.weight.dtype == other  # the caller's own stays
    with pytest.raises(ProblemError, match="float64 here"):
        Problem(model, lambda out, y: F.cross_entropy(out, y, weight=weight), (X, classes))
