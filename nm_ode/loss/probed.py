"""The loss of a fixed batch at one theta, evaluated on a model that somebody else trains: gradient and products.

One forward pass and one gradient are kept with their graphs, and each product is a backward pass over them: so all
products are of one and the same loss, whatever the model draws or counts in a forward pass, and the parameters that the
user's hooks and optimiser know are not among the leaves.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nm_ode.data.sources import place
from nm_ode.data.trees import map_leaves
from nm_ode.loss import guards, no_hessian
from nm_ode.loss.as_found import AsFound
from nm_ode.loss.derivatives import Differentiable
from nm_ode.loss.forward_passes import described
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.objective import Objective, Supervised, require_pair
from nm_ode.loss.operators import SymmetricOperator
from nm_ode.modes import own_modes
from nm_ode.parameters import Layout, Parts, Vector

Matrix: TypeAlias = Literal["hessian", "gauss_newton"]
"""∇²L, or JᵀHJ with J of the model's outputs and H of the loss in them."""

Mode: TypeAlias = Literal["train", "eval"]
"""Of a module."""


class Probed(SymmetricOperator):
    """One loss at one theta.

    Attributes:
        loss: a scalar on the device.
        gradient: shape (P,).
        random: were random numbers drawn for it? They are the same ones each time.
    """

    loss: Tensor
    gradient: Tensor
    random: bool

    @property
    def size(self) -> int:
        """P."""
        return self.gradient.numel()

    @property
    def like(self) -> Tensor:
        """The gradient."""
        return self.gradient

    @abstractmethod
    def matvec(self, v: Tensor) -> Tensor:
        """A v, shape (P,)."""


