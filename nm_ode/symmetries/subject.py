"""What is looked at for symmetries: a copy of a model on the CPU in float64, its loss, and a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode.loss import Problem
from nm_ode.parameters import Layout
from nm_ode.symmetries.graph import Graph, SymmetryError, trace

LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
_BATCH = 4  # the least number of samples that tells a batch statistic from a constant


@dataclass(frozen=True, eq=False)
class Subject:
    """A model's loss on an example batch, with its graph."""

    model: nn.Module
    loss_fn: LossFunction
    x: Tensor
    y: Tensor
    graph: Graph = field(init=False)
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "graph", trace(self.model, self.loss_fn, self.x, self.y))
        object.__setattr__(self, "layout", Layout.of(self.model))

    def drawn_theta(self, generator: torch.Generator) -> Tensor:
        """Near the model's own parameters, so that signals pass through deep networks; no entry zero or one."""
        pieces = []
        for slot in self.layout.slots:
            own = self.model.get_parameter(slot.name).detach().reshape(-1).double()
            size = float(own.square().mean().sqrt()) or 0.1
            pieces.append(own + 0.3 * size * torch.randn(own.shape, dtype=own.dtype, generator=generator))
        return torch.cat(pieces)

    def drawn_batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch of the example's shape, scale and range."""
        return _drawn_like(self.x, generator), _drawn_like(self.y, generator)


def subject(
    model: nn.Module, example_input: Tensor, loss: str | LossFunction, target: Tensor | None, seed: int
) -> Subject:
    """From a user's model and example.

    Raises:
        SymmetryError: the model cannot be traced, or its output does not go with the loss.
    """
    model = copy.deepcopy(model).to(device="cpu", dtype=torch.float64)
    x = _at_least(_float64(example_input), _BATCH, seed)
    loss_fn, y = _loss_and_target(model, loss, x, target, seed)
    return Subject(model, loss_fn, x, y)


def subject_of(problem: Problem, samples: int) -> Subject:
    """A problem on its first samples.

    Raises:
        SymmetryError: the model cannot be traced.
    """
    model = copy.deepcopy(problem.model).to(device="cpu", dtype=torch.float64)
    loss_fn = problem.loss_fn
    if loss_fn is None:
        raise SymmetryError(
            "symmetries are searched in a loss of the short form, loss_fn(model(x), y); this problem has a general "
            "objective"
        )
    loss_fn = copy.deepcopy(loss_fn).to("cpu") if isinstance(loss_fn, nn.Module) else loss_fn
    count = max(min(samples, problem.n_samples), _BATCH)
    return Subject(
        model, loss_fn, *(_repeated(_float64(part[:count]), count) for part in (problem.x, problem.y))
    )


def _drawn_like(example: Tensor, generator: torch.Generator) -> Tensor:
    """A random batch of the example's shape, scale and range."""
    if example.is_floating_point():
        spread = float(example.std()) if example.numel() > 1 else 1.0
        noise = torch.randn(example.shape, dtype=example.dtype, generator=generator)
        return float(example.mean()) + (spread or 1.0) * noise
    if example.dtype == torch.bool:
        return torch.rand(example.shape, generator=generator) < 0.5
    low, high = int(example.min()), int(example.max())
    return torch.randint(low, high + 1, example.shape, generator=generator, dtype=example.dtype)


def _float64(tensor: Tensor) -> Tensor:
    tensor = torch.as_tensor(tensor).detach().cpu()
    return tensor.double() if tensor.is_floating_point() else tensor


def _repeated(part: Tensor, count: int) -> Tensor:
    """The first `count` samples, from the first again where there are fewer."""
    return torch.cat([part] * -(-count // len(part)))[:count]


def _at_least(x: Tensor, count: int, seed: int) -> Tensor:
    """Enough samples to tell one from another; more are drawn like those given."""
    if x.ndim == 0 or len(x) == 0:
        raise SymmetryError(
            f"example_input has shape {tuple(x.shape)}; it must be a batch of at least one sample"
        )
    if len(x) >= count:
        return x
    repeated = _repeated(x, count)
    if not x.is_floating_point():
        return repeated
    noise = torch.randn(repeated.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    return repeated + max(float(x.std()), 0.1) * noise if x.numel() > 1 else repeated + noise


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
        return loss_fn, _repeated(_float64(target), len(x))
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
