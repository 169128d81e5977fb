"""Sizes of a batch as unknowns: what an operation reads of them, and where a model asks how large its batch is.

torch.export keeps sizes as symbols where it can. The proof runs on the sizes of the example, which are put in their
place; but a number that was made of a size is data: what is picked by it is not known.
"""

from __future__ import annotations

import builtins
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.export import Dim
from torch.fx import Graph, Node

from nm_ode.symmetries.errors import DependsOnValuesError
from nm_ode.symmetries.places import place_of

_MOST = 1024  # samples of a batch that is tried because a model asks for its size
_MANY = 4  # other sizes that are looked at

_PICKS = {"slice", "narrow", "select", "index", "index_select", "split", "split_with_sizes", "embedding"}

_LONG = 32  # samples or tokens, above which a few are tried in their place
_FEW = (9, 12, 17, 24)

_Symbolic = torch.SymInt | torch.SymFloat | torch.SymBool

Sizes: TypeAlias = dict[Any, int]
"""Symbol → number."""


def unknown_sizes(tensors: Sequence[Tensor], *, images: bool = False) -> tuple[dict[int, Any], ...]:
    """For torch.export: the number of samples, and of the tokens of what is no image, may be any.

    Args:
        images: those of images too, which takes several times as long where there are convolutions.
    """
    return tuple(
        {
            dim: Dim.AUTO
            for dim, size in enumerate(tensor.shape)
            if size > 1 and (dim == 0 or tensor.ndim <= 3 or images)  # torch keeps a 1 as it is
        }
        for tensor in tensors
    )


def reads_part_of_a_parameter(graph: Graph, parameters: Collection[str]) -> bool:
    """Is a place in a parameter picked, which may be by the example's size (positions up to the number of patches)?"""
    still: set[Node] = set()
    for node in graph.nodes:
        needed = node.all_input_nodes
        if node.op == "placeholder" and node.name in parameters:
            still.add(node)
        elif needed and needed[0] in still:
            schema = getattr(node.target, "_schema", None)
            if schema is not None and schema.name.rpartition("::")[2] in _PICKS:
                return True
            if all(n in still for n in needed):
                still.add(node)
    return False


@contextmanager
def symbolic_len() -> Iterator[None]:
    """`len(x)` of a tensor is its first size as the symbol that it is, not the number that Python makes of it.

    Python's `len` itself is another function meanwhile, which gives the same of all else: nothing but a size that has
    become a number would be left to see in a model that writes `torch.arange(len(x))`.
    """
    plain = builtins.len

    def length(of: Any) -> Any:
        return of.shape[0] if isinstance(of, Tensor) and of.ndim else plain(of)

    builtins.len = length
    try:
        yield
    finally:
        builtins.len = plain


def read_as_number(inputs: Iterable[Tensor]) -> bool:
    """Has the number of samples, a symbol at first, become a number on the way?"""
    first: list[Any] = [tensor.shape[0] for tensor in inputs if tensor.ndim]
    return not any(isinstance(size, torch.SymInt) and size.node.expr.is_Symbol for size in first)


def short_sizes(inputs: Iterable[Tensor]) -> Sizes:
    """A few in the place of many samples or tokens, where the graph is the same for them; empty where it is not.

    The graph of 1024 tokens proves what that of twelve proves if the number is a symbol in it, and if twelve answer
    alike all that the model asks of the number.

    Args:
        inputs: the data's tensors as torch.export keeps them, with symbols.
    """
    dims: list[Any] = [size for tensor in inputs for size in tensor.shape]
    sizes = [size for size in dims if isinstance(size, torch.SymInt)]
    given = {size.node.expr: _hint(size) for size in sizes if size.node.expr.is_Symbol}
    long = sorted({number for number in given.values() if number > _LONG})
    if not long:
        return {}
    environment = sizes[0].node.shape_env
    asked = [guard.expr.xreplace(dict(environment.replacements)) for guard in environment.guards]
    for least in _FEW:
        few = {number: least + 2 * i for i, number in enumerate(long)}
        chosen = {symbol: few.get(number, number) for symbol, number in given.items()}
        within = all(environment.var_to_range[symbol].lower <= number for symbol, number in chosen.items())
        if within and not any(str(guard.subs(chosen)) == "False" for guard in asked):
            return chosen
    return {}


