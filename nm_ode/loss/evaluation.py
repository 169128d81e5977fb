"""The loss of one batch at one theta, and its derivatives by reverse mode on the model's own parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.arguments import as_vector
from nm_ode.loss import guards, no_hessian
from nm_ode.loss.calling import call
from nm_ode.loss.derivatives import Differentiable
from nm_ode.loss.explain import failed, passes_through
from nm_ode.loss.finite import close
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.objective import Objective, Supervised
from nm_ode.loss.piecewise import IN_PLACE, add_derivatives, write_derivatives
from nm_ode.loss.purity import Cell, Watch, cells_of, reads_what_it_writes
from nm_ode.loss.reachable import code_names
from nm_ode.loss.spent import Derivative, Spent
from nm_ode.parameters import Layout

_WRITES_UNCOUNTED = {
    "data",
    "numpy",
    "untyped_storage",
    "storage",
    "data_ptr",
    "set_",
    "from_dlpack",
    "to_dlpack",
}
"""What torch does not count as a write to a tensor."""


class Evaluation:
    """A model whose trainable parameters are views into the theta that was `set` last.

    Attributes:
        parameters: the trainable ones, in the order of theta.
        layout: where each lies in theta.
        theta: shape (P,), the model's own at the start.
        roots: the model, and the objective if it is a module.
        spent: derivatives that were taken.
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        self.layout = Layout.of(model)
        # Scripted modules have no get_parameter.
        everything = dict(model.named_parameters(remove_duplicate=False))
        self.parameters = [everything[name] for name in self.layout.names]
        self.theta = self._gather()
        self.roots = [("", model)]
        if isinstance(objective, nn.Module):
            self.roots.append(("loss." if isinstance(objective, Supervised) else "objective.", objective))
        self._model, self._objective = model, objective
        self._differentiable = Differentiable()
        self.spent = Spent()
        self._watch = Watch((), self.parameters)
        self._seen = self._differentiates = False

    def watch(self, unread: Sequence[Cell]) -> None:
        """From now on hold what is in the model for what passes must leave as it is, but for what none reads."""
        self._seen = True
        left_out = {(id(cell.owner), cell.key) for cell in unread}
        cells = [cell for cell in cells_of(self.roots) if (id(cell.owner), cell.key) not in left_out]
        names = code_names([*(module for _, module in self.roots), self._objective])
        self._watch = Watch(cells, self.parameters, values=not names.isdisjoint(_WRITES_UNCOUNTED))

    def set(self, theta: Any, taking: Derivative | None = None) -> None:
        """Evaluate at theta from now on, shape (P,).

        Args:
            taking: a derivative that is about to be taken there, which is counted.

        Raises:
            ProblemError: another shape, or no vector of real numbers.
        """
        if taking is not None:
            self.spent.add(taking)
        # The parameters keep the memory that they view alive, so the same address is the same memory: a theta
        # that an optimiser moves in place needs to be checked once.
        if (
            isinstance(theta, Tensor)
            and theta.layout is torch.strided
            and theta.data_ptr() == self.parameters[0].data_ptr()
            and self._is_plain(theta)
            and self._watch.in_place()
        ):
            return
        for parameter, piece in zip(self.parameters, self.split(theta, "theta"), strict=True):
            parameter.data = piece
        self._watch.settle()

    def vector(self, vector: Any, name: str) -> Tensor:
        """`vector` in theta's dtype, on its device, contiguous and without a graph.

        Raises:
            ProblemError: a shape other than (P,), or no vector of real numbers.
        """
        return as_vector(vector, name, self.theta, error=ProblemError)

    def split(self, vector: Any, name: str) -> list[Tensor]:
        """Views of `vector` in the shapes of the parameters."""
        return self.layout.split(self.vector(vector, name))

    def require_out(self, out: Tensor | None) -> None:
        """Raises ProblemError if a gradient cannot be written there."""
        if out is not None and not (
            isinstance(out, Tensor) and out.shape == self.theta.shape and out.dtype == self.theta.dtype
        ):
            raise ProblemError(
                f"out must be a tensor of theta's shape ({self.layout.size},), dtype and device"
            )

    def loss(self, batch: Any) -> Tensor:
        """The objective, a scalar, with its graph where gradients are on.

        Raises:
            ProblemError: it is no scalar, cannot be computed, or computing it changes the model.
        """
        self._watch.before_pass()
        loss = self._computed(batch)
        return loss if self._watch.intact() else self._once_more(batch, loss)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around passes that do not go through `loss`.

        Raises:
            ProblemError: a pass changed the model.
        """
        self._watch.before_pass()
        yield
        if not self._watch.intact():
            self._refuse_changes()

    def loss_and_grad(self, batch: Any, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """L and ∇L, the gradient into `out` if given."""
        loss = self.loss(batch)
        return loss.detach(), self._gradient(loss, out)

    def loss_and_add_grad(self, batch: Any, to: Tensor, factor: float) -> Tensor:
        """L; factor · ∇L is added to a vector."""
        loss = self.loss(batch)
        if self._is_long(to):
            add_derivatives(loss, self.parameters, self.layout.split(to), factor)
        else:
            to.add_(_flat(self._derivatives(loss)), alpha=factor)
        return loss.detach()

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
            del gradients
            if not along.requires_grad:  # the loss is linear in theta
                return flat, torch.zeros_like(flat)
            return flat, self._gradient(along)

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
            return loss.detach(), self._gradient(quantity)

    def _computed(self, batch: Any) -> Tensor:
        supervised = isinstance(self._objective, Supervised)
        try:
            loss = self._of(batch)
        except Exception as error:
            # Once it could be computed, an error is the caller's own, but for a label that no batch before had.
            if passes_through(error) or (self._seen and not isinstance(error, IndexError)):
                raise
            raise self._explained(error, batch) from error
        if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
            raise ProblemError(
                f"{'the loss function' if supervised else 'the objective'} {guards.no_scalar(loss)}"
            )
        return loss

    def _of(self, batch: Any) -> Any:
        """The objective's value; of one that differentiates inside (by a PINN's inputs, say) with gradients on."""
        if torch.is_grad_enabled() or not self._differentiates:
            try:
                return self._objective(self._model, batch)
            except RuntimeError as error:
                if torch.is_grad_enabled() or "does not require grad" not in str(error):
                    raise
        with torch.enable_grad():
            loss: Any = self._objective(self._model, batch)
        self._differentiates = True
        return loss.detach() if isinstance(loss, Tensor) else loss

    def _explained(self, error: Exception, batch: Any) -> ProblemError:
        if not isinstance(self._objective, Supervised):
            return failed(error, "the objective", batch, self.theta.dtype)
        try:
            with torch.no_grad():
                given = call(self._model, batch[0])
        except Exception:
            return failed(error, "the model", batch, self.theta.dtype)
        return failed(error, "the loss", batch, self.theta.dtype, given)

    def _once_more(self, batch: Any, loss: Tensor) -> Tensor:
        """The loss after a pass that changed something: a table that later passes keep does no harm."""
        self._watch.require_theta()
        self._watch.adopt()
        self._watch.before_pass()
        again = self._computed(batch)
        if not self._watch.intact() or not close(loss, again):
            self._refuse_changes()
        return again

    def _refuse_changes(self) -> None:
        self._watch.require_theta()
        cell = self._watch.changed()
        if cell is not None:
            raise ProblemError(reads_what_it_writes(cell))
        raise ProblemError("the loss at one theta depends on the evaluations before; call model.eval()")

    def _along(self, derivatives: Sequence[Tensor], direction: Sequence[Tensor]) -> Tensor:
        """Inner product with a direction, of the derivatives that depend on theta."""
        return sum(
            ((d * part).sum() for d, part in zip(derivatives, direction, strict=True) if d.requires_grad),
            start=self.theta.new_zeros(()),
        )

    def _gather(self) -> Tensor:
        """The model's own theta, which its parameters view from now on: one after the other, each let go of."""
        first = self.parameters[0]
        theta = torch.empty(self.layout.size, dtype=first.dtype, device=first.device)
        for parameter, piece in zip(self.parameters, self.layout.split(theta), strict=True):
            piece.copy_(parameter.detach())
            parameter.data = piece
        return theta

    def _gradient(self, of: Tensor, out: Tensor | None = None) -> Tensor:
        """By theta, shape (P,)."""
        if not self._is_long(out):
            return _flat(self._derivatives(of), out)
        gradient = torch.empty_like(self.theta) if out is None else out
        write_derivatives(of, self.parameters, self.layout.split(gradient))
        return gradient

    def _is_long(self, out: Tensor | None) -> bool:
        """Are parts of a gradient worth being written where they belong as soon as they are there?"""
        if self.layout.size < IN_PLACE:
            return False
        return out is None or (out.is_contiguous() and not any(_overlap(out, one) for one in self.parameters))

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
            and not theta.is_inference()
        )


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Of contiguous tensors: do they share memory?"""
    (a, n), (b, m) = ((x.data_ptr(), x.numel() * x.element_size()) for x in (one, other))
    return a < b + m and b < a + n


def _flat(tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors], out=out)
