"""Factors through sums of products: contractions in their normal form, convolutions, lookups of an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.labels import compressed, placed
from nm_ode.symmetries.operations import argument, operation, registering, value
from nm_ode.symmetries.operations.contractions import (
    CONTRACTIONS,
    ONE,
    Contraction,
    Letters,
    Operand,
    contraction_of,
)
from nm_ode.symmetries.padding import padding_row, stays_zero
from nm_ode.symmetries.rules.scaling.by_table import with_others
from nm_ode.symmetries.rules.scaling.traversal import Rule, ScalingTraversal
from nm_ode.symmetries.rules.scaling.uses import Term, Use
from nm_ode.symmetries.rules.scaling.variables import Variables
from nm_ode.symmetries.rules.weights import Weight, described

_MANY = 1 << 12
"""Entries of a factor that may each have another label."""

RULES: dict[str, Rule] = {}
_rule = registering(RULES)


@_rule(*CONTRACTIONS)
def _contraction(s: ScalingTraversal, node: Node) -> Any:
    """result = Σ a b + added: over what is summed all products must have one factor, and what is added that too."""
    form = contraction_of(node)
    if form is None:
        return None
    if s.is_zero(form.a.node) or s.is_zero(
        form.b.node
    ):  # of a first state, say: the other factor does nothing
        return None if form.added is None else s.labels(form.added).expand(tuple(value(node).shape))
    made = _contracted(s, form)
    out = made.expand(tuple(value(node).shape))
    if form.added is not None and not s.is_zero(form.added):
        s.variables.equal(out, s.labels(form.added).expand(out.shape))
    return out


def _contracted(s: ScalingTraversal, form: Contraction) -> Tensor:
    """Labels along the letters of the result, of size one where they do not vary."""
    a, b = form.a, form.b
    left, right = s.weight(a.node), s.weight(b.node)
    if not form.contracted:
        return s.variables.combine(*((1.0, _along(s, operand, form.out)) for operand in (a, b)))
    if left is not None and right is not None:
        return _of_two_weights(s, form, left, right)
    if right is not None:
        return _of_weight(s, right, b, a, form.out)
    if left is not None:
        return _of_weight(s, left, a, b, form.out)
    batch, k, m, n = form.batch, form.contracted, form.free(a), form.free(b)
    made = contract(
        s.variables,
        _merged(s, a, (*batch, *m, *k)),
        _merged(s, b, (*batch, *k, *n)),
        (len(batch), len(m), len(k), len(n)),
    )
    return _arranged(made, (*batch, *m, *n), form.out)


def _of_weight(s: ScalingTraversal, weight: Weight, operand: Operand, other: Operand, out: Letters) -> Tensor:
    """W[batch, k, n] x[batch, m, k]: an entry takes y[batch, n] − x[batch, k], and all m have one factor."""
    outer = tuple(c for c in operand.letters if c and c in out)
    inner = tuple(c for c in operand.letters if c and c in other.letters)
    x = _merged(s, other, inner)
    y = _new(s, operand, outer)
    _use(s, weight, operand, (outer, y, 1.0), (inner, x, -1.0))
    return _arranged(y, outer, out)


def _of_two_weights(s: ScalingTraversal, form: Contraction, left: Weight, right: Weight) -> Tensor:
    """A[batch, m, k] B[batch, k, n] of two parameters: A takes p[m] + q[k], B takes r[n] − q[k]."""
    batch, k, m, n = form.batch, form.contracted, form.free(form.a), form.free(form.b)
    rows, columns, between = (*batch, *m), (*batch, *n), (*batch, *k)
    p, q, r = _new(s, form.a, rows), _new(s, form.a, between), _new(s, form.b, columns)
    _use(s, left, form.a, (rows, p, 1.0), (between, q, 1.0))
    _use(s, right, form.b, (columns, r, 1.0), (between, q, -1.0))
    return s.variables.combine((1.0, _arranged(p, rows, form.out)), (1.0, _arranged(r, columns, form.out)))


def _new(s: ScalingTraversal, operand: Operand, letters: Letters) -> Tensor:
    sizes = [value(operand.node).shape[operand.letters.index(c)] for c in letters]
    return s.variables.new(prod(sizes)).reshape(sizes)


def _use(
    s: ScalingTraversal, weight: Weight, operand: Operand, *terms: tuple[Letters, Tensor, float]
) -> None:
    s.uses.append(
        Use(
            described(weight.name, weight.view),
            tuple(
                Term(tuple(operand.letters.index(c) for c in letters), labels.reshape(-1), coefficient)
                for letters, labels, coefficient in terms
            ),
        )
    )


def _merged(s: ScalingTraversal, operand: Operand, keep: Letters) -> Tensor:
    """Labels of a factor along some letters; all others are put together."""
    own = tuple(c for c in keep if c in operand.letters)
    labels = s.merged(operand.node, tuple(operand.letters.index(c) for c in own))
    return _arranged(labels, own, keep)


def _along(s: ScalingTraversal, operand: Operand, out: Letters) -> Tensor:
    """Labels of a factor along the result's letters; what the result has not is put together."""
    own = tuple(c for c in operand.letters if c and c in out)
    if all(c in out for c in operand.letters if c):
        labels = s.labels(operand.node)
        for dim in reversed([dim for dim, c in enumerate(operand.letters) if c == ONE]):
            labels = labels.select(dim, 0)
    else:
        labels = _merged(s, operand, own)
    return _arranged(labels, own, out)


