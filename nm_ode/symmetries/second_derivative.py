"""Operations of which torch has no second derivative."""

from __future__ import annotations

import re

from nm_ode.loss import NoSecondDerivative

_NAMED = re.compile(r"derivative for '?(?:aten::)?_?(\w+?)(?:_backward)?'? is not implemented")


def missing_derivative(error: Exception) -> str:
    """The operation that an error is about; empty if it is about something else."""
    if isinstance(error, NoSecondDerivative):
        return str(error)
    if isinstance(error, RuntimeError | NotImplementedError):
        named = _NAMED.search(str(error))
        if named is not None:
            return named[1]
        if "once_differentiable" in str(error) or "does not implement double backward" in str(error):
            return "a function of the model's own"
    return ""
