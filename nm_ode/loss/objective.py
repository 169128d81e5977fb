"""What is minimised: a scalar of a model and a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor, nn

from nm_ode.arguments import as_tensor
from nm_ode.data.base import DataError, DataSet
from nm_ode.data.leaves import is_array
from nm_ode.data.sources import Source, TensorSource, source_of
from nm_ode.data.trees import flatten
from nm_ode.loss.calling import call
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.labels import as_labels
from nm_ode.loss.own import own_loss

Objective: TypeAlias = Callable[[Any, Any], Tensor]
"""`objective(model, batch) -> scalar`; the batch is any tree of tensors (`nm_ode.data.trees`)."""

LossFunction: TypeAlias = Callable[[Any, Any], Tensor]
"""`loss_fn(model(x), y) -> scalar`; a tuple x is spread over the model's arguments, and a dict over its keywords."""

_SEVERAL = (
    "the short form takes (x, y): write ((a, b), y) or ({'name': a, …}, y) for a model of several inputs, or take "
    "Problem.from_objective, of which a batch has any structure"
)


class Supervised(nn.Module):
    """The objective of a batch (x, y): loss_fn(model(x), y). A module, for the tensors that the loss may hold."""

    def __init__(self, loss_fn: LossFunction) -> None:
        super().__init__()
        self.loss_fn = loss_fn

    def forward(self, model: Any, batch: Any) -> Tensor:
        """The loss, a scalar."""
        x, y = batch
        return self.loss_fn(call(model, x), y)


class Form(NamedTuple):
    """What makes an objective of a loss, and what makes the source."""

    objective_of: Callable[[Any], Objective]
    source: Callable[[], Source]


def any_form(data: Any) -> Form:
    """Of an objective: batches of any structure."""
    return Form(lambda loss: loss, data.source if isinstance(data, DataSet) else partial(source_of, data))


def short_form(loss_fn: LossFunction, data: Any) -> Form:
    """Of a loss function: pairs (x, y)."""
    return (
        any_form(data) if loss_fn is own_loss else Form(Supervised, partial(supervised_source, data, loss_fn))
    )


def supervised_source(data: Any, loss_fn: LossFunction) -> Source:
    """A source of pairs (x, y), in which a list of numbers is a tensor, and labels are what the loss takes.

    Images of a data set are prepared as it says.

    Raises:
        ProblemError: not as many inputs as targets, or none.
    """
    if is_array(data):
        raise ProblemError(
            "data is one array; the short form takes (x, y), and Problem.from_objective any structure"
        )
    if isinstance(data, Mapping):
        raise ProblemError(
            f"data is a {type(data).__name__} of {', '.join(map(repr, data))}; the short form takes (x, y), where x "
            "may be such a dict. A model that returns its own loss: Problem(model, nm_ode.own_loss, data)"
        )
    if isinstance(data, DataSet):
        if data.preparation is not None:
            return data.source()
        data = (data.x, data.y)
    if not isinstance(data, tuple | list):
        return source_of(data)
    if len(data) != 2:
        raise ProblemError(f"data: {len(data)} parts; {_SEVERAL}")
    x, y = (
        part if _has_arrays(part) else as_tensor(part, f"data[{i}]", error=DataError)
        for i, part in enumerate(data)
    )
    arrays = is_array(x) and is_array(y) and x.ndim and y.ndim
    if arrays and (len(x) != len(y) or len(x) == 0):
        raise ProblemError(f"data: {len(x)} inputs and {len(y)} targets; give as many of each, at least one")
    source = source_of((x, y))
    return (
        TensorSource((source.tree[0], as_labels(loss_fn, source.tree[1])))
        if isinstance(source, TensorSource)
        else source
    )


def require_pair(batch: Any) -> None:
    """Raises ProblemError if a batch is no pair (x, y)."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        what = f"{len(batch)} parts" if isinstance(batch, tuple | list) else f"a {type(batch).__name__}"
        raise ProblemError(f"a batch of the data is {what}; {_SEVERAL}")


def _has_arrays(part: Any) -> bool:
    return any(map(is_array, flatten(part)[0]))