def _arranged(labels: Tensor, letters: Letters, out: Letters) -> Tensor:
    """In the order of the result's letters, of size one where it has others."""
    return placed(labels, [out.index(c) for c in letters], len(out))


def contract(variables: Variables, a: Tensor, b: Tensor, counts: Sequence[int]) -> Tensor:
    """Labels (batch…, m…, n…) of Σ_k a b for a (batch…, m…, k…) and b (batch…, k…, n…), neither of them a parameter.

    a[m,k] + b[k,n] must be the same for all k: then a[m,k] = p[m] + q[k] and b[k,n] = r[n] − q[k], and the result
    takes p[m] + r[n]. Where either is uniform in k both must be; where all rows are alike, or there are too many, what
    is taken is a[k] + b[k] = y, which loses only factors of single rows.
    """
    nb, nm, nk, nn = counts
    batch = tuple(range(nb))
    m, k_of_a = tuple(range(nb, nb + nm)), tuple(range(nb + nm, nb + nm + nk))
    k_of_b, n = tuple(range(nb, nb + nk)), tuple(range(nb + nk, nb + nk + nn))
    uniform = [
        all(variables.uniform(labels, dim) for dim in dims) for labels, dims in ((a, k_of_a), (b, k_of_b))
    ]
    if any(uniform):
        rows = variables.merge(a, (*batch, *m))
        columns = variables.merge(b, (*batch, *n))
        rows = rows.reshape((*rows.shape, *[1] * nn))
        columns = columns.reshape((*columns.shape[:nb], *[1] * nm, *columns.shape[nb:]))
        return variables.combine((1.0, rows), (1.0, columns))
    small = compressed(a), compressed(b)
    several = any(n > 1 for n in (*small[0].shape[nb : nb + nm], *small[1].shape[nb + nk :]))
    if several and max(labels.numel() for labels in small) <= _MANY:
        return _in_rows_and_columns(variables, a, b, counts)
    total = variables.combine(
        (1.0, variables.merge(a, (*batch, *k_of_a))), (1.0, variables.merge(b, (*batch, *k_of_b)))
    )
    y = variables.merge(total, batch)
    return y.reshape((*y.shape, *[1] * (nm + nn)))


