"""Sums of products in one normal form: `F.linear`, `x @ w.T`, `addmm`, `einsum` and their kin are alike to all rules.

The form is an einsum of two operands with a summand. A letter that both operands have and the result has not is
contracted; one that both and the result have is a batch; one that only one operand has is free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias

from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.operations.reading import argument, dims_of, operation, value

ONE = ""
"""The letter of a dimension of size one that is broadcast."""

Letters: TypeAlias = tuple[str, ...]
"""For each dimension a letter, different ones but for `ONE`."""


@dataclass(frozen=True)
class Operand:
    """A factor of a contraction."""

    node: Node
    letters: Letters


@dataclass(frozen=True)
class Contraction:
    """result = alpha · Σ a b + beta · added.

    Attributes:
        a, b: the factors.
        out: letters of the result.
        added: a summand that is broadcast to the result, or None.
        alpha, beta: numbers.
    """

    a: Operand
    b: Operand
    out: Letters
    added: Node | None = None
    alpha: float = 1.0
    beta: float = 1.0

    @property
    def contracted(self) -> Letters:
        """In the order in which `a` has them."""
        return tuple(c for c in self.a.letters if c and c in self.b.letters and c not in self.out)

    @property
    def batch(self) -> Letters:
        """Letters of both factors and the result."""
        return tuple(c for c in self.a.letters if c and c in self.b.letters and c in self.out)

    @property
    def summed(self) -> Letters:
        """Letters of one factor that the result has not: it is summed over them alone."""
        return tuple(
            c
            for one, other in ((self.a, self.b), (self.b, self.a))
            for c in one.letters
            if c and c not in other.letters and c not in self.out
        )

    def free(self, operand: Operand) -> Letters:
        """Letters that the result has from this factor alone."""
        other = self.b if operand is self.a else self.a
        return tuple(c for c in operand.letters if c and c in self.out and c not in other.letters)


def contraction_of(node: Node) -> Contraction | None:
    """The contraction that an operation is, or None; convolutions and lookups are not among them."""
    form = _FORMS.get(operation(node))
    return None if form is None else form(node)


def inner_product_of(node: Node) -> Contraction | None:
    """The contraction that a sum (a mean) over a product is, `(u * v).sum(dim)`, or None."""
    product = node.args[0] if node.args else None
    if operation(node) not in ("sum", "mean") or not isinstance(product, Node) or operation(product) != "mul":
        return None
    if not all(isinstance(factor, Node) for factor in product.args[:2]) or len(product.users) > 1:
        return None
    form, shape, gone = entrywise(product), tuple(value(product).shape), set(dims_of(node))
    kept: list[str] = []
    for dim, letter in enumerate(form.out):
        if dim not in gone:
            kept.append(letter)
        elif argument(node, "keepdim", False):
            kept.append(ONE)
    count = prod(int(shape[dim]) for dim in gone) if operation(node) == "mean" else 1
    return replace(form, out=tuple(kept), alpha=1.0 / count if count else 1.0)


def entrywise(node: Node) -> Contraction:
    """Of an operation entry by entry on two tensors: nothing is contracted."""
    a, b = node.args[:2]
    assert isinstance(a, Node)
    assert isinstance(b, Node)
    shape = tuple(value(node).shape)
    names = _letters(len(shape))
    return Contraction(_broadcast(a, names, shape), _broadcast(b, names, shape), names)


def in_inner_product(node: Node) -> bool:
    """Is an operation a product of which only an inner product is taken?"""
    return (
        operation(node) == "mul"
        and len(node.users) == 1
        and all(inner_product_of(user) is not None for user in node.users)
    )


def _letters(count: int, first: str = "a") -> Letters:
    return tuple(chr(ord(first) + i) for i in range(count))


def _broadcast(node: Node, names: Letters, shape: tuple[int, ...]) -> Operand:
    """Letters of an operand of an operation entry by entry, whose dimensions are the last ones of the result."""
    own = tuple(value(node).shape)
    last = len(names) - len(own)
    return Operand(
        node,
        tuple(ONE if n == 1 and shape[last + i] != 1 else names[last + i] for i, n in enumerate(own)),
    )


def _is_tensors(*nodes: Any) -> bool:
    return all(isinstance(node, Node) and isinstance(value(node), Tensor) for node in nodes)


def _linear(node: Node) -> Contraction | None:
    x, weight, bias = node.args[0], node.args[1], argument(node, "bias")
    if not _is_tensors(x, weight) or value(weight).ndim != 2:
        return None
    leading = _letters(value(x).ndim - 1)
    return Contraction(
        Operand(x, (*leading, "k")),  # type: ignore[arg-type]
        Operand(weight, ("n", "k")),  # type: ignore[arg-type]
        (*leading, "n"),
        bias,
    )


def _matmul(node: Node) -> Contraction | None:
    a, b = node.args[:2]
    return _product(node, a, b) if _is_tensors(a, b) else None


def _added_matmul(node: Node) -> Contraction | None:
    added, a, b = node.args[:3]
    if not _is_tensors(added, a, b):
        return None
    product = _product(node, a, b)
    alpha, beta = argument(node, "alpha", 1), argument(node, "beta", 1)
    if product is None or not all(isinstance(n, float | int) for n in (alpha, beta)):
        return None
    return Contraction(
        product.a,
        product.b,
        product.out,
        added if beta != 0 else None,  # type: ignore[arg-type]
        float(alpha),
        float(beta),
    )


def _product(node: Node, a: Any, b: Any) -> Contraction | None:
    """a @ b with the broadcasting of torch.matmul: vectors have no row or no column, leading dimensions are batches."""
    first, second = tuple(value(a).shape), tuple(value(b).shape)
    if not first or not second:
        return None
    row = ("m",) if len(first) > 1 else ()
    column = ("n",) if len(second) > 1 else ()
    leading = max(len(first), len(second)) - 2
    names = _letters(max(leading, 0))

    def batch(own: tuple[int, ...], other: tuple[int, ...]) -> Letters:
        mine, theirs = own[:-2], other[:-2]
        found = []
        for place in range(len(mine), 0, -1):
            size = theirs[-place] if place <= len(theirs) else 1
            found.append(ONE if mine[-place] == 1 and size != 1 else names[-place])
        return tuple(found)

    return Contraction(
        Operand(a, (*batch(first, second), *row, "k")),
        Operand(b, (*batch(second, first), "k", *column)),
        (*names, *row, *column),
    )


def _dot(node: Node) -> Contraction | None:
    a, b = node.args[:2]
    return Contraction(Operand(a, ("k",)), Operand(b, ("k",)), ()) if _is_tensors(a, b) else None  # type: ignore[arg-type]


def _outer(node: Node) -> Contraction | None:
    a, b = node.args[:2]
    return Contraction(Operand(a, ("m",)), Operand(b, ("n",)), ("m", "n")) if _is_tensors(a, b) else None  # type: ignore[arg-type]


def _einsum(node: Node) -> Contraction | None:
    """Of two operands, none of them with a letter twice."""
    equation, operands = node.args[0], node.args[1]
    if not isinstance(equation, str) or not isinstance(operands, list | tuple) or len(operands) != 2:
        return None
    if not _is_tensors(*operands):
        return None
    inputs, arrow, out = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    letters = [_spelt_out(term, value(one).ndim) for term, one in zip(terms, operands, strict=True)]
    if any(len(set(own)) < len(own) for own in letters):
        return None
    most = max((len(_dots(own)) for own in letters), default=0)
    dots = tuple(f".{i}" for i in range(most, 0, -1))
    if arrow:
        result = tuple(c for part in _split(out) for c in (dots if part == "..." else (part,)))
    else:
        count = [c for own in letters for c in own if not c.startswith(".")]
        result = (*dots, *sorted(c for c in set(count) if count.count(c) == 1))
    a, b = (Operand(one, own) for one, own in zip(operands, letters, strict=True))
    sizes: dict[str, int] = {}
    for operand in (a, b):
        for c, n in zip(operand.letters, value(operand.node).shape, strict=True):
            sizes[c] = max(sizes.get(c, 1), int(n))
    a, b = (
        Operand(
            operand.node,
            tuple(
                ONE if n == 1 and sizes[c] != 1 else c
                for c, n in zip(operand.letters, value(operand.node).shape, strict=True)
            ),
        )
        for operand in (a, b)
    )
    return Contraction(a, b, result)


def _split(term: str) -> list[str]:
    """Letters of a term of an equation, "..." as one."""
    before, dots, after = term.partition("...")
    return [*before, *([dots] if dots else []), *after]


def _spelt_out(term: str, ndim: int) -> Letters:
    """With a letter for each dimension that "..." stands for, counted from the last."""
    parts = _split(term)
    more = ndim - len(parts) + 1
    return tuple(
        c for part in parts for c in ([f".{i}" for i in range(more, 0, -1)] if part == "..." else [part])
    )


def _dots(letters: Letters) -> Letters:
    return tuple(c for c in letters if c.startswith("."))


_FORMS: dict[str, Callable[[Node], Contraction | None]] = {
    "linear": _linear,
    **dict.fromkeys(("mm", "bmm", "mv", "matmul"), _matmul),
    **dict.fromkeys(("addmm", "addmv", "baddbmm"), _added_matmul),
    **dict.fromkeys(("dot", "vdot"), _dot),
    **dict.fromkeys(("outer", "ger"), _outer),
    "einsum": _einsum,
}

CONTRACTIONS = frozenset(_FORMS)
"""The operations that are contractions."""
