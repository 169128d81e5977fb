"""Loss and accuracy over samples that nobody trains on, along a run."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from nm_ode.arguments import as_count, first_line
from nm_ode.data.preparation import PreparedSource
from nm_ode.data.sources import Source, source_of
from nm_ode.errors import ArgumentError, NmOdeError
from nm_ode.loss import Problem
from nm_ode.loss.batch_norm import GivenStatistics
from nm_ode.loss.batching import DeviceBatches, Reduction, first_samples
from nm_ode.loss.calling import call
from nm_ode.loss.chunked import LossAt
from nm_ode.loss.labels import ignored_label, require_labels
from nm_ode.loss.objective import supervised_source
from nm_ode.loss.probed import leaves_in_place
from nm_ode.loss.reduction import measured_reduction, require_mean_or_sum
from nm_ode.observers.base import Context, Observer, View
from nm_ode.observers.cadence import Every
from nm_ode.observers.probing import evaluated
from nm_ode.registry import NotInCases
from nm_ode.results import Variable


@dataclass(frozen=True, eq=False)
class HeldOut(Observer):
    """Loss and accuracy over held-out samples, every so many steps and after the last.

    Along `held_out_step`: `test_loss`, the problem's loss over all of the samples, and, where the targets are classes
    (integers, one a sample) and the model gives a number for each class, `test_accuracy`, the share of the samples
    whose largest number is that of their class; where a number is NaN there is no largest. Samples with the label that
    the loss ignores are left out of both.

    The network is evaluated in eval mode, under the problem's autocast: nothing is dropped. A BatchNorm that takes its
    statistics from the batch in training takes those of training samples here: mean and variance of its inputs over
    `statistics` of them, spread evenly over the data, as they are (not augmented), which pass in train mode in batches
    of at most `chunk_size`, in an order that is always the same. So the numbers depend neither on which held-out
    samples are evaluated together nor on how the run came to its theta. Along a flow it is measured at each sample.

    Args:
        data: the samples: a `DataSet`, or a function that gives one; (x, y); a Dataset or source. In a case file it is
            the test split of the case's own data. Images are prepared, and not augmented.
        every: `Every(n)`, or n.
        chunk_size: the most samples in one forward pass.
        statistics: how many training samples BatchNorm's statistics are of.

    Raises:
        ArgumentError: numbers out of range. From `begin`: no data, or data that model and loss do not take.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> data = digits()
        >>> problem = nm_ode.Problem(mlp([64, 8, 10]), cross_entropy, (data.x[:512], data.y[:512]))
        >>> held_out = nm_ode.HeldOut((data.x[512:], data.y[512:]), every=10)
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=1.0), steps=20, observe=[held_out])
        >>> run.held_out_step.values, run.test_accuracy.values.round(1)
        (array([ 0, 10, 20]), array([0.1, 0.6, 0.4]))
    """

    costly: ClassVar[bool] = True

    data: Annotated[Any, NotInCases()] = field(default=None, repr=False)
    every: Every | int = 200
    chunk_size: int = 256
    statistics: int = 1024
    _placed: dict[Any, tuple[Any, DeviceBatches]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        given = {
            "every": self.every if isinstance(self.every, Every) else Every(self.every),
            "chunk_size": as_count(self.chunk_size, "chunk_size", least=2),
            "statistics": as_count(self.statistics, "statistics", least=2),
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)

    def begin(self, context: Context) -> Sequence[Observer]:
        if self.data is None:
            raise ArgumentError(
                "HeldOut needs samples that nobody trains on: give data=(x, y), or in a case file data with a test "
                "split"
            )
        if context.given_problem is None:
            raise ArgumentError(
                "HeldOut evaluates a problem's loss: give the Recorder one, problem=nm_ode.Problem(…)"
            )
        return [_Measured(context, self, self._batches(context.problem))]

    def _batches(self, problem: Problem) -> DeviceBatches:
        """On the problem's device, once for all that observe there."""
        loss_fn = problem.loss_fn  # kept, so that no other has its id
        key = (str(problem.device), problem.dtype, id(loss_fn))
        if key not in self._placed:
            source = _source(self.data, problem)
            batches = DeviceBatches(source, problem.device, problem.dtype, self.chunk_size)
            self._placed[key] = loss_fn, batches
        return copy.copy(self._placed[key][1])  # of which each problem has its own reduction


