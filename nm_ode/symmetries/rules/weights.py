"""Parameters on their way to the operation that uses them: views on the meta device, which cost no memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.labels import move
from nm_ode.symmetries.operations import operation, value
from nm_ode.symmetries.symmetry import View


@dataclass(frozen=True, eq=False)
class Weight:
    """A parameter or a view of one, entry for entry."""

    name: str
    view: Tensor
    frozen: bool


def placeholder_view(node: Node) -> Tensor:
    """The whole of a parameter."""
    like = value(node)
    return torch.empty_strided(tuple(like.shape), tuple(like.stride()), device="meta")


def described(name: str, view: Tensor) -> View:
    return View(name, tuple(view.shape), tuple(view.stride()), int(view.storage_offset()))


def moved_weight(node: Node, weight: Weight) -> Weight | list[Weight] | None:
    """A view of a parameter stays one; None where its entries are copied in another order or repeated."""

    def stays(moved: Tensor) -> bool:
        same = moved.untyped_storage()._cdata == weight.view.untyped_storage()._cdata
        repeats = any(n > 1 and stride == 0 for n, stride in zip(moved.shape, moved.stride(), strict=True))
        return same and not repeats

    if operation(node) in ("clone", "contiguous"):
        return weight
    if operation(node) in ("index", "index_select", "repeat_interleave"):
        return None
    moved = move(node, lambda needed: weight.view if needed is node.args[0] else _like(needed))
    if isinstance(moved, Tensor):
        return Weight(weight.name, moved, weight.frozen) if stays(moved) else None
    if all(stays(part) for part in moved):
        return [Weight(weight.name, part, weight.frozen) for part in moved]
    return None


def _like(node: Node) -> Tensor:
    return torch.empty(tuple(value(node).shape), dtype=value(node).dtype, device="meta")


def overlap(one: View, other: View) -> bool:
    """Do two views of the same parameter share an entry?"""
    a, b = one.extent, other.extent
    if a.stop <= b.start or b.stop <= a.start:
        return False
    if one == other or (one.size == a.stop - a.start and other.size == b.stop - b.start):
        return True  # the same, or two without gaps
    return bool(np.intersect1d(one.entries.numpy(), other.entries.numpy()).size)
