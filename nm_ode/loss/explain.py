"""Errors of a user's model and loss in one sentence: what failed, on what, and what to do."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from nm_ode.arguments import dtype_name, first_line
from nm_ode.data.trees import named_leaves
from nm_ode.errors import NmOdeError
from nm_ode.loss.guards import ProblemError

_DTYPES = ("scalar type", "same dtype", "dtype", "must have the same type", "not implemented for")
_BYTES = ("unsigned char", "Byte")
_DEVICES = ("same device", "is on cpu", "on cuda")


NOTHING = object()
"""The model gave nothing, for it failed itself."""


class EvaluationError(ProblemError):
    """The model's or the loss's own code raised an error."""


def failed(
    error: Exception, what: str, batch: Any, dtype: torch.dtype, given: Any = NOTHING
) -> EvaluationError:
    """Why `what` could not be computed on a batch, as an error to be raised from the one that it explains.

    Args:
        what: "the model" or "the loss".
        given: what the model gave to the loss, if it came so far.
    """
    text = first_line(error)
    reason = f"{type(error).__name__}: {text}"
    return EvaluationError(
        f"{what} could not be computed ({reason}); {_hint(error, text, batch, dtype, given)}"
    )


def without_float64(text: str) -> str:
    """What to do where torch has an operation in coarser dtypes alone; empty where an error says something else."""
    if not (
        re.search(r"Expected .*(got|but).*(Double|torch\.float64)", text)
        or "not implemented for 'Double'" in text
    ):
        return ""
    return (
        "torch has an operation of it only in float32 and coarser: take another path of the model, if it has one (of "
        "mixtures of experts in transformers, config._experts_implementation = 'eager')"
    )


def passes_through(error: Exception) -> bool:
    """Is it one that says enough, or that is no fault of the model's (a file that is gone, no memory)?"""
    return isinstance(error, NmOdeError | OSError | torch.OutOfMemoryError | MemoryError)


def _hint(error: Exception, text: str, batch: Any, dtype: torch.dtype, given: Any) -> str:
    seen = ", ".join(f"{place} {_shape(leaf)}" for place, leaf in list(named_leaves(batch, "batch"))[:4])
    if given is not NOTHING and not isinstance(given, Tensor):
        return (
            f"the model returns {type(given).__name__}, which the loss is given as it is: take a loss that reads it, "
            "or Problem.from_objective with an objective that picks what it needs"
        )
    if "does not require grad" in text:
        return "losses are evaluated without gradients, too: take those that it needs itself under torch.enable_grad()"
    if isinstance(error, ImportError):
        return "what it imports must be installed before the loss can be computed"
    if isinstance(error, IndexError) and "arget" in text:
        return "the labels must be from 0 to the number of classes less one, as many as the model has outputs"
    if any(word in text for word in _DEVICES):
        return (
            f"the batch is on the problem's device ({seen}); tensors that the model or the loss holds, but not as "
            "parameters or buffers, must be put there by hand"
        )
    if any(isinstance(leaf, Tensor) and leaf.is_complex() for _, leaf in named_leaves(batch, "batch")):
        return (
            f"the batch has complex numbers ({seen}): give real and imaginary parts as columns (torch.view_as_real), "
            "or a model and a loss that take complex ones"
        )
    if any(word in text for word in _BYTES) and any(_are_bytes(leaf) for _, leaf in named_leaves(batch, "")):
        return (
            f"there are bytes in the batch ({seen}), and networks take numbers: give images as DataSet(x, y, "
            "preparation=nm_ode.data.Preparation(mean, std)), or divide them by 255"
        )
    if dtype == torch.float64 and without_float64(text):
        return f"{without_float64(text)}, or give the problem dtype=torch.float32"
    if any(word in text for word in _DTYPES):
        name = dtype_name(dtype)
        return (
            f"parameters, buffers and floating-point data are {name} here ({seen}); tensors that the model or the "
            f"loss holds otherwise must be {name} too, and targets of the dtype that the loss asks for"
        )
    if isinstance(given, Tensor):
        return f"it was given the model's output {_shape(given)} and the batch: {seen}"
    return f"it was given the batch: {seen}"


def _are_bytes(leaf: Any) -> bool:
    """Of images; labels have one dimension."""
    return isinstance(leaf, Tensor) and leaf.dtype == torch.uint8 and leaf.ndim > 1


def _shape(leaf: Any) -> str:
    if not isinstance(leaf, Tensor):
        return type(leaf).__name__
    return f"of shape {tuple(leaf.shape)}, {dtype_name(leaf.dtype)}"
