"""Products of complex numbers as those of their real and imaginary parts, so that the rules of real products hold.

A spectral layer multiplies a Fourier transform by weights that are pairs of real parameters. Its products are taken
apart when the graph is made (`decompositions`); what stands between the pairs and the products is taken away here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from nm_ode.symmetries.operations import operation, value

_aten = torch.ops.aten
_PLAIN = {"alias", "clone", "contiguous"}


def both_complex(a: Any, b: Any) -> bool:
    """Are they two tensors of complex numbers?"""
    return all(isinstance(one, Tensor) and one.is_complex() for one in (a, b))


def product(a: Tensor, b: Tensor, multiply: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The complex result of what is bilinear, from four real ones."""
    (ar, ai), (br, bi) = (torch.view_as_real(one).unbind(-1) for one in (a, b))
    real = multiply(ar, br) - multiply(ai, bi)
    return torch.complex(real, multiply(ar, bi) + multiply(ai, br))


def without_detours(graph: Graph, sized: frozenset[Node]) -> frozenset[Node]:
    """`view_as_real` of what was made of real pairs is these pairs, and goes before what only moves numbers about.

    Args:
        sized: operations with an argument that was made of the batch's sizes.

    Returns:
        The same, with those that have come in the place of some.
    """
    new_sized = set(sized)
    calls = [node for node in graph.nodes if node.op == "call_function"]
    for node in calls:
        if operation(node) == "_fft_c2r":
            _by_its_parts(graph, node)
    waiting = [
        node for node in graph.nodes if node.op == "call_function" and operation(node) == "view_as_real"
    ]
    changed = bool(waiting)
    while waiting:
        node = waiting.pop()
        found = _before(graph, node)
        if found is not None:
            made, more = found
            if node.args[0] in sized and made.op == "call_function":
                new_sized.add(made)
            node.replace_all_uses_with(made)
            graph.erase_node(node)
            waiting += more
    for node in graph.nodes if changed else ():
        stacked = _stacked(node)
        if stacked is not None:
            node.replace_all_uses_with(stacked)
    if changed:
        graph.eliminate_dead_code()
    return frozenset(new_sized)


def _by_its_parts(graph: Graph, node: Node) -> None:
    """Put what a Fourier transform back to real numbers reads together from its parts, which it reads apart."""
    z = node.args[0]
    assert isinstance(z, Node)
    pairs = torch.view_as_real(value(z))
    parts = pairs.unbind(-1)

    def made(target: Any, arguments: tuple[Any, ...], val: Any) -> Node:
        call = graph.call_function(target, arguments)
        call.meta = node.meta | {"val": val}
        return call

    with graph.inserting_before(node):
        both = made(_aten.unbind.int, (made(_aten.view_as_real.default, (z,), pairs), pairs.ndim - 1), parts)
        real, imaginary = (made(operator.getitem, (both, i), part) for i, part in enumerate(parts))
        node.args = (made(_aten.complex.default, (real, imaginary), value(z)), *node.args[1:])


def _stacked(node: Node) -> Node | None:
    """Of what is stacked and unbound again the part that it was."""
    if node.op != "call_function" or operation(node) != "getitem":
        return None
    unbound, place = node.args
    if not isinstance(unbound, Node) or unbound.op != "call_function" or operation(unbound) != "unbind":
        return None
    stack = unbound.args[0]
    if not isinstance(stack, Node) or stack.op != "call_function" or operation(stack) != "stack":
        return None
    dims = [one.args[1] if len(one.args) > 1 else 0 for one in (unbound, stack)]
    same = dims[0] % value(stack).ndim == dims[1] % value(stack).ndim
    return stack.args[0][place] if same else None  # type: ignore[index, return-value]


def _before(graph: Graph, node: Node) -> tuple[Node, list[Node]] | None:
    """What a `view_as_real` gives without it; and those that have come to stand before."""
    z = node.args[0]
    if not isinstance(z, Node) or z.op != "call_function" or not z.args:
        return None
    name = operation(z)
    if name == "view_as_complex":
        return z.args[0], []  # type: ignore[return-value]
    more: list[Node] = []

    def real(one: Any) -> Any:
        if not isinstance(one, Node) or not value(one).is_complex():
            return one
        made = graph.call_function(_aten.view_as_real.default, (one,))
        made.meta = z.meta | {"val": torch.view_as_real(value(one))}
        more.append(made)
        return made

    target: Any = z.target
    first: Any
    first, *rest = z.args
    with graph.inserting_before(node):
        if name == "complex":
            made = graph.call_function(_aten.stack.default, (list(z.args[:2]), value(z).ndim))
        elif name in ("slice", "narrow", "cat"):
            dim: Any = rest[0] if rest else 0
            if z.kwargs:
                return None
            pieces = [real(one) for one in first] if name == "cat" else real(first)
            made = graph.call_function(target, (pieces, dim % value(z).ndim, *rest[1:]))
        elif name in ("expand", "constant_pad_nd", "pad"):
            numbers: Any = rest[0]
            numbers = [*numbers, 2] if name == "expand" else [0, 0, *numbers]
            made = graph.call_function(target, (real(first), numbers, *rest[1:]), z.kwargs)
        elif name in _PLAIN:
            made = graph.call_function(target, (real(first), *rest), z.kwargs)
        else:
            return None
    made.meta = z.meta | {"val": node.meta["val"]}
    if name in ("constant_pad_nd", "pad") and "with_sizes" in z.meta:
        first, pads, *rest = z.meta["with_sizes"]
        made.meta["with_sizes"] = (first, [0, 0, *pads], *rest)
    return made, more
