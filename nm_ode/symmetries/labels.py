"""Operations that only move entries about: carried out on tensors of labels as they are on tensors of numbers.

Labels of a tensor are an int64 tensor of its shape. Where all along a dimension are equal they are expanded, with
stride 0, so that a channel's label costs one number whatever the image's size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.operations import argument, operation

NONE = -1
"""The label of an entry that has none."""

_MOVES = {
    "cat",
    "channel_shuffle",
    "chunk",
    "diagonal",
    "expand",
    "expand_as",
    "flatten",
    "flip",
    "getitem",
    "index_select",
    "mT",
    "matrix_H",
    "movedim",
    "narrow",
    "native_channel_shuffle",
    "numpy_T",
    "permute",
    "pixel_shuffle",
    "pixel_unshuffle",
    "repeat",
    "roll",
    "rot90",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "squeeze",
    "stack",
    "swapaxes",
    "t",
    "tile",
    "transpose",
    "unbind",
    "unflatten",
    "unsqueeze",
}
RESHAPES = {"_unsafe_view", "reshape", "view", "view_as", "_reshape_alias"}
_COPIES = {"alias", "clone", "contiguous", "lift_fresh", "lift_fresh_copy", "positive"}
_CASTS = {"_to_copy", "convert_element_type", "to", "type_as"}
_PICKS = {"index", "repeat_interleave"}
MOVES = frozenset(_MOVES | RESHAPES | _COPIES | _CASTS | _PICKS)
"""Names of all of them; a cast is one only from one floating-point dtype to another."""

Read = Callable[[Any], Any]
"""From an argument that is a node to its labels (a tensor, or a tuple of tensors)."""


def is_move(node: Node) -> bool:
    """Does the operation only move entries about, each result a copy of one entry?"""
    name = operation(node)
    return is_copy(node) or name in _MOVES or name in RESHAPES or name in _PICKS


def is_copy(node: Node) -> bool:
    """Are the result's numbers those of the first argument, each in its place? A cast to integers changes them."""
    name = operation(node)
    if name in _CASTS:
        result, given = node.meta["val"], node.args[0].meta["val"]  # type: ignore[union-attr]
        return bool(result.is_floating_point() and given.is_floating_point())
    return name in _COPIES


def move(node: Node, read: Read) -> Any:
    """Carry out such an operation on labels."""
    name = operation(node)
    if name in _COPIES or name in _CASTS:
        return read(node.args[0])
    if name in RESHAPES:
        return read(node.args[0]).reshape(tuple(node.meta["val"].shape))
    if name == "getitem":
        return read(node.args[0])[node.args[1]]
    arguments, keywords = torch.fx.map_arg((node.args, node.kwargs), read)
    return node.target(*arguments, **keywords)  # type: ignore[operator]


def at(labels: Tensor, axis: int, ndim: int) -> Tensor:
    """A vector of labels placed along one axis of `ndim`, broadcast along the others."""
    shape = [1] * ndim
    shape[axis] = -1
    return labels.reshape(shape)


def compressed(labels: Tensor, keep: tuple[int, ...] = ()) -> Tensor:
    """One entry along each dimension in which all are the same entry (stride 0), but for those to keep."""
    for dim in range(labels.ndim):
        if dim not in keep and labels.stride(dim) == 0 and labels.shape[dim] > 1:
            labels = labels.narrow(dim, 0, 1)
    return labels


def one_for_each(labels: Tensor, keep: tuple[int, ...]) -> Tensor:
    """Shape (kept sizes…, rest): the entries that a reduction over the other dimensions puts together."""
    keep = tuple(dim % labels.ndim for dim in keep)
    sizes = [labels.shape[dim] for dim in keep]
    small = compressed(labels, keep)
    rest = [dim for dim in range(small.ndim) if dim not in keep]
    return small.permute(*keep, *rest).reshape(*sizes, -1)


def other_dims(ndim: int, dims: Any) -> tuple[int, ...]:
    """The dimensions that a reduction over `dims` (an int, a list, None or []) leaves."""
    if dims is None or dims == []:
        return ()
    gone = {dim % ndim for dim in ([dims] if isinstance(dims, int) else dims)}
    return tuple(dim for dim in range(ndim) if dim not in gone)


def dims_of(node: Node) -> Any:
    """The `dim` of a reduction, or None for all."""
    return argument(node, "dim")


def distinct_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The pairs (a[i], b[i]) without repetition, shape (n, 2); both not negative."""
    if not a.size:
        return np.empty((0, 2), dtype=np.int64)
    base = int(b.max()) + 1
    codes = np.unique(a.astype(np.int64) * base + b)
    return np.stack([codes // base, codes % base], axis=1)
