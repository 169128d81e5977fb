"""The loss of one batch at one theta, and its derivatives by reverse mode on the model's own parameters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.loss import guards, no_hessian
from nm_ode.loss.derivatives import Differentiable
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.objective import Objective, Supervised
from nm_ode.parameters import Layout


class Evaluation:
    """A model whose trainable parameters are views into the theta that was `set` last.

    Attributes:
        parameters: the trainable ones, in the order of theta.
        layout: where each lies in theta.
        theta: shape (P,), the model's own at the start.
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        self.layout = Layout.of(model)
        everything = dict(
            model.named_parameters(remove_duplicate=False)
        )  # scripted modules have no get_parameter
        named = {name: everything[name] for name in self.layout.names}
        guards.require_real_and_trainable(named)
        self.parameters = list(named.values())
        self.theta = _flat([parameter.detach() for parameter in self.parameters])
        self._model, self._objective = model, objective
        self._differentiable = Differentiable()

    def set(self, theta: Tensor) -> None:
        """Evaluate at theta from now on, shape (P,).

        Raises:
            ProblemError: another shape.
        """
        # The parameters keep the memory that they view alive, so the same address is the same memory: a theta
        # that an optimiser moves in place needs to be checked once.
        if theta.data_ptr() == self.parameters[0].data_ptr() and self._is_plain(theta):
            return
        for parameter, piece in zip(self.parameters, self.split(theta, "theta"), strict=True):
            parameter.data = piece

    def vector(self, vector: Tensor, name: str) -> Tensor:
        """`vector` in theta's dtype, on its device, contiguous and without a graph.

        Raises:
            ProblemError: a shape other than (P,).
        """
        if vector.shape != self.theta.shape:
            raise ProblemError(
                f"{name} has shape {tuple(vector.shape)}; this problem's theta has ({self.layout.size},)"
            )
        return vector.detach().to(self.theta).contiguous()

    def split(self, vector: Tensor, name: str) -> list[Tensor]:
        """Views of `vector` in the shapes of the parameters."""
        return self.layout.split(self.vector(vector, name))

    def loss(self, batch: Any) -> Tensor:
        """The objective, a scalar, with its graph where gradients are on.

        Raises:
            ProblemError: it is no scalar.
        """
        loss = self._objective(self._model, batch)
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            what = "the loss function" if isinstance(self._objective, Supervised) else "the objective"
            raise ProblemError(f"{what} {guards.no_scalar(loss)}")
        return loss

    def loss_and_grad(self, batch: Any, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """L and ∇L, the gradient into `out` if given."""
        loss = self.loss(batch)
        return loss.detach(), _flat(self._derivatives(loss), out)

    def grad_and_hvp(self, batch: Any, direction: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """∇L and Hv.

        Raises:
            NoSecondDerivative: of an operation.
        """
        loss = self._differentiable.loss(2, partial(self.loss, batch))
        with no_hessian.explained(self._model, partial(self.loss, batch)):
            gradients = self._derivatives(loss, create_graph=True)
            along = self._along(gradients, direction)
            flat = _flat([g.detach() for g in gradients])
            if not along.requires_grad:  # the loss is linear in theta
                return flat, torch.zeros_like(flat)
            return flat, _flat(self._derivatives(along))

    def loss_and_third_derivative(self, batch: Any, direction: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """L and ∇³L[v, v].

        Raises:
            NoSecondDerivative: of an operation.
        """
        loss = quantity = self._differentiable.loss(3, partial(self.loss, batch))
        with no_hessian.explained(self._model, partial(self.loss, batch)):
            for _ in range(2):  # ⟨g, v⟩, then ⟨Hv, v⟩
                if quantity.requires_grad:
                    quantity = self._along(self._derivatives(quantity, create_graph=True), direction)
            if not quantity.requires_grad:  # the loss is quadratic in theta
                return loss.detach(), torch.zeros_like(self.theta)
            return loss.detach(), _flat(self._derivatives(quantity))

    def _along(self, derivatives: Sequence[Tensor], direction: Sequence[Tensor]) -> Tensor:
        """Inner product with a direction, of the derivatives that depend on theta."""
        return sum(
            ((d * part).sum() for d, part in zip(derivatives, direction, strict=True) if d.requires_grad),
            start=self.theta.new_zeros(()),
        )

    def _derivatives(self, of: Tensor, create_graph: bool = False) -> tuple[Tensor, ...]:
        """By each parameter; zero for those that `of` does not depend on."""
        return torch.autograd.grad(
            of, self.parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )

    def _is_plain(self, theta: Tensor) -> bool:
        return (
            theta.shape == self.theta.shape
            and theta.dtype == self.theta.dtype
            and theta.device == self.theta.device
            and theta.is_contiguous()
        )


def _flat(tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors], out=out)
