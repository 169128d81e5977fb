"""Targets of another shape than what the model gives: torch broadcasts both, and the loss is over all pairs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from nm_ode.loss.guards import ProblemError

_OF_TORCH = "Using a target size"
_SHAPES = r"target size \(torch\.Size\(\[(.*?)\]\)\) that is different to the input size \(torch\.Size\(\[(.*?)\]\)\)"


@contextmanager
def no_broadcast_targets() -> Iterator[None]:
    """An evaluation in which torch does not warn that the shapes of targets and outputs differ.

    Raises:
        ProblemError: it does.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", message=_OF_TORCH)
        yield
    for warning in caught:
        text = str(warning.message)
        if text.startswith(_OF_TORCH):
            shapes = re.search(_SHAPES, text)
            target, output = shapes.groups() if shapes else ("?", "?")
            raise ProblemError(
                f"the targets have shape ({target}) and the model gives ({output}): the loss broadcasts them against "
                "each other, which makes it one over pairs of samples; give both one shape (y.reshape(…), or squeeze "
                "the model's output)"
            )
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
