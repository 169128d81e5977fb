"""Where values that are not finite come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from nm_ode.arguments import all_finite, not_finite
from nm_ode.data.base import DataError
from nm_ode.data.trees import named_leaves


def not_finite_in(tree: Any, name: str) -> str:
    """The arrays of a batch that hold values which are not finite, and how many; "" if none does."""
    found = [
        f"{place} has {not_finite(leaf)}"
        for place, leaf in named_leaves(tree, name)
        if isinstance(leaf, Tensor) and not all_finite(leaf)
    ]
    return "; ".join(found)


def why_not_finite(loss: float, step: int, lr: float, batches: Iterable[Any]) -> str:
    """What to do about a loss of training: its data may be why, or its start, and else the learning rate.

    Args:
        batches: on which the loss was taken.
    """
    smaller = f"choose a smaller learning rate (lr = {lr:g})"
    for batch in batches:
        found = not_finite_in(batch, "its batch")
        if found:
            return (
                f"the loss is {loss} at step {step}: {found}; leave these values out, or fill them in; or, if "
                f"the loss does not read them, {smaller}"
            )
    if step == 0:
        return f"the loss is {loss} at step 0, before any update: start from a theta at which it is finite"
    return (
        f"training diverged: the loss is {loss} at step {step} (lr = {lr:g}); choose a smaller learning rate"
    )


def require_finite_data(tree: Any, n_samples: int, loss: Callable[[Tensor], Tensor], at_most: int) -> None:
    """Raises DataError if data are not finite and the loss reads those values.

    It need not: masks for attention hold −∞, and an objective may leave out targets that are NaN.

    Args:
        tree: all data, in memory.
        loss: over some samples, at the start.
        at_most: so many of the samples concerned are tried.
    """
    for place, leaf in named_leaves(tree, "data"):
        if not isinstance(leaf, Tensor) or all_finite(leaf):
            continue
        concerned = (~leaf.isfinite()).reshape(n_samples, -1).any(dim=1).nonzero().squeeze(1).cpu()
        if not bool(loss(concerned[:at_most]).isfinite()):
            listed = ", ".join(str(int(i)) for i in concerned[:3]) + (" …" if len(concerned) > 3 else "")
            raise DataError(
                f"{place} has {not_finite(leaf)}, in {len(concerned)} of {n_samples} samples ({listed}), and the loss "
                "of those is not finite: leave them out, or fill them in"
            )


def close(one: Tensor, other: Tensor) -> bool:
    """Are two losses equal but for rounding, as where the order of a sum is not fixed, or both not finite?"""
    a, b = float(one), float(other)
    return (
        a == b or (a != a and b != b) or abs(a - b) <= 1e3 * torch.finfo(one.dtype).eps * max(abs(a), abs(b))
    )
