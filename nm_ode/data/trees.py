"""Batches as trees: tuples, lists, mappings, dataclasses and what torch's pytree knows, in any nesting."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

from torch.utils import _pytree as pytree

Rebuild: TypeAlias = Callable[[Iterable[Any]], Any]


def flatten(tree: Any) -> tuple[list[Any], Rebuild]:
    """The leaves of a tree, and the function that makes a tree of the same structure from other leaves.

    Dataclasses and mappings (the BatchEncoding of transformers, say) need not be registered with torch: their fields
    are branches. A rebuilt dataclass is a copy with other fields; `__post_init__` does not run again. A rebuilt mapping
    is a copy too if it is a UserDict, and else a dict.
    """
    nodes, spec = pytree.tree_flatten(tree)
    if (
        type(tree) is tuple
        and not any(map(_is_branch, nodes))
        and list(map(id, nodes)) == list(map(id, tree))
    ):
        return nodes, tuple  # the common case, (x, y), at no cost
    if not any(map(_is_branch, nodes)):
        return nodes, partial(pytree.tree_unflatten, treespec=spec)
    parts = [_flatten_fields(node) if _is_branch(node) else ([node], next) for node in nodes]

    def rebuild(leaves: Iterable[Any]) -> Any:
        waiting = iter(leaves)
        return pytree.tree_unflatten([make(islice(waiting, len(own))) for own, make in parts], spec)

    return [leaf for own, _ in parts for leaf in own], rebuild


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with each leaf replaced by the function of it."""
    leaves, rebuild = flatten(tree)
    return rebuild([function(leaf) for leaf in leaves])


def named_leaves(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Each leaf with its place, as one would write it in Python: "batch['mask']"."""
    for path, node in pytree.tree_flatten_with_path(tree)[0]:
        place = name + pytree.keystr(path)
        if _is_branch(node):
            for part, value in _parts(node).items():
                where = f"{place}[{part!r}]" if isinstance(node, Mapping) else f"{place}.{part}"
                yield from named_leaves(value, where)
        else:
            yield place, node


def _is_branch(node: Any) -> bool:
    return isinstance(node, Mapping) or (is_dataclass(node) and not isinstance(node, type))


def _parts(node: Any) -> dict[str, Any]:
    if isinstance(node, Mapping):
        return dict(node)
    return {field.name: getattr(node, field.name) for field in fields(node)}


def _flatten_fields(node: Any) -> tuple[list[Any], Rebuild]:
    parts = _parts(node)
    leaves, rebuild_values = flatten(list(parts.values()))

    def rebuild(leaves: Iterable[Any]) -> Any:
        values = dict(zip(parts, rebuild_values(leaves), strict=True))
        if isinstance(node, Mapping) and not isinstance(node, UserDict):
            return values
        made = copy.copy(node)
        if isinstance(node, UserDict):
            made.data = values
            return made
        for name, value in values.items():
            object.__setattr__(made, name, value)  # also where the dataclass is frozen
        return made

    return leaves, rebuild
