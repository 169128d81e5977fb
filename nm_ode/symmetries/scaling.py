"""Scale and rescale symmetries: which entries of the parameters can be multiplied so that the loss stays.

Every tensor of the graph carries, for each entry, the logarithm of the factor by which it is multiplied: a variable.
An operation says how the variables of its result follow from those of its inputs: a ReLU hands them on, a product
adds them, a sum wants them equal, a normalisation wants them equal over what it normalises and hands on none, and
anything unknown wants them zero. A weight's entry W[o, i] between x[i] and y[o] takes the factor y[o] − x[i]. The
data and the loss have factor zero. What is left free in this linear system are the symmetries, each with the
parameters it moves; a channel is a variable, so they come per channel.

The rules are sound, not complete: every solution is a symmetry of the loss of every batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.graph import Graph, argument, operation, registering, value
from nm_ode.symmetries.kinds import View
from nm_ode.symmetries.shapes import (
    at,
    compressed,
    dims_of,
    distinct_pairs,
    is_move,
    move,
    one_for_each,
    other_dims,
)
from nm_ode.symmetries.weights import Weight, described, moved_weight, overlap, placeholder_view

ZERO = 0
_SMALL = 1e-3  # a number up to this under a root or in a denominator is taken for a normalisation's ε


@dataclass(frozen=True, eq=False)
class Term:
    """Factor of a view's entries along some of its axes: coefficient · variables."""

    axes: tuple[int, ...]
    variables: Tensor
    coefficient: float


@dataclass(frozen=True, eq=False)
class Use:
    """One way in which a parameter is used; the factor of its entries is the sum of the terms."""

    view: View
    terms: tuple[Term, ...]


@dataclass(frozen=True, eq=False)
class Absorption:
    """Where an ε is added to what scales: it breaks the symmetry, by a known amount.

    Attributes:
        node: a normalisation, which takes away the factor of what enters it; or a sum with a small number.
        variables: of the groups (channels, or samples and positions), or of the entries of the sum.
        power: the ε stands beside the factor to this power: 2 beside a variance.
        epsilon: its size.
    """

    node: Node
    variables: Tensor
    power: float
    epsilon: float


@dataclass(frozen=True, eq=False)
class Free:
    """The solution: every variable as a combination of free ones.

    Attributes:
        count: number of free variables.
        rows: variable → list of (free variable, coefficient); a variable that is zero has none.
    """

    count: int
    rows: list[tuple[tuple[int, float], ...]]
    number: np.ndarray

    def of(self, variable: int) -> tuple[tuple[int, float], ...]:
        return self.rows[int(self.number[variable])]


