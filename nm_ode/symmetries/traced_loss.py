"""A copy of a model on the CPU in float64, its loss on an example batch, and the graph of both."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nm_ode.arguments import dtype_name, first_line
from nm_ode.loss import Problem, ProblemError
from nm_ode.loss.explain import passes_through
from nm_ode.loss.guards import is_hooked
from nm_ode.loss.objective import LossFunction, Objective, Supervised
from nm_ode.loss.placing import copied, deep_copied, placed
from nm_ode.parameters import Layout, Parts, unwrapped
from nm_ode.symmetries import examples
from nm_ode.symmetries.batches import CPU, Batch, on_cpu, tensors_of, with_tensors
from nm_ode.symmetries.draws import drawn
from nm_ode.symmetries.errors import SymmetryError
from nm_ode.symmetries.evaluated import loss_at_example
from nm_ode.symmetries.graph import Graph, trace
from nm_ode.symmetries.padding import padding_rows
from nm_ode.symmetries.precision import DOUBLE, SINGLE, Precision, is_large, precision_of
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
    precision: Precision = field(init=False)

    def __post_init__(self) -> None:
        graph = trace(self.model, self.objective, self.batch, sizes=self.sizes, stops=self.stops)
        object.__setattr__(self, "graph", graph)
        object.__setattr__(self, "layout", Layout.of(self.model))
        object.__setattr__(self, "within", ranges(graph))
        object.__setattr__(self, "precision", precision_of(self.model, graph.coarsest))
        if graph.shapes:
            object.__setattr__(self, "batch", _shortened(self.batch, graph.shapes))

    @property
    def is_single(self) -> bool:
        """Is it verified in float32: too large for copies in float64, or with operations that have no float64?"""
        return self.precision.dtype != torch.float64

    def drawn_theta(self, generator: torch.Generator) -> Tensor:
        """As `drawn_parts`, in one vector."""
        return self.drawn_parts(generator).flat()

    def drawn_parts(self, generator: torch.Generator, *, spread: float = 0.3) -> Parts:
        """Near the model's own parameters, so that signals pass through deep networks; no entry zero or one.

        But for rows that stay zero, since no gradient reaches them: an embedding's padding. The parameters of a large
        model's copy become these themselves.

        Args:
            spread: how far from the model's own, relative.
        """
        still = padding_rows(self.graph)
        dtype = self.precision.dtype
        pieces: list[Tensor | None] = []
        for slot in self.layout.slots:
            own = self.model.get_parameter(slot.name).detach().to(dtype)
            size = float(own.norm()) / math.sqrt(max(own.numel(), 1)) or 0.1
            moved = torch.randn(own.shape, dtype=dtype, generator=generator, device="cpu").mul_(spread * size)
            for row in still.get(slot.name, ()):
                moved[row] = 0
            pieces.append(own.add_(moved) if self.is_single else own + moved)
        like = torch.empty(0, dtype=dtype)
        return Parts(self.layout.slots, pieces, like)

    def drawn_tensors(self, how: str, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The tensors of a batch of the example's shapes, drawn in one of the ways of `draws`.

        Raises:
            SymmetryError: none can be drawn.
        """
        tensors = tensors_of(self.batch)
        try:
            return drawn(tensors, self.within, how, generator)
        except Exception as error:
            if passes_through(error):
                raise
            given = ", ".join(f"{tuple(tensor.shape)} {dtype_name(tensor.dtype)}" for tensor in tensors)
            raise SymmetryError(
                f"no batch like the example's ({given}) can be drawn ({type(error).__name__}: {first_line(error)}): "
                "this is a defect of nm_ode, please report it"
            ) from error


def loss_of_model(
    model: nn.Module, example_input: object, loss: str | LossFunction | None, target: object, seed: int
) -> tuple[TracedLoss, str]:
    """From a user's model and example; and what is said of the loss.

    Raises:
        SymmetryError: the model cannot be traced, or its output does not go with the loss.
    """
    examples.require_model_and_loss(model, loss)
    model = unwrapped(model)
    hooked = tuple(name for name, parameter in model.named_parameters() if is_hooked(parameter))
    try:
        return _of_model(model, example_input, loss, target, seed, hooked, _dtype_of(model))
    except SymmetryError as error:
        if not _asks_for_single(error) or _dtype_of(model) == SINGLE.dtype:
            raise
        return _of_model(model, example_input, loss, target, seed, hooked, SINGLE.dtype)


def _of_model(
    model: nn.Module,
    example_input: object,
    loss: str | LossFunction | None,
    target: object,
    seed: int,
    hooked: tuple[str, ...],
    dtype: torch.dtype,
) -> tuple[TracedLoss, str]:
    given = None if dtype != torch.float64 else _copied(model)
    model = _copied(model, dtype)
    objective, batch, name = examples.loss_of_example(
        model, example_input, loss, target, least=_LEAST_SAMPLES, seed=seed
    )
    instead_of = None if given is None else (given, objective)
    return _traced(model, _placed(objective, dtype), on_cpu(batch, dtype), instead_of, hooked), name


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
    dtype = _dtype_of(given)
    objective = _placed(problem.objective, dtype)
    batch = on_cpu(problem.batch(first), dtype)
    if dtype != torch.float64:
        return _traced(given.to(dtype), objective, batch, None)
    return _traced(_copied(given, dtype), objective, batch, (given, problem.objective))


def _traced(
    model: nn.Module,
    objective: Objective,
    batch: Batch,
    instead_of: tuple[nn.Module, Objective] | None,
    hooked: tuple[str, ...] = (),
) -> TracedLoss:
    try:
        loss = TracedLoss(model, objective, batch, hooked)
    except SymmetryError:
        loss_at_example(model, objective, batch, instead_of=instead_of)  # which may say it better
        raise
    loss_at_example(model, objective, loss.batch, instead_of=instead_of)
    return loss


def _asks_for_single(error: BaseException) -> bool:
    """Is there an operation without float64 (torch says what it expected, or what there is not)?"""
    cause = error.__cause__
    return isinstance(cause, RuntimeError | TypeError | NotImplementedError) and bool(
        re.search(r"Double|float64", str(cause))
        and re.search(r"[Ee]xpected|not implemented|support", str(cause))
    )


def _dtype_of(model: nn.Module) -> torch.dtype:
    return SINGLE.dtype if is_large(model) else DOUBLE.dtype


def _shortened(batch: Batch, shapes: Sequence[tuple[int, ...]]) -> Batch:
    """The first of its samples and tokens."""
    return with_tensors(
        batch,
        [
            tensor[tuple(slice(n) for n in shape)].contiguous()
            for tensor, shape in zip(tensors_of(batch), shapes, strict=True)
        ],
    )


def _copied(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """On the CPU, in one dtype or in its own."""
    try:
        model = deep_copied(model).to(CPU) if dtype is None else copied(model, CPU, dtype)
    except ProblemError as error:
        raise SymmetryError(str(error)) from error
    except NotImplementedError as error:  # parameters without values
        raise SymmetryError(f"the model cannot be copied to the CPU ({first_line(error)})") from error
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.sparse = False
    return model


def _placed(objective: Objective, dtype: torch.dtype) -> Objective:
    """With tensors of its own (class weights) on the CPU in a dtype."""
    if isinstance(objective, Supervised):
        return Supervised(placed(objective.loss_fn, None, CPU, dtype))
    return placed(objective, None, CPU, dtype)
