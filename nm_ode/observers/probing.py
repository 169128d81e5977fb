"""Which loss an observer looks at beside the steps: a fixed batch on the model that is trained, or a whole problem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.loss import Objective, Problem
from nm_ode.loss.guards import require_model_and_loss
from nm_ode.loss.objective import LossFunction, Supervised
from nm_ode.loss.probed import Matrix, Mode, Probed, probed
from nm_ode.loss.trusted import require_true_products
from nm_ode.observers.base import Context, View
from nm_ode.parameters import Layout


def objective_of(objective: Any, loss_fn: Any, batch: Any, who: str) -> Objective | None:
    """Of the three arguments that say what is evaluated; None for that of the run's problem.

    Raises:
        ArgumentError: both an objective and a loss function, or no batch with them.
    """
    if objective is not None and loss_fn is not None:
        raise ArgumentError(
            f"{who}: give objective, of (model, batch), or loss_fn, of (model(x), y), not both"
        )
    if (objective is not None or loss_fn is not None) and batch is None:
        raise ArgumentError(f"{who}: a loss of one's own is evaluated on a batch: give batch=…")
    for given, name in ((objective, "objective"), (loss_fn, "loss_fn")):
        if given is not None and (isinstance(given, type) or not callable(given)):
            raise ArgumentError(f"{who}: {name} must be a function; {said(given)} was given")
    found: LossFunction | None = loss_fn
    return Supervised(found) if found is not None else objective


class Probing:
    """Opens one loss at each view.

    Args:
        objective: of (model, batch); that of the run's problem if None.
        batch: a tree of tensors; all samples of the problem if None.
        mode, dtype, seed: as of `nm_ode.loss.probed.probed`.
        who: the observer, for messages.

    Raises:
        ArgumentError: neither an objective nor a problem.
    """

    def __init__(
        self,
        context: Context,
        objective: Objective | None,
        batch: Any,
        *,
        matrix: Matrix,
        mode: Mode | None,
        dtype: torch.dtype | None,
        seed: int,
        who: str,
    ) -> None:
        if objective is None and context.given_problem is None:
            raise ArgumentError(
                f"{who} evaluates a loss: give it objective, of (model, batch), or loss_fn, of (model(x), y), and a "
                "batch; or the Recorder a problem"
            )
        self.layout = context.layout
        self._problem = None if objective is not None else _same_parameters(context.problem, self.layout, who)
        self._objective = context.problem.objective if objective is None else objective
        in_loop = context.loop is not None and objective is not None
        self.model: nn.Module = context.loop.model if in_loop and context.loop else context.problem.model
        require_model_and_loss(self.model, self._objective)
        self._expected = context.expected_problem if self._problem is not None else None
        self._batch, self._matrix, self._mode, self._dtype, self._seed = batch, matrix, mode, dtype, seed
        self._trusted = False

    @contextmanager
    def at(self, view: View) -> Iterator[Probed]:
        """Loss, gradient and products at a view's theta. The first is held against differences.

        Raises:
            NoSecondDerivative: there are no products, or wrong ones.
        """
        if self._expected is not None and self._batch is None and self._matrix == "hessian":
            yield _OfProblem(self._expected, view.theta.to(self._expected.theta0))
            return
        batch = self._whole() if self._batch is None else self._batch
        if not self._trusted:
            require_true_products(
                self.model,
                self._objective,
                batch,
                view.theta_parts,
                self.layout,
                matrix=self._matrix,
                mode=self._mode,
                seed=self._seed,
            )
            self._trusted = True
        with probed(
            self.model,
            self._objective,
            batch,
            view.theta_parts,
            self.layout,
            matrix=self._matrix,
            mode=self._mode,
            dtype=self._dtype if self._problem is None else self._problem.dtype,
            seed=self._seed,
        ) as found:
            yield found

    def _whole(self) -> Any:
        assert self._problem is not None
        if self._problem.chunk_size is not None:
            raise ArgumentError(
                "the Gauss–Newton matrix is of one batch, and this problem's samples come in chunks: give batch=…"
            )
        return self._problem.batch()


class _OfProblem(Probed):
    """All samples of a problem."""

    def __init__(self, problem: Problem, theta: Tensor) -> None:
        self._problem, self._theta = problem, theta
        self.loss, self.gradient = problem.loss_and_grad(theta)
        self.random = False

    def matvec(self, v: Tensor) -> Tensor:
        """H v, shape (P,)."""
        return self._problem.hvp(self._theta, v.to(self._theta))


def _same_parameters(problem: Problem, layout: Layout, who: str) -> Problem:
    if [(slot.name, slot.shape) for slot in problem.layout.slots] != [
        (slot.name, slot.shape) for slot in layout.slots
    ]:
        raise ArgumentError(
            f"{who}: the problem's model has other trainable parameters than the one that is trained: make the problem "
            "of the same model, with the same parameters frozen"
        )
    return problem