def _in_rows_and_columns(variables: Variables, a: Tensor, b: Tensor, counts: Sequence[int]) -> Tensor:
    """p[m] + r[n], where a[m,k] = p[m] + q[k] and b[k,n] = r[n] − q[k]."""
    nb, nm, nk, nn = counts

    def new(like: Tensor, dims: range) -> Tensor:
        """Along the batch and some dimensions, as far as what is there varies along them; of size one elsewhere."""
        small = compressed(like)
        sizes = [n if i < nb or i in dims else 1 for i, n in enumerate(small.shape)]
        return variables.new(prod(sizes)).reshape(sizes)

    p, r = new(a, range(nb, nb + nm)), new(b, range(nb + nk, nb + nk + nn))
    q = new(a, range(nb + nm, nb + nm + nk))
    of_b = q.reshape(*q.shape[:nb], *q.shape[nb + nm :], *[1] * nn)
    variables.equal(variables.combine((1.0, p), (1.0, q)), compressed(a))
    variables.equal(variables.combine((1.0, r), (-1.0, of_b)), compressed(b))
    p = p.reshape(*p.shape[: nb + nm], *[1] * nn)
    r = r.reshape(*r.shape[:nb], *[1] * nm, *r.shape[nb + nk :])
    made = variables.combine((1.0, p), (1.0, r))
    return made.expand([*a.shape[: nb + nm], *b.shape[nb + nk :]])


@_rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _convolution(s: ScalingTraversal, node: Node) -> Any:
    x, result = node.args[0], value(node)
    assert isinstance(x, Node)
    if value(x).ndim != result.ndim or result.ndim < 3:
        return None
    groups, bias = argument(node, "groups", 1), argument(node, "bias")
    if s.is_zero(x) and bias is not None:
        return placed(s.labels(bias), (1,), result.ndim).expand(tuple(result.shape))
    channels = s.merged(x, (1,))
    weight = s.weight(node.args[1])
    if weight is not None:
        y = s.variables.new(result.shape[1])
        view = weight.view.unflatten(0, (groups, -1)) if groups > 1 else weight.view
        # Axes of a convolution's outputs and inputs; a transposed one has them the other way round.
        axes = ((0, 1), (0, 2)) if groups > 1 else ((0,), (1,))
        outputs, inputs = axes[::-1] if "transpose" in operation(node) else axes
        kept_view = described(weight.name, view)
        s.uses.append(Use(kept_view, (Term(outputs, y, 1.0), Term(inputs, channels, -1.0))))
    elif "transpose" in operation(node):
        return None
    else:
        kernel = node.args[1]
        assert isinstance(kernel, Node)
        out, inn = value(kernel).shape[:2]
        merged = s.merged(kernel, (0, 1)).reshape(groups, out // groups, inn)
        y = contract(s.variables, channels.reshape(groups, inn), merged.mT, (1, 0, 1, 1))
        y = y.expand(groups, out // groups).reshape(-1)
    if bias is not None and not s.is_zero(bias):
        s.variables.equal(y, s.labels(bias))
    return placed(y, (1,), result.ndim).expand(tuple(result.shape))


@_rule("_trilinear")
def _bilinear(s: ScalingTraversal, node: Node) -> Any:
    """y[o] = Σ_ij a[i] W[o, i, j] b[j]; torch spells F.bilinear so, with dimensions of size one put in."""
    weight = s.weight(node.args[1])
    if weight is None or weight.view.ndim != 3:
        return None
    if list(node.args[3:6]) != [[1, 3], [0], [1, 2]] or argument(node, "sumdim") != [2, 3]:
        return None
    a, b = (s.merged(one, (1,)) for one in (node.args[0], node.args[2]))  # type: ignore[arg-type]
    y = s.variables.new(weight.view.shape[0])
    terms = (Term((0,), y, 1.0), Term((1,), a, -1.0), Term((2,), b, -1.0))
    s.uses.append(Use(described(weight.name, weight.view), terms))
    return y.expand(tuple(value(node).shape))


@_rule("embedding", "embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def _embedding(s: ScalingTraversal, node: Node) -> Any:
    """Rows of a table, or sums, means and maxima of rows: the batch says which, so all rows have one factor."""
    table, results = node.args[0], value(node)
    assert isinstance(table, Node)
    if argument(node, "scale_grad_by_freq"):
        return None  # torch's gradient is not the derivative
    y = s.merged(table, (1,))
    if padding_row(node) is not None and not stays_zero(s.graph, node):
        s.variables.zero(y)  # a row that is not zero, and that nothing trains
    for other in node.all_input_nodes[1:]:
        s.still(other)
    first = results[0] if isinstance(results, tuple | list) else results  # the sums; the others are integers
    return with_others(y.expand(tuple(first.shape)), results)
