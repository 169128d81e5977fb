"""A copy of a model on the CPU in float64, its loss on an example batch, and the graph of both."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode.loss import Problem
from nm_ode.loss.objective import LossFunction, Objective, Supervised
from nm_ode.loss.placing import placed
from nm_ode.parameters import Layout
from nm_ode.symmetries.batches import (
    Batch,
    at_least,
    drawn_like,
    float64_on_cpu,
    repeated,
    tensors_of,
)
from nm_ode.symmetries.errors import SymmetryError
from nm_ode.symmetries.graph import Graph, trace

_LEAST_SAMPLES = 4  # that tell a batch statistic from a constant


@dataclass(frozen=True, eq=False)
class TracedLoss:
    """objective(model, batch) with its graph.

    Raises:
        SymmetryError: the model cannot be traced.
    """

    model: nn.Module
    objective: Objective
    batch: Batch
    graph: Graph = field(init=False)
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "graph", trace(self.model, self.objective, self.batch))
        object.__setattr__(self, "layout", Layout.of(self.model))

    def drawn_theta(self, generator: torch.Generator) -> Tensor:
        """Near the model's own parameters, so that signals pass through deep networks; no entry zero or one."""
        pieces = []
        for slot in self.layout.slots:
            own = self.model.get_parameter(slot.name).detach().reshape(-1).double()
            size = float(own.square().mean().sqrt()) or 0.1
            pieces.append(own + 0.3 * size * torch.randn(own.shape, dtype=own.dtype, generator=generator))
        return torch.cat(pieces)

    def drawn_tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The tensors of a random batch of the example's shape, scale and range."""
        return tuple(drawn_like(tensor, generator) for tensor in tensors_of(self.batch))


def loss_of_model(
    model: nn.Module, example_input: Tensor, loss: str | LossFunction, target: Tensor | None, seed: int
) -> TracedLoss:
    """From a user's model and example.

    Raises:
        SymmetryError: the model cannot be traced, or its output does not go with the loss.
    """
    model = _copied(model)
    x = float64_on_cpu(torch.as_tensor(example_input))
    if x.ndim == 0 or len(x) == 0:
        raise SymmetryError(
            f"example_input has shape {tuple(x.shape)}; it must be a batch of at least one sample"
        )
    x = at_least(x, _LEAST_SAMPLES, seed)
    loss_fn, y = _loss_and_target(model, loss, x, target, seed)
    return TracedLoss(model, Supervised(loss_fn), (x, y))


def loss_of_problem(problem: Problem, samples: int) -> TracedLoss:
    """A problem on its first samples.

    Raises:
        SymmetryError: the model cannot be traced.
    """
    count = max(min(samples, problem.n_samples), _LEAST_SAMPLES)
    first = torch.arange(count) % problem.n_samples  # from the first again where there are fewer
    model = _copied(problem.model)
    with torch.no_grad():  # its own parameters, whatever theta was evaluated last
        for slot in problem.layout.slots:
            model.get_parameter(slot.name).copy_(problem.theta0[slot.slice].view(slot.shape))
    return TracedLoss(
        model,
        placed(problem.objective, None, torch.device("cpu"), torch.float64),
        float64_on_cpu(problem.batch(first)),
    )


def _copied(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to(device="cpu", dtype=torch.float64)


def _loss_and_target(
    model: nn.Module, loss: str | LossFunction, x: Tensor, target: Tensor | None, seed: int
) -> tuple[LossFunction, Tensor]:
    known: dict[str, LossFunction] = {"cross_entropy": F.cross_entropy, "mse": F.mse_loss}
    if not isinstance(loss, str):
        loss_fn = loss
        if target is None:
            raise SymmetryError("a loss of your own needs `target`, the targets of example_input")
    elif loss in known:
        loss_fn = known[loss]
    else:
        raise SymmetryError(f"loss: {loss!r} was given; it must be 'cross_entropy', 'mse' or a function")
    if target is not None:
        return loss_fn, repeated(float64_on_cpu(torch.as_tensor(target)), len(x))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        output = copy.deepcopy(model)(x)
    if not isinstance(output, Tensor) or (loss == "cross_entropy" and output.ndim < 2):
        what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise SymmetryError(f"the model returns {what}; {loss} needs a tensor of shape (samples, classes, …)")
    generator = torch.Generator().manual_seed(seed)
    if loss == "mse":
        return loss_fn, torch.randn(output.shape, dtype=torch.float64, generator=generator)
    shape = (output.shape[0], *output.shape[2:])
    return loss_fn, torch.randint(output.shape[1], shape, generator=generator)
