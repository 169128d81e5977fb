"""A copy of a model on the CPU in float64, its loss on an example batch, and the graph of both."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nm_ode.loss import Problem
from nm_ode.loss.objective import LossFunction, Objective
from nm_ode.loss.placing import deep_copied
from nm_ode.parameters import Layout, unwrapped
from nm_ode.symmetries import examples
from nm_ode.symmetries.batches import Batch, float64_on_cpu, tensors_of
from nm_ode.symmetries.draws import drawn
from nm_ode.symmetries.errors import SymmetryError
from nm_ode.symmetries.evaluated import loss_in_float64
from nm_ode.symmetries.graph import Graph, trace
from nm_ode.symmetries.padding import padding_rows
from nm_ode.symmetries.ranges import Range, ranges

_LEAST_SAMPLES = 4  # that tell a batch statistic from a constant


@dataclass(frozen=True, eq=False)
class TracedLoss:
    """objective(model, batch) with its graph.

    Attributes:
        hooked: parameters whose gradients a hook of the caller's may change.
        sizes, stops: as of `trace`.

    Raises:
        SymmetryError: the model cannot be traced.
    """

    model: nn.Module
    objective: Objective
    batch: Batch
    hooked: tuple[str, ...] = ()
    sizes: bool = True
    stops: bool = False
    graph: Graph = field(init=False)
    layout: Layout = field(init=False)
    within: dict[int, Range] = field(init=False)

    def __post_init__(self) -> None:
        graph = trace(self.model, self.objective, self.batch, sizes=self.sizes, stops=self.stops)
        object.__setattr__(self, "graph", graph)
        object.__setattr__(self, "layout", Layout.of(self.model))
        object.__setattr__(self, "within", ranges(graph))

    def drawn_theta(self, generator: torch.Generator) -> Tensor:
        """Near the model's own parameters, so that signals pass through deep networks; no entry zero or one.

        But for rows that stay zero, since no gradient reaches them: an embedding's padding.
        """
        still = padding_rows(self.graph)
        pieces = []
        for slot in self.layout.slots:
            own = self.model.get_parameter(slot.name).detach().double()
            size = float(own.square().mean().sqrt()) or 0.1
            noise = torch.randn(own.numel(), dtype=own.dtype, generator=generator, device="cpu")
            moved = own + 0.3 * size * noise.reshape(own.shape)
            for row in still.get(slot.name, ()):
                moved[row] = own[row]
            pieces.append(moved.reshape(-1))
        return torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.float64)

    def drawn_tensors(self, how: str, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The tensors of a batch of the example's shapes, drawn in one of the ways of `draws`."""
        return drawn(tensors_of(self.batch), self.within, how, generator)


def loss_of_model(
    model: nn.Module, example_input: object, loss: str | LossFunction | None, target: object, seed: int
) -> tuple[TracedLoss, str]:
    """From a user's model and example; and what is said of the loss.

    Raises:
        SymmetryError: the model cannot be traced, or its output does not go with the loss.
    """
    examples.require_model(model)
    examples.require_constant_loss(loss, model)
    model = unwrapped(model)
    hooked = tuple(name for name, parameter in model.named_parameters() if _is_hooked(parameter))
    given, model = _copied(model), _copied(model)
    model = model.to(torch.float64)
    objective, batch, name = examples.loss_of_example(
        model, example_input, loss, target, least=_LEAST_SAMPLES, seed=seed
    )
    own = _of_float64(objective)
    loss_in_float64(model, own, batch, instead_of=(given, objective))
    return TracedLoss(model, own, batch, hooked), name


def loss_of_problem(problem: Problem, samples: int) -> TracedLoss:
    """A problem on its first samples.

    Raises:
        SymmetryError: the model cannot be traced.
    """
    if not isinstance(problem, Problem):
        raise SymmetryError(
            f"symmetries_of takes a Problem; {type(problem).__name__} was given (of a model and an example: "
            "find_symmetries)"
        )
    count = max(min(samples, problem.n_samples), _LEAST_SAMPLES)
    first = (
        torch.arange(count, device="cpu") % problem.n_samples
    )  # from the first again where there are fewer
    given = _copied(problem.model)
    with torch.no_grad():  # its own parameters, whatever theta was evaluated last
        for slot in problem.layout.slots:
            given.get_parameter(slot.name).copy_(problem.theta0[slot.slice].view(slot.shape))
    model = _copied(given).to(torch.float64)
    objective, batch = _of_float64(problem.objective), float64_on_cpu(problem.batch(first))
    loss_in_float64(model, objective, batch, instead_of=(given, problem.objective))
    return TracedLoss(model, objective, batch)


def _copied(model: nn.Module) -> nn.Module:
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise SymmetryError(f"parameter {name!r} has no shape yet: run the model once on an input first")
    try:
        model = deep_copied(model).to(device="cpu")
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        raise SymmetryError(
            f"the model cannot be copied ({error}): a module keeps an attribute that copy.deepcopy cannot take"
        ) from error
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.sparse = False
            if module.max_norm is not None:
                raise SymmetryError(
                    f"{type(module).__name__} with max_norm rescales its weights in the forward pass, so the loss is "
                    "no function of its parameters; leave max_norm out"
                )
    return model


def _is_hooked(parameter: nn.Parameter) -> bool:
    """By `register_hook` or its kin, which a copy of the model does not keep."""
    return bool(parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None))


def _of_float64(objective: Objective) -> Objective:
    """A copy of an objective with tensors of its own (class weights) on the CPU in float64."""
    if not isinstance(objective, nn.Module):
        return objective
    return copy.deepcopy(objective).to(torch.device("cpu"), torch.float64)
