"""Losses without a Hessian: what is said where torch has no second derivative, or a wrong one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.arguments import first_line
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.suspects import handmade, place_of

WITHOUT = "or take what needs no Hessian (gradient flow; the modified flow in iterated-map form)"
"""What remains of nm_ode for such a loss."""

_MISSING = re.compile(
    r"derivative for '?(?:aten::)?(?P<operation>\w+)'? is not implemented"
    r"|once_differentiable|double backward|doesn't support double|automatic differentiation|create_graph"
    r"|no autograd formula was registered"
)
_BACKWARD = re.compile(r"(_dense|_per_sample_weights)?_backward(_data)?$")


class NoSecondDerivative(ProblemError):  # noqa: N818 (what is missing, not what is broken)
    """The loss has no Hessian, or none that can be computed: an operation has no second derivative, or a wrong one."""


@contextmanager
def explained(model: nn.Module, evaluate: Callable[[], Tensor]) -> Iterator[None]:
    """Where a derivative of higher order does not exist in torch, name the operation, the layer and the remedy.

    Args:
        model: in whose modules the operation is looked for.
        evaluate: gives the loss, as it was differentiated.

    Raises:
        NoSecondDerivative: in the place of torch's own error.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        operation = without_derivative(error)
        if operation is None:
            raise
        raise NoSecondDerivative(_sentence(model, evaluate, operation, error)) from error


def without_derivative(error: Exception) -> str | None:
    """The operation of torch whose derivative an error says is missing; "" for one of another library or the user's.

    None if the error is about something else.
    """
    missing = _MISSING.search(str(error))
    if missing is None or isinstance(error, torch.OutOfMemoryError):
        return None
    return _BACKWARD.sub("", (missing["operation"] or "").strip("_"))


def _sentence(model: nn.Module, evaluate: Callable[[], Tensor], operation: str, error: BaseException) -> str:
    if not operation:
        names: list[str] = []

        def custom(node: Any) -> str | None:
            name = handmade(node)
            names.extend([name] if name else [])
            return name

        place = place_of(model, evaluate, custom)
        what = names[0] if names else f"an operation ({first_line(error)})"
    else:
        what, plain = f"torch's operation {operation}", operation.replace("_", "")

        def same(node: Any) -> str | None:
            name = re.sub(r"Backward\d*$", "", node.name()).lower()
            return name if name in (plain, plain.removesuffix("forward")) else None

        place = place_of(model, evaluate, same)
    where = f"{place}: " if place else ""
    return (
        f"{where}{what} has no second derivative, so the loss has no Hessian to be computed; write it with "
        f"elementary operations, {WITHOUT}"
    )
