"""A first look at a model, a loss and data: a few forward passes that show what makes no function of theta."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.loss import randomness
from nm_ode.loss.batching import DeviceBatches
from nm_ode.loss.bindings import require_own_parameters
from nm_ode.loss.broadcasting import no_broadcast_targets
from nm_ode.loss.calling import call
from nm_ode.loss.directions import normal, scale
from nm_ode.loss.evaluation import Evaluation
from nm_ode.loss.explain import EvaluationError
from nm_ode.loss.finite import close, require_finite_data
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.labels import ignored_label, require_labels
from nm_ode.loss.objective import Objective, Supervised, require_pair
from nm_ode.loss.purity import Passes


def first_look(at: Evaluation, objective: Objective, batches: DeviceBatches, few: slice) -> None:
    """Refuse what is no deterministic function of theta, on some samples; then let `at` watch what it evaluates.

    Random generators are left as they were.

    Raises:
        ProblemError: the loss cannot be computed, is random, or a pass changes what another reads.
        DataError: labels of no class, or values that are not finite.
    """
    with randomness.left_as_they_are(*_roots(at), objective, batches.source):
        batch = _read(batches, few)
        passes = Passes(at.roots, at.parameters)
        at.set(at.theta)
        if isinstance(objective, Supervised):
            require_pair(batch)
            _look_at_labels(at, objective, batches, batch, passes)
        with passes.one(settled=False), torch.no_grad(), no_broadcast_targets():
            losses = [at.loss(batch)]
        watched = randomness.generators(*_roots(at), objective)
        with passes.one(repeated=True):
            loss = _loss_without_draws(at, objective, batch, watched)
            require_own_parameters(loss, at.parameters)
        losses.append(loss.detach())
        for theta in _others(at):
            at.set(theta)
            try:
                with passes.one(), torch.no_grad():
                    _loss_without_draws(at, objective, batch, watched)
            except EvaluationError:  # a theta at which it is not defined
                pass
            at.set(at.theta)
            del theta  # before the next, which is as large
        with torch.no_grad():
            losses.append(_loss_without_draws(at, objective, batches.batch(few), watched))
        unread = passes.unread(lambda: list(at.loss_and_grad(batch)))
        _refuse_differences(losses)
        at.watch(unread)
        if batches.in_memory:
            require_finite_data(
                batches.unprepared(None),
                len(batches),
                lambda some: _sum_of_all(at, batches.batch(some)),
                few.stop,
            )


def _roots(at: Evaluation) -> list[nn.Module]:
    return [module for _, module in at.roots]


def _read(batches: DeviceBatches, few: slice) -> Any:
    """The samples; from a source that is read, twice."""
    batch = batches.batch(few)
    if not batches.in_memory:
        drawn = randomness.draws(lambda: batches.batch(few), randomness.generators(batches.source))
        if drawn:
            raise ProblemError(
                f"the loss is random: reading samples draws from {' and '.join(drawn)}, so they differ every time; "
                "read them without random augmentation"
            )
    return batch


def _look_at_labels(
    at: Evaluation, objective: Supervised, batches: DeviceBatches, batch: Any, passes: Passes
) -> None:
    """Before the loss, for on a GPU torch's own check of labels ends the process."""
    if ignored_label(objective.loss_fn) is None:
        return
    model = at.roots[0][1]
    with passes.one(settled=False), torch.no_grad():
        try:
            output = call(model, batch[0])
        except Exception:  # is explained where the loss is computed
            return
    targets = (batches.unprepared(None) if batches.in_memory else batch)[1]
    require_labels(objective.loss_fn, output, targets, "data[1]")


def _loss_without_draws(
    at: Evaluation, objective: Objective, batch: Any, watched: Sequence[randomness.Generator]
) -> Tensor:
    """A pass in which no generator may move: a drawn number may be without effect this time."""
    losses: list[Tensor] = []

    def run() -> None:
        losses.append(at.loss(batch))

    drawn = randomness.draws(run, watched)
    if drawn:
        where = randomness.module_that_draws(run, dict(at.roots))
        whole = "the loss function" if isinstance(objective, Supervised) else "the objective"
        if drawn[0] not in (generator.name for generator in watched):
            whole = f"the model or {whole}"  # no state shows where
        raise ProblemError(
            f"the loss is random: {where or whole} draws from "
            f"{' and '.join(drawn)}; a flow needs a deterministic loss (switch the noise off, or call model.eval())"
        )
    return losses[0]


def _others(at: Evaluation) -> Iterator[Tensor]:
    """Places where a model may do what it does not do at its start: a larger theta, and one of another direction."""
    yield 3 * at.theta
    yield scale(normal(at.theta, 0), at.theta, at.layout, least=0.1).add_(at.theta)


def _refuse_differences(losses: list[Tensor]) -> None:
    first, *others = losses
    for other in others:
        if not close(first, other):
            raise ProblemError(
                f"the loss is random, or depends on the evaluations before: the same theta and data gave {first:.6g} "
                f"and {other:.6g}; a flow needs a deterministic loss (switch the noise off, or call model.eval())"
            )


def _sum_of_all(at: Evaluation, batch: Any) -> Tensor:
    """Finite if the loss and its gradient are."""
    loss, gradient = at.loss_and_grad(batch)
    return loss + 0 * gradient.sum()
