"""Coordinates through what the table of operations says is linear, or a contraction."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.operations import argument, operation, value
from nm_ode.symmetries.operations.contractions import contraction_of, inner_product_of
from nm_ode.symmetries.operations.declared import declared, is_number
from nm_ode.symmetries.rules.matrix.contractions import contract
from nm_ode.symmetries.rules.matrix.coordinates import Labels, numbered
from nm_ode.symmetries.rules.matrix.sums import added, along_dimensions, scaled
from nm_ode.symmetries.rules.matrix.traversal import CoordinateTraversal

_ALWAYS_LINEAR = {"avg_pool1d", "avg_pool2d", "avg_pool3d", "cumsum", "_fft_r2c", "_fft_c2c", "_fft_c2r"}
"""Linear also where they do not hand on a shift as it is."""


def rule(t: CoordinateTraversal, node: Node) -> Any:
    """Of an operation that has no rule of its own."""
    if operation(node) == "complex":
        return added(t, node, node.args[:2])
    if operation(node) == "view_as_real":
        return _pairs(t, node)
    form = contraction_of(node) or inner_product_of(node)
    if form is not None:
        return contract(t, node, form)
    if not any(t.known(needed) is not None for needed in node.all_input_nodes):
        return None
    found = declared(node)
    shifts = None if found is None else found.shifts(node)
    if found is None or not isinstance(value(node), Tensor):
        return t.forbid(node)
    if not (operation(node) in _ALWAYS_LINEAR or (shifts is not None and shifts.linear)):
        return t.forbid(node)
    dims = found.along(node)
    if dims:
        return along_dimensions(t, node, node.args[0], dims)
    assert shifts is not None
    terms = [argument(node, name) for name in shifts.coefficients]
    if any(needed not in terms for needed in node.all_input_nodes):
        return t.forbid(node)
    if len(terms) == 1:
        return scaled(t, node, terms[0]) if _only(node, terms[0]) else t.forbid(node)
    return added(t, node, terms)


def _pairs(t: CoordinateTraversal, node: Node) -> Any:
    """Complex numbers as pairs of real ones, which a real matrix mixes alike."""
    labels = t.labels(node.args[0])
    if labels is None:
        return t.forbid(node)
    shape = tuple(value(node).shape)
    coordinates, fibres = (part[..., None].expand(shape) for part in (labels.coordinates, labels.fibres))
    return Labels(coordinates, t.fibre(node, fibres, numbered(shape, (len(shape) - 1,))))


def _only(node: Node, term: Node) -> bool:
    """Is nothing added to it but zero?"""
    numbers = [argument(node, name) for name in ("self", "other")]
    is_sum = operation(node) in ("add", "sub", "rsub")
    return not is_sum or all(number is term or (is_number(number) and number == 0) for number in numbers)
