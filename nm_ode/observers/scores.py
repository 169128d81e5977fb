"""What functions of the model give, at a cadence: loss and accuracy on test data, and the like."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.loss.as_found import AsFound
from nm_ode.observers.base import STEP, Context, Observer, View
from nm_ode.observers.cadence import Every
from nm_ode.results import Variable

Score = Callable[[nn.Module], Tensor | float]
"""Of the model, in eval mode and without gradients: a number."""


@dataclass(frozen=True)
class Scores(Observer):
    """Numbers of the model before steps 0, n, 2n, … of a run, along `score_step`, or at the samples of a flow.

    Functions see the model in eval mode, without gradients and autocast; in a loop of one's own it is the user's own
    module. Its mode, its buffers and all random generators are afterwards as they were; its parameters are the
    trained ones, and who writes to them is refused.

    In `train` and along a flow it is a copy of the problem's model, whose BatchNorm has no running statistics if it was
    given in train mode: it then takes those of the batch that the function gives it.

    Args:
        functions: name of a variable → what gives it.
        every: the cadence, or n.

    Raises:
        ArgumentError: what is no function, or no cadence; along a loop, a function that writes parameters.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> data = digits(samples=256)
        >>> problem = nm_ode.Problem(mlp([64, 8, 10]), cross_entropy, data)
        >>> scores = nm_ode.Scores({"accuracy": lambda net: (net(data.x).argmax(1) == data.y).double().mean()}, 10)
        >>> nm_ode.train(problem, nm_ode.SGD(lr=1.0), steps=40, observe=[scores]).accuracy.values.round(1)
        array([0.1, 0.9, 0.8, 1. ])
    """

    functions: Mapping[str, Score]
    every: Every | int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.every, Every):
            object.__setattr__(self, "every", Every(self.every))
        given: Any = self.functions
        if not isinstance(given, Mapping) or not given:
            raise ArgumentError(
                f"Scores takes a dict of name → function of the model; {said(given)} was given"
            )
        for name, function in given.items():
            if not isinstance(name, str) or not callable(function):
                raise ArgumentError(
                    f"Scores: {said(name)} must be the name of a function of the model; {said(function)} was given"
                )

    def begin(self, context: Context) -> Sequence[Observer]:
        assert isinstance(self.every, Every)
        return [_Scores(self.functions, self.every.steps(context), context)]


class _Scores(Observer):
    def __init__(self, functions: Mapping[str, Score], steps: Collection[int], context: Context) -> None:
        self._functions, self._steps = functions, steps
        self.dim = STEP if context.along_flow else "score_step"
        self.variables = {name: Variable((), name.replace("_", " ")) for name in functions}
        self._is_own = context.loop is not None
        self._model = context.loop.model if context.loop else copy.deepcopy(context.problem.model)

    def steps(self, context: Context) -> Collection[int]:
        return self._steps

    def memory(self) -> Mapping[str, Any]:
        return {}  # nothing outlives a step

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Nothing to restore."""

    def observe(self, view: View) -> Mapping[str, Any]:
        with torch.no_grad(), AsFound(self._model, training=False):
            if not self._is_own:
                for name, values in view.parameters().items():
                    self._model.get_parameter(name).copy_(values)
            found = {name: self._asked(name, function) for name, function in self._functions.items()}
        return {name: _number(name, value) for name, value in found.items()}

    def _asked(self, name: str, function: Score) -> Any:
        before = [parameter._version for parameter in self._model.parameters()]
        value = function(self._model)
        if self._is_own and before != [parameter._version for parameter in self._model.parameters()]:
            raise ArgumentError(
                f"Scores: {said(name)} writes to the parameters that are being trained: let it work on a copy of the "
                "model"
            )
        return value


def _number(name: str, value: Any) -> Tensor | float:
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.detach().double().reshape(())
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(f"Scores: {said(name)} must give a number; it gave {said(value)}") from None
