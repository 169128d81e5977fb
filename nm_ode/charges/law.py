"""What a law of motion is: how it predicts charges, and which runs it describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nm_ode.charges.driven import Driven
from nm_ode.charges.equation import ChargeEquation
from nm_ode.charges.recursion import Recursion

Array = NDArray[np.float64]
Predict = Callable[[Driven], Array]


def _nothing(hyperparameters: Mapping[str, Any]) -> None:
    """No further requirement."""


@dataclass(frozen=True)
class Law:
    """A law of motion of the charges.

    Attributes:
        title: for a reader, "exact discrete law".
        predict: Q_0 … Q_N, shape (N+1, C).
        equation: the law as a differential equation for an engine; None where it is a recursion.
        optimizers: names of the classes whose runs it describes.
        require_more: raises LawError for hyperparameters of these optimisers that it does not describe all the same.
        from_rest: another `predict`, from Q̇(0) = 0; None where the start has no rate.
        takes_residual: does it act on the recorded ⟨g, ξ⟩?
        recursion: the law as one that can be summed between records; None where charges of every step are needed.

    Example:
        >>> from nm_ode.charges import LAWS
        >>> law = LAWS["second_order"]
        >>> law.optimizers, law.equation is not None, law.takes_residual
        (('SGD',), True, False)
    """

    title: str
    predict: Predict
    equation: Callable[[Driven], ChargeEquation] | None = None
    optimizers: tuple[str, ...] = ("SGD",)
    require_more: Callable[[Mapping[str, Any]], None] = _nothing
    from_rest: Predict | None = None
    takes_residual: bool = False
    recursion: Recursion | None = None