@contextmanager
def leaves_in_place(
    model: nn.Module,
    objective: Objective,
    theta: Vector,
    layout: Layout,
    *,
    mode: Mode | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> Iterator[tuple[AsFound, list[Tensor]]]:
    """A context in which the model's parameters are leaves of our own with theta's values, one for each slot.

    Args:
        mode: of the model's modules; as they are found if None.
        dtype: in which to compute; theta's if None.
        seed: of what a forward pass draws.

    Raises:
        ProblemError: a module that writes its parameters in a forward pass, or waits for other processes in one.
    """
    guards.refuse_renormalisation(model)
    dtype = theta.dtype if dtype is None else dtype
    pieces = theta.tensors if isinstance(theta, Parts) else layout.split(theta)
    training = None if mode is None else mode == "train"
    with (
        own_modes(),
        _eagerly(),
        AsFound(model, objective, training=training, dtype=dtype, seed=seed) as found,
    ):
        _refuse_waiting(model)
        # Copies: whatever a forward pass does to them, the parameters stay.
        leaves = [piece.detach().to(dtype, copy=True).contiguous().requires_grad_() for piece in pieces]
        named = dict(model.named_parameters(remove_duplicate=False))
        instead = {id(named[name]): leaf for name, leaf in zip(layout.names, leaves, strict=True)}
        for module in found.modules:
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    taken = instead.setdefault(id(parameter), _constant(parameter, dtype))
                    module._parameters[name] = taken  # type: ignore[assignment]
        yield found, leaves


@contextmanager
def probed(
    model: nn.Module,
    objective: Objective,
    batch: Any,
    theta: Vector,
    layout: Layout,
    *,
    matrix: Matrix = "hessian",
    mode: Mode | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> Iterator[Probed]:
    """A context in which there are products with the matrix of objective(model, batch) at theta.

    Args:
        model: not compiled as a whole; what is compiled inside runs eagerly.
        batch: a tree of tensors; floating-point ones are taken in the dtype.
        mode, dtype, seed: as of `leaves_in_place`.

    Raises:
        ProblemError: no scalar; or a Gauss–Newton matrix of an objective that is not in its short form.
        NoSecondDerivative: an operation has none. From products too.
    """
    with leaves_in_place(model, objective, theta, layout, mode=mode, dtype=dtype, seed=seed) as (
        found,
        leaves,
    ):
        placed = place(batch, leaves[0].device, leaves[0].dtype)
        yield products(model, objective, placed, found, leaves, matrix)


def products(
    model: nn.Module,
    objective: Objective,
    batch: Any,
    found: AsFound,
    leaves: list[Tensor],
    matrix: Matrix = "hessian",
) -> Products:
    """Of the loss at the leaves' values, inside `leaves_in_place`; the batch on their device."""
    kind = _Hessian if matrix == "hessian" else _GaussNewton
    return kind(model, objective, batch, found, leaves)


class Products(Probed):
    """What both matrices have in common: leaves, and a loss that can be evaluated again.

    Attributes:
        graph: what was derived: the loss, or the model's outputs, with its graph.
    """

    graph: Tensor

    def __init__(
        self, model: nn.Module, objective: Objective, batch: Any, found: AsFound, leaves: list[Tensor]
    ) -> None:
        self._model, self._objective, self._batch = model, objective, batch
        self._found, self._leaves = found, leaves
        self._build()
        self.random = found.drew

    @property
    def outputs(self) -> Tensor:
        """The model's, flat; of a Gauss–Newton matrix alone."""
        return self.graph.detach().reshape(-1)

    def moved(self, v: Tensor) -> Tensor:
        """J v, flat; of a Gauss–Newton matrix alone."""
        raise NotImplementedError

    @abstractmethod
    def _build(self) -> None: ...

    def _fresh_batch(self) -> Any:
        """Buffers, random numbers and batch as at the start."""
        self._found.rewind()
        return copy_of(self._batch)

    def _evaluate(self) -> Tensor:
        return require_scalar(self._objective(self._model, self._fresh_batch()))

    def _pieces(self, v: Tensor) -> list[Tensor]:
        sizes = [leaf.numel() for leaf in self._leaves]
        parts = torch.split(v.detach().to(self._leaves[0]), sizes)
        return [part.view(leaf.shape) for part, leaf in zip(parts, self._leaves, strict=True)]

    def _flat(self, pieces: Sequence[Tensor | None]) -> Tensor:
        return torch.cat(
            [
                torch.zeros_like(leaf).reshape(-1) if piece is None else piece.detach().reshape(-1)
                for piece, leaf in zip(pieces, self._leaves, strict=True)
            ]
        )

    def _back(self, outputs: Any, inputs: Any, along: Any = None, *, create_graph: bool = False) -> Any:
        return torch.autograd.grad(
            outputs, inputs, along, create_graph=create_graph, retain_graph=True, allow_unused=True
        )


class _Hessian(Products):
    def _build(self) -> None:
        self.graph = loss = Differentiable().loss(2, self._evaluate)
        self.loss = loss.detach()
        with no_hessian.explained(self._model, self._evaluate):
            self._gradients = self._back(_connected(loss), self._leaves, create_graph=True)
        self.gradient = self._flat(self._gradients)

    def matvec(self, v: Tensor) -> Tensor:
        """H v, exact (double backward; Pearlmutter 1994)."""
        pairs = [
            (gradient, piece)
            for gradient, piece in zip(self._gradients, self._pieces(v), strict=True)
            if gradient is not None and gradient.requires_grad
        ]
        if not pairs:  # the loss is linear in theta
            return torch.zeros_like(self.gradient)
        gradients, along = zip(*pairs, strict=True)
        with no_hessian.explained(self._model, self._evaluate):
            return self._flat(self._back(gradients, self._leaves, along))


class _GaussNewton(Products):
    def _build(self) -> None:
        if not isinstance(self._objective, Supervised):
            raise ProblemError(
                "the Gauss–Newton matrix needs the loss as a function of the model's outputs: give loss_fn, of "
                "(model(x), y), in the place of objective"
            )
        batch = self._fresh_batch()
        require_pair(batch)
        self.graph = Differentiable().loss(2, self._evaluate_outputs)
        leaf = self.graph.detach().requires_grad_()
        loss = require_scalar(self._objective.loss_fn(leaf, batch[1]))
        self.loss, self._outputs_leaf = loss.detach(), leaf
        with no_hessian.explained(self._model, self._evaluate):
            (self._of_outputs,) = self._back(loss, leaf, create_graph=True)
            self._zero = torch.zeros_like(leaf).requires_grad_()
            outputs = _connected(self.graph)
            self._transposed = self._back(outputs, self._leaves, self._zero, create_graph=True)
            self.gradient = self._flat(self._back(outputs, self._leaves, self._of_outputs.detach()))

    def moved(self, v: Tensor) -> Tensor:
        """J v, flat: by reverse mode twice, as Jᵀw is linear in w."""
        pairs = [
            (row, piece)
            for row, piece in zip(self._transposed, self._pieces(v), strict=True)
            if row is not None and row.requires_grad
        ]
        moved = None
        if pairs:
            rows, along = zip(*pairs, strict=True)
            with no_hessian.explained(self._model, self._evaluate):
                (moved,) = self._back(rows, [self._zero], along)
        return torch.zeros_like(self._zero).reshape(-1) if moved is None else moved.detach().reshape(-1)

    def matvec(self, v: Tensor) -> Tensor:
        """JᵀHJ v, exact."""
        moved = self.moved(v).reshape(self._zero.shape)
        curved = None
        with no_hessian.explained(self._model, self._evaluate):
            if self._of_outputs.requires_grad:  # else the loss is linear in the outputs
                (curved,) = self._back(self._of_outputs, [self._outputs_leaf], moved)
            if curved is None:
                return torch.zeros_like(self.gradient)
            return self._flat(self._back(self.graph, self._leaves, curved))

    def _evaluate_outputs(self) -> Tensor:
        outputs = self._model(self._fresh_batch()[0])
        if not isinstance(outputs, Tensor):
            raise ProblemError(
                "the Gauss–Newton matrix is of a model that gives a tensor; this one gives "
                f"{type(outputs).__name__}"
            )
        return outputs


def copy_of(batch: Any) -> Any:
    """The batch, for a forward pass that may write to it."""
    return map_leaves(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, batch)


def require_scalar(loss: Any) -> Tensor:
    """What an objective gave.

    Raises:
        ProblemError: no real scalar.
    """
    wrong = guards.no_scalar(loss)
    if wrong:
        raise ProblemError(f"the objective {wrong}")
    scalar: Tensor = loss
    return scalar


def _connected(outputs: Tensor) -> Tensor:
    if not outputs.requires_grad:
        raise ProblemError(
            "the loss does not depend on the trained parameters: evaluate the model that is passed to the objective, "
            "with gradients switched on"
        )
    return outputs


def _constant(parameter: nn.Parameter, dtype: torch.dtype) -> Tensor:
    """A parameter that is no part of theta."""
    if not parameter.is_floating_point() or parameter.dtype == dtype:
        return parameter
    return parameter.detach().to(dtype)


def _eagerly() -> AbstractContextManager[None]:
    """What is compiled inside runs as it is written; nothing is compiled anew for other parameters."""
    stance: AbstractContextManager[None] = (
        torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    )
    return stance


def _refuse_waiting(model: nn.Module) -> None:
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.SyncBatchNorm) and module.training:
            raise ProblemError(
                f"{described(name, module)} waits in a forward pass for all processes, and one alone evaluates the "
                "probe batch: take mode='eval'"
            )
