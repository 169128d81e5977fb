"""Targets of another shape than what the model gives: torch broadcasts both, and the loss is over all pairs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

from torch import Tensor

from nm_ode.loss.guards import ProblemError

_OF_TORCH = r"Using a target size \(torch\.Size\((.*?)\)\) that is different to the input size \(torch\.Size\((.*?)\)\)"


def refuse_broadcast_targets(loss: Callable[[], Tensor]) -> None:
    """One evaluation, in which torch does not warn that the shapes of targets and outputs differ.

    Raises:
        ProblemError: it does.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Using a target size")
        try:
            loss()
        except UserWarning as warning:
            shapes = re.match(_OF_TORCH, str(warning))
            if shapes is None:
                raise
            target, output = (shape.strip("[]") for shape in shapes.groups())
            raise ProblemError(
                f"the targets have shape ({target}) and the model gives ({output}): the loss broadcasts them against "
                "each other, which makes it one over pairs of samples; give both one shape (y.reshape(…), or squeeze "
                "the model's output)"
            ) from None