def fix_sizes(graph: Graph, chosen: Sizes) -> frozenset[Node]:
    """Put sizes in the place of symbols; the operations with an argument that was made of one.

    Args:
        chosen: of `short_sizes`; the example's where there are none.

    Raises:
        SymmetryError: a size depends on the values of tensors.
    """
    numbers = {}
    for node in graph.nodes:
        if isinstance(node.meta.get("val"), _Symbolic):
            try:
                numbers[node] = _hint(node.meta["val"], chosen)
            except DependsOnValuesError as error:
                raise DependsOnValuesError(f"{place_of(node)}: {error}") from None
    sized = set()
    for node in graph.nodes:
        if "val" in node.meta:
            node.meta["val"] = _fixed(node.meta["val"], chosen)
        if any(needed in numbers for needed in node.all_input_nodes):
            node.meta["with_sizes"] = node.args
            node.args, node.kwargs = torch.fx.map_arg(
                (node.args, node.kwargs), lambda needed: numbers.get(needed, needed)
            )
            sized.add(node)
    return frozenset(sized)


def other_sizes(inputs: Iterable[Tensor]) -> tuple[int, ...]:
    """Numbers of samples at which the traced model may do something else than at the example's.

    Args:
        inputs: the data's tensors as torch.export keeps them, with symbols.
    """
    first: list[Any] = [tensor.shape[0] for tensor in inputs if tensor.ndim]
    unknown = [size.node for size in first if isinstance(size, torch.SymInt)]
    symbols = {node.expr for node in unknown if node.expr.is_Symbol}
    if not symbols:  # it is read as a number: a loop over the samples, or a question
        return tuple({int(size) + 1: None for size in first})[:1]
    environment = unknown[0].shape_env
    asked = [guard.expr.xreplace(dict(environment.replacements)) for guard in environment.guards]
    asked = [guard for guard in asked if guard.free_symbols and guard.free_symbols <= symbols]
    numbers = {int(number) for guard in asked for number in guard.atoms() if number.is_Integer}
    near = {number + step for number in numbers for step in (-1, 0, 1)} | {_hint(size) + 1 for size in first}

    def violated(n: int) -> bool:
        return any(str(guard.subs(dict.fromkeys(symbols, n))) == "False" for guard in asked)

    return tuple([n for n in sorted(near) if 2 <= n <= _MOST and violated(n)][:_MANY])


def read_lengths(inputs: Iterable[Tensor]) -> tuple[int, ...]:
    """Sizes but of samples, of what is no image, that the model has read as numbers: tokens that it loops over or
    multiplies by, features.

    Args:
        inputs: the data's tensors as torch.export keeps them, with symbols.
    """
    sizes: list[Any] = [size for tensor in inputs if tensor.ndim <= 3 for size in tensor.shape[1:]]
    read = {int(size) for size in sizes if not isinstance(size, torch.SymInt) or size.node.expr.is_number}
    return tuple(sorted(read - {0, 1}))


def _hint(number: Any, chosen: Sizes | None = None) -> Any:
    if not isinstance(number, _Symbolic):
        return number
    if not number.node.has_hint():
        raise DependsOnValuesError(
            "the model's sizes depend on the values of tensors (x[mask], nonzero, unique), so that one graph does not "
            "hold for all batches; write it with torch.where or a product with the mask; or, where it is the same for "
            "every batch (a graph's edges), compute it of buffers alone"
        )
    expression = number.node.expr
    if not chosen or not expression.free_symbols & chosen.keys():
        return number.node.hint
    return type(number.node.hint)(expression.subs(chosen))


def _fixed(value: Any, chosen: Sizes) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_fixed(part, chosen) for part in value)
    if not isinstance(value, Tensor) or not any(
        isinstance(size, torch.SymInt) for size in (*value.shape, *value.stride())
    ):
        return value
    sizes, strides = ([_hint(n, chosen) for n in numbers] for numbers in (value.shape, value.stride()))
    return torch.empty_strided(sizes, strides, dtype=value.dtype, device="meta")
