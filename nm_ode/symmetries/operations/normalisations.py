"""Normalisations in one normal form: which entries share a mean and a spread, and the γ and β that follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.operations.reading import argument, operation, value


@dataclass(frozen=True)
class Normalisation:
    """result = (x − mean) / spread · weight + bias.

    Attributes:
        x: what is normalised.
        groups: into so many groups the channels (dimension 1) of x are taken apart, `x.unflatten(1, (groups, -1))`;
            0: not at all.
        over: dimensions of x, taken apart, whose entries share a mean and a spread; () where these are fixed.
        own: mean and spread are those of x itself; else they are fixed numbers, and the operation is affine.
        centred: the mean is subtracted.
        weight, bias: γ and β, if there are any.
        affine: dimensions of x, not taken apart, along which γ and β vary.
        epsilon: beside the variance.
    """

    x: Node
    groups: int
    over: tuple[int, ...]
    own: bool
    centred: bool
    weight: Node | None
    bias: Node | None
    affine: tuple[int, ...]
    epsilon: float

    def apart(self, labels: Tensor) -> Tensor:
        """A tensor of x's shape with the channels in groups."""
        return labels.unflatten(1, (self.groups, -1)) if self.groups else labels

    def placed(self, vector: Tensor, ndim: int) -> Tensor:
        """γ's or β's labels, of γ's shape, placed along x's dimensions, broadcast along the others."""
        if not vector.ndim or not self.affine:
            return vector
        return vector.reshape(*vector.shape, *[1] * (ndim - 1 - self.affine[-1]))


def normalisation_of(node: Node) -> Normalisation | None:
    """The normalisation that an operation is, or None; its result is the first where there are several."""
    form = _FORMS.get(operation(node))
    if form is None or not isinstance(value(node.args[0]), Tensor):
        return None
    return form(node)


def _made(node: Node, **attributes: Any) -> Normalisation:
    x, epsilon = node.args[0], argument(node, "eps", argument(node, "epsilon"))
    assert isinstance(x, Node)
    if epsilon is None:  # rms_norm's default
        epsilon = torch.finfo(torch.float64).eps
    return Normalisation(
        x=x,
        weight=argument(node, "weight"),
        bias=argument(node, "bias"),
        epsilon=float(epsilon),
        **{"groups": 0, "own": True, "centred": True} | attributes,
    )


def _batch_norm(node: Node) -> Normalisation:
    ndim = value(node.args[0]).ndim
    own = bool(argument(node, "training", "_no_" not in operation(node)))
    return _made(node, own=own, over=tuple(d for d in range(ndim) if d != 1) if own else (), affine=(1,))


def _instance_norm(node: Node) -> Normalisation:
    own = bool(argument(node, "use_input_stats"))
    over = tuple(range(2, value(node.args[0]).ndim))
    return _made(node, own=own, over=over if own else (), affine=(1,))


def _layer_norm(node: Node) -> Normalisation:
    ndim = value(node.args[0]).ndim
    over = tuple(range(ndim - len(argument(node, "normalized_shape")), ndim))
    return _made(node, over=over, affine=over, centred="rms" not in operation(node))


def _group_norm(node: Node) -> Normalisation:
    groups = argument(node, "num_groups", argument(node, "group"))
    over = tuple(range(2, value(node.args[0]).ndim + 1))
    return _made(node, groups=int(groups), over=over, affine=(1,))


_FORMS: dict[str, Callable[[Node], Normalisation]] = {
    **dict.fromkeys(
        (
            "batch_norm",
            "native_batch_norm",
            "cudnn_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_functional",
            "_native_batch_norm_legit_no_training",
            "_batch_norm_with_update",
            "_batch_norm_with_update_functional",
            "_batch_norm_no_update",
        ),
        _batch_norm,
    ),
    "instance_norm": _instance_norm,
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"), _layer_norm),
    **dict.fromkeys(("group_norm", "native_group_norm"), _group_norm),
}

NORMALISATIONS = frozenset(_FORMS)
"""The operations that are normalisations."""
