"""Class labels: integers that the loss can take, as many classes as the model gives."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.data.base import DataError
from nm_ode.loss.guards import ProblemError

_OF_CLASSES = (nn.functional.cross_entropy, nn.functional.nll_loss)
_MODULES = (nn.CrossEntropyLoss, nn.NLLLoss)


def ignored_label(loss_fn: Any) -> int | None:
    """The label that torch's cross-entropy (or nll_loss) leaves out; None if the loss is neither."""
    if isinstance(loss_fn, functools.partial):
        inner = ignored_label(loss_fn.func)
        return None if inner is None else int(loss_fn.keywords.get("ignore_index", inner))
    module = getattr(loss_fn, "__self__", loss_fn)  # its bound method is it, too
    if isinstance(module, _MODULES):
        return int(module.ignore_index)
    return -100 if any(loss_fn is function for function in _OF_CLASSES) else None


def as_labels(loss_fn: Any, y: Any) -> Any:
    """Targets as the loss takes them: labels of classes in int64, whichever integers (or truth values) they were."""
    if not isinstance(y, Tensor) or ignored_label(loss_fn) is None:
        return y
    if y.is_floating_point() or y.is_complex() or y.dtype in (torch.int64, torch.uint8):
        return y
    return y.long()


def require_labels(loss_fn: Any, output: Any, targets: Any, place: str) -> None:
    """Raises DataError if a label is of no class that the model gives, or ProblemError if labels are no integers.

    Args:
        output: the model's, for one batch.
        targets: all of them, or those of a batch.
    """
    ignored = ignored_label(loss_fn)
    if (
        ignored is None
        or not isinstance(output, Tensor)
        or not isinstance(targets, Tensor)
        or output.ndim == 0
    ):
        return
    classes = output.shape[1] if output.ndim > 1 else output.shape[0]
    if targets.is_floating_point():
        if targets.shape[1:] != output.shape[1:]:
            raise ProblemError(
                f"{place} has floating-point targets of shape {tuple(targets.shape)}, which the loss takes for "
                f"probabilities of {classes} classes: give integer labels, or another loss"
            )
        return
    if targets.is_complex() or not targets.numel():
        return
    if output.ndim > 1 and targets.shape[1:] != output.shape[2:]:
        expected = ", ".join(map(str, ("samples", *output.shape[2:])))
        raise ProblemError(
            f"{place} has labels of shape {tuple(targets.shape)}; the loss takes shape ({expected}) with "
            f"outputs of shape (samples, {', '.join(map(str, output.shape[1:]))})"
        )
    wrong = ((targets < 0) | (targets >= classes)) & (targets != ignored)
    if wrong.any():
        found = targets[wrong]
        raise DataError(
            f"{place} has {found.numel()} labels of no class, such as {int(found[0])}: the model gives {classes} "
            f"outputs, so labels must be from 0 to {classes - 1}"
        )
