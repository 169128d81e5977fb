"""Which loss an observer looks at beside the steps: a fixed batch on the model that is trained, or a whole problem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.loss import Objective, Problem
from nm_ode.loss.batching import spread_samples
from nm_ode.loss.chunked import Chunked, Chunks
from nm_ode.loss.expected import share_of_batches
from nm_ode.loss.guards import require_model_and_loss
from nm_ode.loss.objective import LossFunction, Supervised
from nm_ode.loss.probed import Matrix, Mode, Probed, leaves_in_place, probed
from nm_ode.loss.trusted import require_true_products
from nm_ode.observers.base import Context, View
from nm_ode.parameters import Layout

_FEW = 16  # samples on which products are held against differences


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
        batch: a tree of tensors; samples of the problem if None.
        mode, dtype, seed: as of `nm_ode.loss.probed.probed`.
        who: the observer, for messages.
        chunk_size: the most samples of a batch of one's own in a forward pass; of the problem's it is its own.
        samples: how many of the problem's, spread over all; None for all.

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
        chunk_size: int | None = None,
        samples: int | None = None,
    ) -> None:
        self.layout = context.layout
        found = evaluated(context, objective, who)
        self.model, self.objective = found.model, found.objective
        self._matrix, self._mode, self._seed = matrix, mode, seed
        self.dtype = dtype if dtype is not None else found.dtype
        self._trusted = False
        self._whole: _Whole | None = None
        self._chunks: Chunks | None = None
        self._batch = batch
        if batch is not None:
            self._chunks = None if chunk_size is None else Chunks.of(batch, chunk_size)
        else:
            self._whole = _Whole(context, samples)
            if matrix != "hessian":
                self._chunks = self._whole.chunks()

    @contextmanager
    def at(self, view: View) -> Iterator[Probed]:
        """Loss, gradient and products at a view's theta. The first is held against differences.

        Raises:
            NoSecondDerivative: there are no products, or wrong ones.
            ProblemError: a loss that chunks would change.
        """
        if self._whole is not None and self._matrix == "hessian":
            yield _OfProblem(self._whole, view.theta)
            return
        if not self._trusted:
            require_true_products(
                self.model,
                self.objective,
                self._batch if self._chunks is None else self._chunks.few(_FEW),
                view.theta_parts,
                self.layout,
                matrix=self._matrix,
                mode=self._mode,
                seed=self._seed,
            )
            self._trusted = True
        here = (self.model, self.objective)
        where = (view.theta_parts, self.layout)
        if self._chunks is None:
            with probed(
                *here,
                self._batch,
                *where,
                matrix=self._matrix,
                mode=self._mode,
                dtype=self.dtype,
                seed=self._seed,
            ) as one:
                yield one
            return
        with leaves_in_place(*here, *where, mode=self._mode, dtype=self.dtype, seed=self._seed) as places:
            many = Chunked(*here, self._chunks, *places, self.layout, self._matrix)
            self._chunks = replace(self._chunks, reduction=many.reduction)  # measured once
            yield many


class _Whole:
    """A problem's own samples, all or some of them; some stand for all.

    Attributes:
        problem: of which the loss over `samples` is that of all, or an estimate of it.
        samples: which; None for all.
    """

    def __init__(self, context: Context, most: int | None) -> None:
        problem, n = context.problem, context.problem.n_samples
        grid = context.grid
        share = 1.0 if grid is None else share_of_batches(problem, grid)[1]
        self.samples = None if most is None or most >= n else spread_samples(n, most)
        self.count = n if self.samples is None else len(self.samples)
        self._given = problem
        if (share != 1 or self.samples is not None) and problem.reduction == "sum":
            share *= n / self.count
        self._factor = share
        self.problem = problem if share == 1 else problem.scaled(share)

    def chunks(self) -> Chunks:
        """Of the samples, no more in one than the problem takes."""
        samples = torch.arange(self._given.n_samples, device="cpu") if self.samples is None else self.samples
        size = self.count if self._given.chunk_size is None else self._given.chunk_size
        # One chunk has the loss of all, whatever that is of its samples.
        reduction = self._given.reduction if size < self.count else "mean"
        return Chunks(
            lambda some: self._given.batch(samples[some]), self.count, size, reduction, self._factor
        )


class _OfProblem(Probed):
    """Samples of a problem."""

    def __init__(self, whole: _Whole, theta: Tensor) -> None:
        self._problem, self._samples = whole.problem, whole.samples
        self._theta = theta.to(self._problem.theta0)
        self.loss, self.gradient = self._problem.loss_and_grad(self._theta, self._samples)
        self.random = False

    def matvec(self, v: Tensor) -> Tensor:
        """H v, shape (P,)."""
        return self._problem.hvp(self._theta, v.to(self._theta), self._samples)


def _same_parameters(problem: Problem, layout: Layout, who: str) -> Problem:
    if [(slot.name, slot.shape) for slot in problem.layout.slots] != [
        (slot.name, slot.shape) for slot in layout.slots
    ]:
        raise ArgumentError(
            f"{who}: the problem's model has other trainable parameters than the one that is trained: make the problem "
            "of the same model, with the same parameters frozen"
        )
    return problem
