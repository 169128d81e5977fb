"""Models of a test's own, and the charges of their translations, each held against a finite shift of theta."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode import Problem
from nm_ode.symmetries import find_symmetries
from tests.oracles.symmetry import assert_finite_transformations_leave_the_loss
from tests.symmetries.conftest import gaussian, integers

Forward = Callable[["Model", Tensor], Tensor]


class Model(nn.Module):
    """Some layers and a forward pass of the test's own."""

    def __init__(self, forward: Forward, **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.own = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self, x)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(gaussian(*shape, seed=5))


def shifts(model: nn.Module, x: Tensor, loss: str, others: Iterable[Tensor]) -> dict[str, int]:
    """Name → number of charges of the translations; of which each leaves the loss of other batches as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model.double()
        found = find_symmetries(model, x, loss)
    assert not found.defects
    translations = found.of_kind("translation")
    for batch in others:
        problem = Problem(model, *_objective(copy.deepcopy(model)(batch), batch, loss))
        assert_finite_transformations_leave_the_loss(problem, translations, size=1.0, rtol=1e-10)
    return {s.name: s.count for s in translations}


def _objective(
    output: Tensor, batch: Tensor, loss: str
) -> tuple[Callable[..., Tensor], tuple[Tensor, Tensor]]:
    """The loss, and the batch with a target for the model's output."""
    if loss == "mse":
        return F.mse_loss, (batch, gaussian(*output.shape, seed=3))
    classes = output.shape[1] if output.ndim > 1 else len(output)
    return F.cross_entropy, (batch, integers(classes, output.shape[0], *output.shape[2:], seed=3))
