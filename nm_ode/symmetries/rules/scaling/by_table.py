"""Factors through an operation as `operations.declared` has it: degrees of homogeneity, and what is put together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.labels import placed
from nm_ode.symmetries.operations import argument, value
from nm_ode.symmetries.operations.declared import Degrees, declared
from nm_ode.symmetries.rules.scaling.traversal import ScalingTraversal, zeros


def by_table(s: ScalingTraversal, node: Node) -> Any:
    """Variables of the result of a declared operation; None where nothing is declared of it."""
    entry = declared(node)
    degrees = None if entry is None else entry.degrees(node)
    if entry is None or degrees is None or not first_alone(s, node):
        return None
    weight = _still_a_weight(s, node, degrees)
    if weight is not None:
        return weight
    if node in s.graph.sized and any(degree.degree not in (-1, 0, 1) for degree in degrees):
        return None  # h ** n: the degree is the batch's
    along = entry.along(node)
    main = _main_shape(node, degrees) if along else None
    if along and main is None:
        return None
    keep = tuple(dim for dim in range(len(main or ())) if dim not in along)
    terms: list[tuple[float, Tensor]] = []
    named: set[Node] = set()
    for degree in degrees:
        operands = [one for one in (argument(node, name) for name in degree.arguments) if _is_tensor(one)]
        if not operands:
            continue
        named.update(operands)
        labels = alike(s, operands)
        if main is not None:
            labels = s.variables.merge(labels.expand(main), keep)
        terms.append((degree.degree, labels))
    for other in node.all_input_nodes:
        if other not in named:
            s.still(other)
    labels = s.variables.combine(*terms) if terms else torch.tensor(0)
    results = value(node)
    first = _over(labels, main, keep, results[0] if isinstance(results, tuple | list) else results)
    return None if first is None else with_others(first, results)


def with_others(first: Tensor, results: Any) -> Any:
    """Variables of an operation's results, of which only the first may take factors."""
    several = isinstance(results, tuple | list)
    return (first, *(zeros(part) for part in results[1:])) if several else first


def _main_shape(node: Node, degrees: Degrees) -> tuple[int, ...] | None:
    """The shape to which all arguments with a factor are broadcast, in which dimensions are put together."""
    given = [argument(node, name) for degree in degrees for name in degree.arguments]
    shape = tuple(torch.broadcast_shapes(*(tuple(value(one).shape) for one in given if _is_tensor(one))))
    return shape if len(shape) == value(node.args[0]).ndim else None


def alike(s: ScalingTraversal, operands: list[Any]) -> Tensor:
    """Operands that must take the same factors, entry by entry; zeros take any."""
    shape = torch.broadcast_shapes(*(tuple(value(one).shape) for one in operands))
    parts = [s.labels(one) for one in operands if not s.is_zero(one)] or [s.labels(operands[0])]
    first = parts[0].expand(shape)
    for other in parts[1:]:
        s.variables.equal(first, other.expand(shape))
    return next((part.expand(shape) for part in parts if s.variables.is_zero(part)), first)


def _over(labels: Tensor, main: tuple[int, ...] | None, keep: tuple[int, ...], result: Any) -> Tensor | None:
    """Over the result; its dimensions that were put together are of another size, of size one, or gone."""
    shape = tuple(result.shape)
    if not (result.is_floating_point() or result.is_complex()):
        return zeros(result)  # indices and comparisons, which factors that are all alike leave as they are
    if main is None or len(shape) != len(main):
        wanted = labels
    else:
        wanted = placed(labels, keep, len(main))
    if wanted.ndim > len(shape) or any(
        n not in (1, m) for n, m in zip(reversed(wanted.shape), reversed(shape), strict=False)
    ):
        return None
    return wanted.expand(shape)


def first_alone(s: ScalingTraversal, node: Node) -> bool:
    """Are further results, of which nothing is declared, numbers that nobody reads, or indices and masks?"""
    results = value(node)
    if isinstance(results, Tensor):
        return True
    read = {user.args[1] for user in node.users if user in s.live}
    return isinstance(results, tuple | list) and not any(
        isinstance(part, Tensor) and part.is_floating_point() and place in read
        for place, part in enumerate(results[1:], start=1)
    )


def _still_a_weight(s: ScalingTraversal, node: Node, degrees: Degrees) -> Any:
    """A parameter times data, or masked, has the factors of the parameter entry by entry."""
    names = {
        argument(node, degree.arguments[0]): degree
        for degree in degrees
        if len(degree.arguments) == 1 and s.weight(argument(node, degree.arguments[0])) is not None
    }
    if len(names) != 1:
        return None
    ((one, degree),) = names.items()
    weight = s.weight(one)
    others = [other for other in node.all_input_nodes if other is not one]
    fits = isinstance(value(node), Tensor) and weight is not None and value(node).shape == weight.view.shape
    return weight if fits and degree.degree == 1 and all(map(s.is_data, others)) else None


def _is_tensor(given: Any) -> bool:
    return isinstance(given, Node) and isinstance(value(given), Tensor)
