"""Which loss an observer looks at beside the steps: a fixed batch on the model that is trained, or a whole problem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
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


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What is evaluated.

    Attributes:
        dtype: that it must be in; None if theta's will do.
    """

    model: nn.Module
    objective: Objective
    dtype: torch.dtype | None


def evaluated(context: Context, objective: Objective | None, who: str) -> Evaluated:
    """The user's own model with their objective; else that of the run's problem, with its own if none is given.

    Raises:
        ArgumentError: neither an objective nor a problem, or one of another model.
    """
    dtype = None
    if objective is not None and context.loop is not None:
        model: nn.Module = context.loop.model
    elif context.given_problem is not None:
        model = _same_parameters(context.problem, context.layout, who).model
        objective = context.problem.objective if objective is None else objective
        dtype = context.problem.dtype
    else:
        raise ArgumentError(
            f"{who} evaluates a loss: give it objective, of (model, batch), or loss_fn, of (model(x), y), and a batch; "
            "or the Recorder a problem"
        )
    require_model_and_loss(model, objective)
    return Evaluated(model, objective, dtype)


def seed_at(seed: int, step: int) -> int:
    """Other random numbers at each step, the same ones for one seed."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(2))


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
        self.layout = context.layout
        found = evaluated(context, objective, who)
        self.model, self._objective = found.model, found.objective
        self._problem = context.problem if objective is None else None
        self._expected = context.expected_problem if self._problem is not None else None
        self._batch, self._matrix, self._mode, self._seed = batch, matrix, mode, seed
        self._dtype = found.dtype if found.dtype is not None else dtype
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
            dtype=self._dtype,
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