class Variables:
    """The linear system: equalities kept as edges, sums as rows."""

    def __init__(self) -> None:
        self.count = 1  # ZERO
        self._edges: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []  # shape (n, 2k): coefficient, variable, …
        self._roots: np.ndarray | None = None

    def new(self, count: int) -> Tensor:
        made = torch.arange(self.count, self.count + count)
        self.count += count
        self._roots = None
        return made

    def equal(self, a: Tensor, b: Tensor | int) -> None:
        """a = b entry by entry, broadcast."""
        if isinstance(b, int):
            b = torch.tensor(b)
        pairs = _pairs(a, b)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        if len(pairs):
            self._edges.append(pairs)
            self._roots = None

    def zero(self, a: Tensor) -> None:
        self.equal(a, ZERO)

    def merge(self, labels: Tensor, keep: tuple[int, ...]) -> Tensor:
        """Entries equal along all dimensions but those kept; one of each, in the kept dimensions' shape."""
        groups = one_for_each(labels, keep)
        if groups.shape[-1] > 1:
            self.equal(groups[..., 1:], groups[..., :1])
        return groups[..., 0]

    def combine(self, *terms: tuple[float, Tensor]) -> Tensor:
        """New variables for a sum of terms, entry by entry, broadcast; existing ones where that is enough."""
        terms = tuple((c, v) for c, v in terms if not bool((compressed(v) == ZERO).all()))
        if not terms:
            return torch.tensor(ZERO)
        if len(terms) == 1 and terms[0][0] == 1:
            return terms[0][1]
        labels = torch.broadcast_tensors(*(v for _, v in terms))
        small = torch.broadcast_tensors(*(compressed(v) for v in labels))
        stacked = torch.stack([v.reshape(-1) for v in small], dim=1).numpy()
        distinct, inverse = np.unique(stacked, axis=0, return_inverse=True)
        made = self.new(len(distinct)).numpy()
        row = [np.full(len(distinct), -1.0), made]
        for i, (coefficient, _) in enumerate(terms):
            row += [np.full(len(distinct), coefficient), distinct[:, i]]
        self._rows.append(np.stack(row, axis=1))
        result = torch.from_numpy(made[inverse.reshape(-1)]).reshape(small[0].shape)
        return result.expand(labels[0].shape)

    def roots(self) -> np.ndarray:
        """For each variable the number of its class of equal ones."""
        if self._roots is None:
            edges = np.concatenate(self._edges) if self._edges else np.empty((0, 2), dtype=np.int64)
            graph = coo_array(
                (np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(self.count, self.count)
            )
            self._roots = connected_components(graph, directed=False)[1]
        return self._roots

    def uniform(self, labels: Tensor, dim: int) -> bool:
        """Are the variables known to be equal along a dimension?"""
        small = compressed(labels)
        if small.shape[dim] == 1:
            return True
        roots = self.roots()[small.numpy()]
        return bool((roots == np.take(roots, [0], axis=dim)).all())

    def solve(self) -> Free:
        """Eliminate the sums; what no sum determines is free."""
        roots = self.roots()
        zero = int(roots[ZERO])
        determined: dict[int, dict[int, float]] = {zero: {}}
        for rows in self._rows:
            terms = [(rows[:, i], roots[rows[:, i + 1].astype(np.int64)]) for i in range(0, rows.shape[1], 2)]
            signature = np.stack([part for term in terms for part in term], axis=1)
            for row in np.unique(signature, axis=0):
                total: dict[int, float] = defaultdict(float)
                for coefficient, variable in zip(row[::2], row[1::2], strict=True):
                    for free, share in _reduced(int(variable), determined).items():
                        total[free] += coefficient * share
                left = {free: c for free, c in total.items() if abs(c) > 1e-9}
                if left:
                    # Of two variables the later one follows from the earlier: a product from its factors.
                    pivot = max(left)
                    scale = -left.pop(pivot)
                    determined[pivot] = {free: c / scale for free, c in left.items()}
        reduced = [_reduced(root, determined) for root in range(int(roots.max()) + 1)]
        names = {free: i for i, free in enumerate(sorted({free for row in reduced for free in row}))}
        return Free(
            len(names),
            [tuple((names[free], c) for free, c in row.items() if abs(c) > 1e-9) for row in reduced],
            roots,
        )


def _reduced(variable: int, determined: dict[int, dict[int, float]]) -> dict[int, float]:
    if variable not in determined:
        return {variable: 1.0}
    total: dict[int, float] = defaultdict(float)
    for earlier, coefficient in determined[variable].items():
        for free, share in _reduced(earlier, determined).items():
            total[free] += coefficient * share
    determined[variable] = dict(total)
    return determined[variable]


def _pairs(a: Tensor, b: Tensor) -> np.ndarray:
    a, b = torch.broadcast_tensors(a, b)
    small = torch.broadcast_tensors(compressed(a), compressed(b))
    return distinct_pairs(*(part.reshape(-1).numpy() for part in small))


@dataclass
class Scaling:
    """Forward through the graph; `uses` and `absorptions` say what was met on the way."""

    graph: Graph
    variables: Variables = field(default_factory=Variables)
    uses: list[Use] = field(default_factory=list)
    absorptions: list[Absorption] = field(default_factory=list)
    _values: dict[Node, Any] = field(default_factory=dict)
    _elementwise: dict[Node, Tensor] = field(default_factory=dict)

    def run(self) -> Free:
        for node, name in self.graph.parameters.items():
            self._values[node] = Weight(name, placeholder_view(node), frozen=False)
        for node in self.graph.frozen:
            self._values[node] = Weight(str(node), placeholder_view(node), frozen=True)
        for node in self.graph.operations:
            self._values[node] = self._result(node)
        self.variables.zero(self._read(self.graph.loss))
        self._reconcile()
        return self.variables.solve()

    def _result(self, node: Node) -> Any:
        if not any(self._depends(needed) for needed in node.all_input_nodes):
            return None  # data: factor zero, read when asked for
        if is_move(node):
            first = node.args[0]
            if isinstance(first, Node) and isinstance(self._values.get(first), Weight):
                moved = moved_weight(node, self._values[first])
                if moved is not None:
                    return moved
            return move(node, self._read_to_move)
        rule = _RULES.get(operation(node))
        result = rule(self, node) if rule is not None else None
        return self.unknown(node) if result is None else result

    def _depends(self, node: Node) -> bool:
        return self._values.get(node) is not None

    def unknown(self, node: Node) -> Any:
        """Nothing may be multiplied that enters here."""
        for needed in node.all_input_nodes:
            found = self._values.get(needed)
            for labels in found if isinstance(found, tuple | list) else [found]:
                if labels is not None:
                    self.variables.zero(self._read(needed) if isinstance(labels, Weight) else labels)
        result = value(node)
        if isinstance(result, tuple | list):
            return tuple(_zeros(part) if part is not None else None for part in result)
        return _zeros(result)

    def _read(self, node: Any) -> Any:
        """Variables of a node's entries; zeros for data."""
        found = self._values.get(node)
        if isinstance(found, Weight):
            return self._entries(node, found)
        return _zeros(value(node)) if found is None else found

    def _read_to_move(self, node: Any) -> Any:
        known = self.graph.known.get(node)
        if known is not None:  # an index
            return known
        return self._read(node)

    def labels(self, argument: Any) -> Tensor:
        """Variables of an operand: a node, or a number (zero)."""
        if isinstance(argument, Node):
            found = self._read(argument)
            assert isinstance(found, Tensor)
            return found
        return torch.tensor(ZERO)

    def weight(self, node: Any) -> Weight | None:
        """The trainable parameter that a node is a view of, if it is."""
        found = self._values.get(node) if isinstance(node, Node) else None
        return found if isinstance(found, Weight) and not found.frozen else None

    def _entries(self, node: Node, weight: Weight) -> Tensor:
        """A parameter used entry by entry: a variable each."""
        if weight.frozen:
            return _zeros(weight.view)
        if node not in self._elementwise:
            made = self.variables.new(weight.view.numel())
            self._elementwise[node] = made.reshape(weight.view.shape)
            axes = tuple(range(weight.view.ndim))
            self.uses.append(Use(described(weight.name, weight.view), (Term(axes, made, 1.0),)))
        return self._elementwise[node]

    def absorb(self, node: Node, groups: Tensor) -> None:
        epsilon = argument(node, "eps")
        if epsilon is None:  # rms_norm's default
            epsilon = torch.finfo(torch.float64).eps
        for dim in range(groups.ndim):
            if self.variables.uniform(groups, dim):  # so that it broadcasts over batches of any size
                groups = groups.narrow(dim, 0, 1)
        self.absorptions.append(Absorption(node, groups, 2.0, float(epsilon)))

    def _reconcile(self) -> None:
        """A parameter used in several places must take the same factor in each."""
        by_name: dict[str, list[Use]] = defaultdict(list)
        for use in self.uses:
            by_name[use.view.parameter].append(use)
        for uses in by_name.values():
            for i, first in enumerate(uses):
                for second in uses[i + 1 :]:
                    if not overlap(first.view, second.view):
                        continue
                    same = first.view == second.view and [
                        (term.axes, term.coefficient) for term in first.terms
                    ] == [(term.axes, term.coefficient) for term in second.terms]
                    for a, b in zip(first.terms, second.terms, strict=False):
                        if same:
                            self.variables.equal(a.variables, b.variables)
                    if not same:
                        for term in (*first.terms, *second.terms):
                            self.variables.zero(term.variables)


def _zeros(like: Any) -> Tensor:
    return torch.zeros((), dtype=torch.int64).expand(tuple(like.shape))


Rule = Callable[[Scaling, Node], Any]
_RULES: dict[str, Rule] = {}
_rule = registering(_RULES)


@_rule("relu", "leaky_relu", "neg", "abs", "rrelu", "dropout", "feature_dropout")
def _homogeneous(s: Scaling, node: Node) -> Any:
    return s.labels(node.args[0])


@_rule("prelu")
def _prelu(s: Scaling, node: Node) -> Any:
    s.variables.zero(s.labels(node.args[1]))
    return s.labels(node.args[0])


@_rule("native_dropout")
def _native_dropout(s: Scaling, node: Node) -> Any:
    labels = s.labels(node.args[0])
    return labels, _zeros(labels)


@_rule("clamp_min", "clamp")
def _clamp(s: Scaling, node: Node) -> Any:
    low, high = argument(node, "min"), argument(node, "max")
    # A small floor under a norm, as in F.normalize, is met by no norm that is not zero.
    if high is None and isinstance(low, float | int) and (low == 0 or 0 < low <= _SMALL):
        return s.labels(node.args[0])
    return None


@_rule("masked_fill")
def _masked_fill(s: Scaling, node: Node) -> Any:
    filler = node.args[2]
    if isinstance(filler, float | int) and (filler == 0 or np.isinf(filler)):
        return s.labels(node.args[0]).expand(tuple(value(node).shape))
    return None


@_rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d")
@_rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
@_rule("adaptive_max_pool1d", "adaptive_max_pool2d", "max_pool2d_with_indices", "max_pool1d_with_indices")
@_rule("upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d")
@_rule("reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d", "_pad_circular")
def _pool(s: Scaling, node: Node) -> Any:
    labels, result = s.labels(node.args[0]), value(node)
    first = result[0] if isinstance(result, tuple | list) else result
    leading = 2 if labels.ndim > 2 and first.ndim == labels.ndim else 1
    channels = s.variables.merge(labels, tuple(range(leading)))
    out = channels.reshape(*channels.shape, *[1] * (first.ndim - leading)).expand(tuple(first.shape))
    return (out, _zeros(out)) if isinstance(result, tuple | list) else out


@_rule("constant_pad_nd", "pad")
def _pad(s: Scaling, node: Node) -> Any:
    mode, filler = argument(node, "mode", "constant"), argument(node, "value", 0)
    if mode != "constant":
        return _pool(s, node)  # copies of a channel's own entries
    if filler not in (None, 0, 0.0):
        return None
    padded = torch.nn.functional.pad(s.labels(node.args[0]), node.args[1], value=-1).clone()  # type: ignore[arg-type]
    holes = padded == -1
    padded[holes] = s.variables.new(int(holes.sum()))  # a zero stays zero whatever its factor
    return padded


@_rule("add", "sub", "rsub", "maximum", "minimum")
def _sum(s: Scaling, node: Node) -> Any:
    a, b = node.args[:2]
    for one, other in ((a, b), (b, a)):
        if isinstance(other, float | int):
            labels = s.labels(one)
            if other != 0:
                if not (0 < other <= _SMALL and operation(node) == "add" and _is_under_root(node)):
                    return None
                s.absorptions.append(Absorption(node, compressed(labels), 1.0, float(other)))
            return labels
    labels = torch.broadcast_tensors(s.labels(a), s.labels(b))
    s.variables.equal(*labels)
    return labels[0] if not bool((compressed(labels[0]) == ZERO).all()) else labels[1]


def _is_under_root(node: Node) -> bool:
    return all(
        operation(user) in ("rsqrt", "sqrt", "reciprocal")
        or (operation(user) == "pow" and user.args[1] in (-0.5, 0.5, -1))
        or (operation(user) == "div" and user.args[1] is node)
        for user in node.users
    )


@_rule("mul")
def _product(s: Scaling, node: Node) -> Any:
    labels = s.variables.combine(*((1.0, s.labels(part)) for part in node.args[:2]))
    return labels.expand(tuple(value(node).shape))


@_rule("div")
def _quotient(s: Scaling, node: Node) -> Any:
    if argument(node, "rounding_mode") is not None:
        return None
    top, bottom = (s.labels(part) for part in node.args[:2])
    return s.variables.combine((1.0, top), (-1.0, bottom)).expand(tuple(value(node).shape))


@_rule("square", "sqrt", "rsqrt", "reciprocal", "pow")
def _power(s: Scaling, node: Node) -> Any:
    powers = {"square": 2.0, "sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}
    power = powers.get(operation(node), node.args[1] if len(node.args) > 1 else None)
    if not isinstance(power, float | int):
        return None
    return s.variables.combine((float(power), s.labels(node.args[0]))).expand(tuple(value(node).shape))


@_rule("mean", "sum", "amax", "amin", "linalg_vector_norm", "norm", "std", "var")
def _reduction(s: Scaling, node: Node) -> Any:
    labels, result = s.labels(node.args[0]), value(node)
    keep = other_dims(labels.ndim, dims_of(node))
    merged = s.variables.merge(labels, keep)
    if operation(node) == "var":
        merged = s.variables.combine((2.0, merged)).expand(merged.shape)
    return merged.reshape(tuple(result.shape))


@_rule("linear", "addmm", "mm", "bmm", "matmul", "baddbmm", "einsum", "mv")
def _linear(s: Scaling, node: Node) -> Any:
    """y[m, n] = Σ_k a[m, k] b[k, n], in its many spellings."""
    name = operation(node)
    added = None
    if name == "linear":
        a, b, added = node.args[0], node.args[1], argument(node, "bias")
    elif name in ("addmm", "baddbmm"):
        added, a, b = node.args[:3]
    elif name == "einsum":
        return _einsum(s, node)
    else:
        a, b = node.args[:2]
    result = tuple(value(node).shape)
    out = _contracted(s, a, b, transposed=name == "linear")
    if out is None:
        return None
    out = out.expand(result) if out.ndim == len(result) else out.reshape(result)
    if added is not None:
        bias = s.labels(added).expand(result)
        s.variables.equal(out, bias)
    return out


def _contracted(s: Scaling, a: Any, b: Any, *, transposed: bool = False) -> Tensor | None:
    left, right = s.weight(a), s.weight(b)
    if right is not None and right.view.ndim == 2:
        x = s.labels(a)
        axis_n, axis_k = (0, 1) if transposed else (1, 0)
        k = s.variables.merge(x, (-1,))
        y = s.variables.new(right.view.shape[axis_n])
        s.uses.append(
            Use(described(right.name, right.view), (Term((axis_n,), y, 1.0), Term((axis_k,), k, -1.0)))
        )
        return at(y, -1, x.ndim).expand(*x.shape[:-1], -1)
    if left is not None and left.view.ndim == 2 and not transposed and s.labels(b).ndim == 2:
        x = s.labels(b)
        k = s.variables.merge(x, (0,))
        y = s.variables.new(left.view.shape[0])
        s.uses.append(Use(described(left.name, left.view), (Term((0,), y, 1.0), Term((1,), k, -1.0))))
        return y[:, None].expand(-1, x.shape[1])
    labels = s.labels(a), s.labels(b)
    if labels[0].ndim < 2 or labels[1].ndim < 2:
        return None
    return contract(s.variables, labels[0], labels[1].mT if transposed else labels[1])


def contract(variables: Variables, a: Tensor, b: Tensor) -> Tensor:
    """Labels of a @ b for a (…, M, K) and b (…, K, N), neither of them a parameter.

    a[m,k] + b[k,n] must be the same for all k. Where either is uniform in k both must be; where both vary, what
    is taken is a[k] + b[k] = y, which loses only factors of single rows.
    """
    if variables.uniform(a, -1) or variables.uniform(b, -2):
        rows = variables.merge(a, tuple(range(a.ndim - 1)))[..., :, None]
        columns = variables.merge(b, (*range(b.ndim - 2), b.ndim - 1))[..., None, :]
        rows, columns = torch.broadcast_tensors(rows, columns)
        return variables.combine((1.0, rows), (1.0, columns)).expand(rows.shape)
    k_of_a = variables.merge(a, (*range(a.ndim - 2), a.ndim - 1))
    k_of_b = variables.merge(b, tuple(range(b.ndim - 1)))
    total = variables.combine((1.0, k_of_a), (1.0, k_of_b))
    y = variables.merge(total, tuple(range(total.ndim - 1)))
    return y[..., None, None].expand(*y.shape, a.shape[-2], b.shape[-1])


def _einsum(s: Scaling, node: Node) -> Tensor | None:
    """Two operands without repeated or summed-out letters, as a batched matrix product."""
    equation, operands = node.args[0], node.args[1]
    plan = einsum_plan(equation, operands)
    if plan is None:
        return None
    (first, second), (order_a, order_b, order_out), sizes = plan
    a, b = operands[0], operands[1]  # type: ignore[index]
    batch, m, k, n = sizes
    right = s.weight(b)
    if right is not None and not batch:
        view = right.view.permute(order_b)
        x = s.labels(a).permute(order_a)
        kept = s.variables.merge(x, tuple(range(len(m), len(m) + len(k))))
        y = s.variables.new(int(np.prod([value(b).shape[second.index(c)] for c in n] or [1])))
        axes_k, axes_n = tuple(range(len(k))), tuple(range(len(k), len(k) + len(n)))
        kept_view = described(right.name, view)
        s.uses.append(Use(kept_view, (Term(axes_n, y, 1.0), Term(axes_k, kept.reshape(-1), -1.0))))
        shape_m = [value(a).shape[first.index(c)] for c in m]
        shape_n = [value(b).shape[second.index(c)] for c in n]
        out = y.reshape(*[1] * len(m), *shape_n).expand(*shape_m, *shape_n)
        return out.permute(order_out)
    x, w = s.labels(a).permute(order_a), s.labels(b).permute(order_b)
    nb, nm, nk = len(batch), len(m), len(k)
    a3 = x.reshape(*x.shape[:nb], int(np.prod(x.shape[nb : nb + nm])), -1)
    b3 = w.reshape(*w.shape[:nb], int(np.prod(w.shape[nb : nb + nk])), -1)
    out = contract(s.variables, a3, b3)
    return out.reshape(*x.shape[: nb + nm], *w.shape[nb + nk :]).permute(order_out)


def einsum_plan(equation: Any, operands: Any) -> Any:
    """Letters and permutations that make an einsum of two operands a batched matrix product; None if it is not."""
    if len(operands) != 2 or "->" not in equation or "." in equation:
        return None
    inputs, out = equation.replace(" ", "").split("->")
    first, second = inputs.split(",")
    if len(set(first)) < len(first) or len(set(second)) < len(second):
        return None
    batch = [c for c in first if c in second and c in out]
    k = [c for c in first if c in second and c not in out]
    m = [c for c in first if c not in second]
    n = [c for c in second if c not in first]
    if not k or any(c not in out for c in m + n):
        return None
    order_a = [first.index(c) for c in batch + m + k]
    order_b = [second.index(c) for c in batch + k + n]
    made = batch + m + n
    return (first, second), (order_a, order_b, [made.index(c) for c in out]), (batch, m, k, n)


@_rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _convolution(s: Scaling, node: Node) -> Any:
    x, result = s.labels(node.args[0]), value(node)
    if x.ndim != result.ndim or x.ndim < 3:
        return None
    groups = argument(node, "groups", 1)
    channels = s.variables.merge(x, (1,))
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
        entries = s.labels(node.args[1])
        out, inn = entries.shape[:2]
        kernel_merged = s.variables.merge(entries, (0, 1)).reshape(groups, out // groups, inn)
        y = contract(s.variables, channels.reshape(groups, 1, inn), kernel_merged.mT).reshape(-1)
    bias = argument(node, "bias")
    if bias is not None:
        s.variables.equal(y, s.labels(bias))
    return at(y, 1, result.ndim).expand(tuple(result.shape))


@_rule("embedding")
def _embedding(s: Scaling, node: Node) -> Any:
    weight = s.weight(node.args[0])
    if weight is None:
        return None
    y = s.variables.new(weight.view.shape[1])
    s.uses.append(Use(described(weight.name, weight.view), (Term((1,), y, 1.0),)))
    shape = tuple(value(node).shape)
    return at(y, -1, len(shape)).expand(shape)


@_rule("batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional", "native_batch_norm")
def _batch_norm(s: Scaling, node: Node) -> Any:
    result = value(node)
    parts = tuple(result) if isinstance(result, tuple | list) else None
    x = s.labels(node.args[0])
    training = argument(node, "training", argument(node, "train", True))
    if training:
        s.absorb(node, s.variables.merge(x, (1,)))
    else:
        s.variables.zero(x)  # fixed statistics: an affine map
    y = _affine(s, node, x.shape[1:2])
    out = at(y.expand(x.shape[1]), 1, x.ndim).expand(x.shape)
    return out if parts is None else (out, *(_zeros(part) for part in parts[1:]))


@_rule("instance_norm")
def _instance_norm(s: Scaling, node: Node) -> Any:
    x = s.labels(node.args[0])
    if not argument(node, "use_input_stats"):
        return None
    s.absorb(node, s.variables.merge(x, (0, 1)))
    y = _affine(s, node, x.shape[1:2])
    return at(y.expand(x.shape[1]), 1, x.ndim).expand(x.shape)


@_rule("layer_norm", "rms_norm")
def _layer_norm(s: Scaling, node: Node) -> Any:
    x, normalised = s.labels(node.args[0]), argument(node, "normalized_shape")
    leading = x.ndim - len(normalised)
    s.absorb(node, s.variables.merge(x, tuple(range(leading))))
    return _affine(s, node, tuple(normalised)).expand(x.shape)


@_rule("group_norm")
def _group_norm(s: Scaling, node: Node) -> Any:
    x, groups = s.labels(node.args[0]), argument(node, "num_groups")
    s.absorb(node, s.variables.merge(x.unflatten(1, (groups, -1)), (0, 1)))
    y = _affine(s, node, x.shape[1:2])
    return at(y.expand(x.shape[1]), 1, x.ndim).expand(x.shape)


def _affine(s: Scaling, node: Node, shape: Any) -> Tensor:
    """Labels after a normalisation's own γ and β, in the shape of γ; zero without them."""
    weight, bias = argument(node, "weight"), argument(node, "bias")
    y = s.labels(weight) if weight is not None else torch.zeros((), dtype=torch.int64)
    if bias is not None:
        s.variables.equal(y.expand(tuple(shape)), s.labels(bias))
    return y


@_rule("_weight_norm", "_weight_norm_interface")
def _weight_norm(s: Scaling, node: Node) -> Any:
    """W = g v/‖v‖: the norm takes v's factor away, exactly (Salimans & Kingma 2016)."""
    v, g = s.labels(node.args[0]), s.labels(node.args[1])
    dim = argument(node, "dim", 0) % v.ndim
    s.variables.merge(v, (dim,))
    if isinstance(value(node), tuple | list):
        return g.expand(v.shape), _zeros(g)
    return g.expand(v.shape)


@_rule("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu")
def _attention(s: Scaling, node: Node) -> Any:
    query, key, values = (s.labels(part) for part in node.args[:3])
    if argument(node, "enable_gqa", False) or isinstance(value(node), tuple | list):
        return None
    mask = argument(node, "attn_mask")
    if mask is not None:
        s.variables.zero(s.labels(mask))
    s.variables.zero(contract(s.variables, query, key.mT))
    tokens = s.variables.merge(values, (*range(values.ndim - 2), values.ndim - 1))
    return tokens[..., None, :].expand(tuple(value(node).shape))
