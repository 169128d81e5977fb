"""The normal form of contractions: in each spelling, an einsum by the letters is what the operation gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from nm_ode.symmetries.operations.contractions import ONE, Contraction, contraction_of, inner_product_of

RANDOM = torch.Generator().manual_seed(0)
sizes = st.integers(2, 4)
widths = st.sampled_from([1, 2, 3])  # of dimensions that may be broadcast


def graph_of(function, *tensors: Tensor) -> list[torch.fx.Node]:
    """The operations of a function, as torch calls them one by one."""
    graph = make_fx(function, decomposition_table={}, pre_dispatch=True)(*tensors).graph
    values = dict(zip([n for n in graph.nodes if n.op == "placeholder"], tensors, strict=True))
    for node in graph.nodes:
        if node.op == "call_function":
            values[node] = node.target(*torch.fx.map_arg(node.args, values.get), **node.kwargs)
        if node in values:
            node.meta["val"] = values[node]
    return [node for node in graph.nodes if node.op == "call_function"]


def forms_of(function, *tensors: Tensor) -> list[tuple[Contraction, torch.fx.Node]]:
    """The contractions among them."""
    forms = [(contraction_of(node) or inner_product_of(node), node) for node in graph_of(function, *tensors)]
    return [(form, node) for form, node in forms if form is not None]


def by_letters(form: Contraction, values: dict[str, Tensor]) -> Tensor:
    """alpha Σ a b + beta added, with torch.einsum."""
    letters: dict[str, str] = {}

    def spelt(own: tuple[str, ...]) -> str:
        return "".join(letters.setdefault(c, chr(ord("a") + len(letters))) for c in own if c)

    factors = []
    for operand in (form.a, form.b):
        tensor = values[operand.node.name]
        for dim in reversed(range(tensor.ndim)):
            if operand.letters[dim] == ONE:
                assert tensor.shape[dim] == 1
                tensor = tensor.squeeze(dim)
        factors.append(tensor)
    equation = f"{spelt(form.a.letters)},{spelt(form.b.letters)}->{spelt(form.out)}"
    result = form.alpha * torch.einsum(equation, *factors)
    for dim, c in enumerate(form.out):
        if c == ONE:
            result = result.unsqueeze(dim)
    return result if form.added is None else result + form.beta * values[form.added.name]


def check(function, *tensors: Tensor) -> Contraction:
    ((form, node),) = forms_of(function, *tensors)
    names = [n.name for n in node.graph.nodes if n.op == "placeholder"]
    values = dict(zip(names, tensors, strict=True))
    for operand in (form.a, form.b):
        assert set(operand.letters) <= {*form.out, *form.contracted, *form.summed, ONE}
        assert len([c for c in operand.letters if c]) == len({c for c in operand.letters if c})
    expected = function(*tensors)
    assert len(form.out) == expected.ndim
    torch.testing.assert_close(by_letters(form, values).expand(expected.shape), expected)
    return form


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=RANDOM)


@settings(max_examples=12, deadline=None)
@given(m=sizes, k=sizes, n=sizes, b=sizes, data=st.data())
def test_products_of_matrices(m, k, n, b, data):
    check(torch.mm, normal(m, k), normal(k, n))
    check(torch.bmm, normal(b, m, k), normal(b, k, n))
    check(torch.mv, normal(m, k), normal(k))
    check(torch.dot, normal(k), normal(k))
    check(torch.outer, normal(m), normal(n))
    alpha, beta = data.draw(st.sampled_from([1, 0.5, 2, 0])), data.draw(st.sampled_from([1, 0.5, 0]))
    added = normal(*data.draw(st.sampled_from([(m, n), (n,), (m, 1), (1, n)])))
    check(lambda c, a, b: torch.addmm(c, a, b, alpha=alpha, beta=beta), added, normal(m, k), normal(k, n))
    check(lambda c, a, b: torch.addmv(c, a, b, alpha=alpha, beta=beta), normal(m), normal(m, k), normal(k))
    check(
        lambda c, a, b: torch.baddbmm(c, a, b, alpha=alpha, beta=beta),
        normal(*data.draw(st.sampled_from([(b, m, n), (1, m, n), (b, 1, n)]))),
        normal(b, m, k),
        normal(b, k, n),
    )


@settings(max_examples=12, deadline=None)
@given(leading=st.lists(sizes, max_size=3), k=sizes, n=sizes, bias=st.booleans())
def test_linear_layers(leading, k, n, bias):
    given_bias = (normal(n),) if bias else ()
    form = check(nn.functional.linear, normal(*leading, k), normal(n, k), *given_bias)
    assert form.contracted == ("k",)
    assert (form.added is not None) == bias


@settings(max_examples=25, deadline=None)
@given(
    batch=st.lists(st.tuples(sizes, st.sampled_from(["both", "first", "second"])), max_size=2),
    only=st.lists(sizes, max_size=1),
    longer=st.booleans(),
    m=st.none() | widths,
    k=widths,
    n=st.none() | widths,
)
def test_matmul_broadcasts_as_torch_does(batch, only, longer, m, k, n):
    first = [1 if who == "second" else size for size, who in batch] if m is not None else []
    second = [1 if who == "first" else size for size, who in batch] if n is not None else []
    if longer and m is not None:
        first = [*only, *first]
    elif n is not None:
        second = [*only, *second]
    a = normal(*first, *([] if m is None else [m]), k)
    b = normal(*second, k, *([] if n is None else [n]))
    if a.ndim == b.ndim == 1:
        return  # exported as a dot product, tested above
    form = check(torch.matmul, a, b)
    assert form.contracted == ("k",)


@pytest.mark.parametrize(
    ("equation", "first", "second"),
    [
        ("bi,ni->bn", (2, 3), (4, 3)),
        ("bi,bi->b", (2, 3), (2, 3)),
        ("bi,bi", (2, 3), (2, 3)),
        ("ab,bc", (2, 3), (3, 4)),
        ("ba, ca -> cb", (2, 3), (4, 3)),
        ("b...d,...de->...be", (5, 2, 4, 3), (2, 4, 3, 6)),
        ("...d,de", (5, 2, 3), (3, 6)),
        ("...i,...i->...", (5, 1, 3), (4, 3)),
        ("i...,i...", (3, 5, 1), (3, 2)),
        ("bthd,hdk->btk", (2, 3, 4, 5), (4, 5, 6)),
        ("bhid,bhjd->bhij", (2, 3, 4, 5), (2, 3, 6, 5)),
        ("bij,jk->ik", (2, 3, 4), (4, 5)),
        ("i,j->ji", (3,), (4,)),
        ("bi,i->", (2, 3), (3,)),
        ("bi,bj->bij", (2, 3), (1, 4)),
    ],
)
def test_einsum(equation, first, second):
    check(lambda a, b: torch.einsum(equation, a, b), normal(*first), normal(*second))


def test_einsums_that_are_no_contractions_are_not_taken_for_one():
    for equation, shapes in [
        ("ii,ij->ij", [(3, 3), (3, 2)]),
        ("a,b,c->abc", [(2,), (3,), (4,)]),
        ("ij->ji", [(2, 3)]),
    ]:
        assert not forms_of(lambda *t, e=equation: torch.einsum(e, *t), *(normal(*shape) for shape in shapes))


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.tuples(sizes, st.sampled_from(["both", "first", "second"])), min_size=1, max_size=3),
    shorter=st.booleans(),
    keep=st.booleans(),
    mean=st.booleans(),
    data=st.data(),
)
def test_sums_over_a_product(shape, shorter, keep, mean, data):
    first = [1 if who == "second" else n for n, who in shape]
    second = [1 if who == "first" else n for n, who in shape]
    second = second[1:] if shorter else second
    dims = data.draw(st.sets(st.integers(-len(shape), len(shape) - 1), min_size=1))
    dims = sorted({d % len(shape) for d in dims})
    reduce = torch.mean if mean else torch.sum
    check(lambda a, b: reduce(a * b, dims, keepdim=keep), normal(*first), normal(*second))
    check(lambda a, b: reduce(a * b), normal(*first), normal(*second))