class _Measured(Observer):
    dim: str = "held_out_step"

    def __init__(self, context: Context, asked: HeldOut, batches: DeviceBatches) -> None:
        of = evaluated(context, None, "HeldOut")
        self._asked, self._problem, self._layout = asked, context.problem, context.layout
        self._model, self._objective, self._batches = of.model, of.objective, batches
        self._loss_fn = self._problem.loss_fn
        self._statistics = GivenStatistics(self._model, self._problem, asked.statistics, asked.chunk_size)
        self._whole = False
        classes = self._look(self._problem.theta0)
        how = f" (BatchNorm: statistics of {self._statistics.count} training samples)" * bool(
            self._statistics
        )
        self.variables = {"test_loss": Variable((), f"loss over {len(batches)} held-out samples{how}")}
        if classes:
            self.variables["test_accuracy"] = Variable(
                (), f"share of held-out samples classified rightly{how}"
            )

    def steps(self, context: Context) -> Collection[int]:
        assert isinstance(self._asked.every, Every)
        wanted = self._asked.every.steps(context)
        return wanted if context.open_ended else (*wanted, context.steps)

    def memory(self) -> Mapping[str, Any]:
        return {}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Nothing is remembered."""

    def observe(self, view: View) -> Mapping[str, Any]:
        lowered = self._problem.lowered
        with self._in_eval_mode(view.theta_parts), torch.no_grad(), lowered(), self._statistics.given():
            return self._by_outputs() if self._whole else self._by_chunks()

    def _in_eval_mode(self, theta: Any) -> Any:
        return leaves_in_place(
            self._model, self._objective, theta, self._layout, mode="eval", dtype=self._problem.dtype
        )

    def _look(self, theta: Tensor) -> bool:
        """At a few samples: can they be evaluated, and are they of classes?

        Raises:
            ArgumentError: they cannot.
            DataError: labels of no class.
        """
        few = self._batches.batch(first_samples(2))
        outputs = targets = None
        try:
            with self._in_eval_mode(theta), torch.no_grad(), self._problem.lowered():
                if self._loss_fn is not None:
                    outputs, targets = self._model(few[0]), few[1]
                    # Before the loss, for on a GPU torch's own check of labels ends the process.
                    known = self._batches.unprepared(None) if self._batches.in_memory else few
                    require_labels(self._loss_fn, outputs, known[1], "held-out data[1]")
                self._objective(self._model, few)
        except NmOdeError:
            raise
        except Exception as error:
            raise ArgumentError(
                f"HeldOut: the loss cannot be computed over the held-out samples ({first_line(error)}): give samples "
                "like those that the run trains on"
            ) from error
        # All outputs together have the loss over all samples, whatever that is of its samples.
        self._whole = isinstance(outputs, Tensor) and isinstance(targets, Tensor) and outputs.ndim <= 2
        if not self._whole and self._asked.chunk_size < len(self._batches):
            self._batches.reduction = require_mean_or_sum(
                self._reduction(theta),
                "HeldOut: the loss over the held-out samples is not made of those over chunks",
                "give HeldOut a chunk_size of at least their number",
            )
        return (
            isinstance(outputs, Tensor)
            and isinstance(targets, Tensor)
            and outputs.ndim == 2
            and outputs.shape[1] > 1
            and targets.ndim == 1
            and not (targets.is_floating_point() or targets.dtype == torch.bool)
        )

    def _reduction(self, theta: Tensor) -> Reduction | None:
        """Of the network in eval mode, in which a BatchNorm does not couple the samples."""
        if not self._statistics:
            return self._problem.reduction
        with self._in_eval_mode(theta) as (_, leaves), torch.no_grad(), self._statistics.given():
            at = LossAt(self._model, self._objective, None, leaves, self._layout)
            return measured_reduction(self._batches, at, self._asked.chunk_size)

    def _by_outputs(self) -> dict[str, Tensor]:
        found, wanted = [], []
        for x, y in (batch for batch, _ in self._batches.chunks(None)):
            found.append(call(self._model, x))
            wanted.append(y)
        outputs, targets = torch.cat(found), torch.cat(wanted)
        assert self._loss_fn is not None
        values = {"test_loss": self._loss_fn(outputs, targets).to(self._problem.dtype)}
        if "test_accuracy" in self.variables:
            counted = targets != ignored if (ignored := ignored_label(self._loss_fn)) is not None else ...
            is_right = (outputs.argmax(dim=1) == targets) & ~outputs.isnan().any(dim=1)
            values["test_accuracy"] = is_right[counted].double().mean()
        return values

    def _by_chunks(self) -> dict[str, Tensor]:
        losses = [
            weight * self._objective(self._model, batch) for batch, weight in self._batches.chunks(None)
        ]
        return {"test_loss": torch.stack(losses).sum()}


def _source(data: Any, problem: Problem) -> Source:
    """Of pairs as the problem's loss takes them, or of whole batches."""
    if callable(data) and not hasattr(data, "__len__"):
        data = data()
    if problem.loss_fn is not None:
        found = supervised_source(data, problem.loss_fn)
    else:
        found = source_of(data)
    return found.plain if isinstance(found, PreparedSource) else found
