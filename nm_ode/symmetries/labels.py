"""Operations that only move entries about: carried out on tensors of labels as they are on tensors of numbers.

Labels of a tensor are an int64 tensor of its shape. Where all along a dimension are equal they are expanded, with
stride 0, so that a channel's label costs one number whatever the image's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.operations import operation

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


def placed(labels: Tensor, dims: Sequence[int], ndim: int) -> Tensor:
    """Labels that vary along some dimensions of `ndim`, given in that order; of size one along the others."""
    ordered = labels.permute(sorted(range(len(dims)), key=lambda i: dims[i]))
    sizes = iter(ordered.shape)
    return ordered.reshape([next(sizes) if dim in dims else 1 for dim in range(ndim)])


def compressed(labels: Tensor, keep: tuple[int, ...] = ()) -> Tensor:
    """One entry along each dimension in which all are the same entry (stride 0), but for those to keep."""
    for dim in range(labels.ndim):
        if dim not in keep and labels.stride(dim) == 0 and labels.shape[dim] > 1:
            labels = labels.narrow(dim, 0, 1)
    return labels


def compressed_together(*labels: Tensor) -> tuple[Tensor, ...]:
    """Broadcast, with one entry along each dimension in which every one of them is the same entry (stride 0)."""
    small = [compressed(part) for part in torch.broadcast_tensors(*labels)]
    return torch.broadcast_tensors(*small)  # type: ignore[no-any-return]


def equal_as_one(labels: Tensor) -> Tensor:
    """One entry along each dimension in which all are equal."""
    labels = compressed(labels)
    for dim, n in enumerate(labels.shape):
        if n > 1 and bool((labels == labels.narrow(dim, 0, 1)).all()):
            labels = labels.narrow(dim, 0, 1)
    return labels


def one_for_each(labels: Tensor, keep: tuple[int, ...]) -> Tensor:
    """Shape (kept sizes…, rest): the entries that a reduction over the other dimensions puts together."""
    keep = tuple(dim % labels.ndim for dim in keep)
    sizes = [labels.shape[dim] for dim in keep]
    small = compressed(labels, keep)
    rest = [dim for dim in range(small.ndim) if dim not in keep]
    return small.permute(*keep, *rest).reshape(*sizes, -1)


def distinct_pairs(one: Tensor, other: Tensor) -> np.ndarray:
    """The pairs of labels, entry by entry, broadcast, that differ: without repetition, shape (n, 2); none negative."""
    a, b = (part.reshape(-1).numpy() for part in compressed_together(one, other))
    if not a.size:
        return np.empty((0, 2), dtype=np.int64)
    base = int(b.max()) + 1
    codes = np.unique(a.astype(np.int64) * base + b)
    first, second = codes // base, codes % base
    differ = first != second
    return np.stack([first[differ], second[differ]], axis=1)
