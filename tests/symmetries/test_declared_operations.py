"""The table of operations tried on torch's own: every declared degree, shift and dimension that is put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import Graph, Node

from nm_ode.symmetries.operations import argument
from nm_ode.symmetries.operations.declared import DECLARED, Declared

aten = torch.ops.aten


def drawn(*shape: int, seed: int = 0, positive: bool = False) -> Tensor:
    made = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return made.abs() + 0.1 if positive else made


X, Y, P = drawn(3, 4, 5), drawn(3, 4, 5, seed=1), drawn(3, 4, 5, positive=True)
MASK = drawn(3, 4, 5, seed=2) > 0
LINE, IMAGE, BLOCK = drawn(2, 3, 8), drawn(2, 3, 6, 6), drawn(2, 3, 4, 4, 4)
C = torch.complex(X, Y)

CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    *(
        (getattr(aten, name).default, (X,), {})
        for name in ("relu", "leaky_relu", "abs", "neg", "sign", "sgn")
    ),
    (aten.square.default, (X,), {}),
    *((getattr(aten, name).default, (X,), {}) for name in ["isnan", "isfinite", "logical_not", "angle"]),
    *((getattr(aten, name).default, (P,), {}) for name in ["sqrt", "rsqrt", "reciprocal"]),
    (aten.rrelu.default, (X, 0.1, 0.3, False), {}),
    (aten.rrelu_with_noise.default, (X, torch.zeros_like(X), 0.1, 0.3, False), {}),
    (aten.rrelu_with_noise_functional.default, (X, torch.zeros_like(X), 0.1, 0.3, False), {}),
    (aten.prelu.default, (X, drawn(4)), {}),
    (aten.dropout.default, (X, 0.5, False), {}),
    (aten.feature_dropout.default, (X, 0.5, False), {}),
    (aten.native_dropout.default, (X, 0.5, False), {}),
    (aten.tril.default, (X,), {}),
    (aten.triu.default, (X, 1), {}),
    (aten.clamp.default, (X, 0.0), {}),
    (aten.clamp.default, (X, None, 0.0), {}),
    (aten.clamp.default, (X, -1.0, 1.0), {}),
    (aten.clamp_min.default, (X, 0.0), {}),
    (aten.clamp_max.default, (X, 0.0), {}),
    (aten.index_fill.int_Scalar, (X, 1, torch.tensor([0, 2]), 0.0), {}),
    *((getattr(aten, name).Scalar, (X, 0), {}) for name in ["gt", "lt", "ge", "le", "eq", "ne"]),
    *((getattr(aten, name).Tensor, (X, Y), {}) for name in ["gt", "lt", "ge", "le", "eq", "ne"]),
    (aten.gt.Scalar, (X, 0.5), {}),
    (aten.heaviside.default, (X, drawn(3, 4, 5, seed=3)), {}),
    *(
        (getattr(aten, name).default, (C,), {})
        for name in ["real", "imag", "conj_physical", "_conj", "resolve_conj"]
    ),
    *((getattr(aten, name).Tensor, (X, Y), {"alpha": 0.3}) for name in ["add", "sub", "rsub"]),
    *((getattr(aten, name).Scalar, (X, 0), {"alpha": 0.3}) for name in ["add", "sub", "rsub"]),
    (aten.add.Scalar, (X, 2.0), {}),
    (aten.mul.Tensor, (X, Y), {}),
    (aten.mul.Scalar, (X, -1.7), {}),
    (aten.div.Tensor, (X, P), {}),
    (aten.div.Scalar, (X, -1.7), {}),
    (aten.div.Tensor_mode, (X, P), {"rounding_mode": "floor"}),
    (aten.pow.Tensor_Scalar, (P, 1.5), {}),
    (aten.pow.Scalar, (2.0, X), {}),
    *(
        (getattr(aten, name).default, (X, Y), {})
        for name in ["maximum", "minimum", "fmax", "fmin", "hypot", "atan2"]
    ),
    (aten.where.self, (MASK, X, Y), {}),
    (aten.where.ScalarOther, (MASK, X, 0.0), {}),
    (aten.where.ScalarOther, (MASK, X, 1.0), {}),
    (aten.lerp.Scalar, (X, Y, 0.3), {}),
    (aten.lerp.Tensor, (X, Y, P), {}),
    *((getattr(aten, name).dim_IntList, (X, [1]), {}) for name in ["sum"]),
    (aten.sum.default, (X,), {}),
    (aten.sum.dim_IntList, (X, [0, -1], True), {}),
    (aten.mean.dim, (X, [1], True), {}),
    (aten.mean.default, (X,), {}),
    (aten.nansum.default, (X, [1]), {}),
    *(
        (getattr(aten, name).default, (X, [1], keep), {})
        for name in ("amax", "amin")
        for keep in (True, False)
    ),
    (aten.sort.default, (X, 1), {}),
    (aten.topk.default, (X, 2, 1), {}),
    (aten.kthvalue.default, (X, 2, 1, True), {}),
    *((getattr(aten, name).dim, (X, 1), {}) for name in ["median", "nanmedian", "max", "min"]),
    *((getattr(aten, name).default, (X,), {}) for name in ["median", "nanmedian", "max", "min"]),
    *((getattr(aten, name).other, (X, Y), {}) for name in ["max", "min"]),
    (aten.mode.default, (X, 1), {}),
    (aten.cummax.default, (X, 1), {}),
    (aten.cummin.default, (X, 1), {}),
    (aten.cumsum.default, (X, 1), {}),
    (aten.argmax.default, (X, 1), {}),
    (aten.argmin.default, (X,), {}),
    (aten.argsort.default, (X, 1), {}),
    (aten.count_nonzero.dim_IntList, (X, [1]), {}),
    (aten._fft_r2c.default, (X, [1], 0, True), {}),
    (aten._fft_c2c.default, (C, [1], 0, True), {}),
    (aten._fft_c2r.default, (C, [1], 0, 6), {}),
    (aten.prod.dim_int, (X, 1), {}),
    (aten.trace.default, (drawn(4, 4),), {}),
    (aten._pdist_forward.default, (drawn(4, 3),), {}),
    (aten.pdist.default, (drawn(4, 3),), {}),
    (aten.complex.default, (X, Y), {}),
    (aten.view_as_complex.default, (drawn(3, 4, 2),), {}),
    (aten.dist.default, (X, Y), {}),
    (aten.cosine_similarity.default, (X, Y, 1), {}),
    (aten.linalg_cross.default, (drawn(4, 3), drawn(4, 3, seed=1)), {}),
    (aten.logsumexp.default, (X, [1]), {}),
    (aten.logcumsumexp.default, (X, 1), {}),
    *((aten.linalg_vector_norm.default, (X, order, [1]), {}) for order in (0, 1, 2, 3.5)),
    (aten.norm.ScalarOpt_dim, (X, 2, [1]), {}),
    (aten.norm.ScalarOpt_dim, (X, None, [1], True), {}),
    (aten.std.correction, (X, [1]), {}),
    (aten.var.correction, (X, [1]), {"keepdim": True}),
    *((getattr(aten, name).int, (X, 1), {}) for name in ["softmax", "log_softmax"]),
    *((getattr(aten, name).default, (X, 1, False), {}) for name in ["_softmax", "_log_softmax"]),
    (aten._safe_softmax.default, (X, 1), {}),
    (aten.cross_entropy_loss.default, (drawn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])), {}),
    (aten.multi_margin_loss.default, (drawn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])), {}),
    (aten.multilabel_margin_loss.default, (drawn(2, 4), torch.tensor([[0, 1, -1, 2], [3, -1, 0, 0]])), {}),
    (
        aten.multilabel_margin_loss_forward.default,
        (drawn(2, 4), torch.tensor([[0, 1, -1, 2], [3, -1, 0, 0]]), 1),
        {},
    ),
    *(
        (getattr(aten, f"{kind}_pool{n}d").default, (x, [3] * n, [2] * n, [1] * n), {})
        for kind in ("max", "avg")
        for n, x in ((1, LINE), (2, IMAGE), (3, BLOCK))
    ),
    (aten.avg_pool2d.default, (IMAGE, [3, 3], [2, 2], [1, 1], False, False), {}),
    (aten.avg_pool2d.default, (IMAGE[0], [2, 2]), {}),
    (aten.max_pool1d_with_indices.default, (LINE, [2]), {}),
    (aten.max_pool2d_with_indices.default, (IMAGE, [2, 2]), {}),
    (aten.max_pool3d_with_indices.default, (BLOCK, [2, 2, 2]), {}),
    *(
        (getattr(aten, f"adaptive_{kind}_pool{n}d").default, (x, [2] * n), {})
        for kind in ("max", "avg")
        for n, x in ((1, LINE), (2, IMAGE), (3, BLOCK))
        if hasattr(aten, f"adaptive_{kind}_pool{n}d") and f"adaptive_{kind}_pool{n}d" in DECLARED
    ),
    (aten._adaptive_avg_pool2d.default, (IMAGE, [2, 2]), {}),
    (aten._adaptive_avg_pool3d.default, (BLOCK, [2, 2, 2]), {}),
    *(
        (getattr(aten, f"{kind}{n}d").default, (x, [9] * n), {})
        for kind in ("upsample_nearest", "_upsample_nearest_exact")
        for n, x in ((1, LINE), (2, IMAGE), (3, BLOCK))
        if f"{kind}{n}d" in DECLARED
    ),
    (aten.upsample_linear1d.default, (LINE, [11], False), {}),
    *(
        (getattr(aten, f"upsample_{k}2d").vec, (IMAGE, [9, 9], False, None), {})
        for k in ("bilinear", "bicubic")
    ),
    (aten._upsample_bilinear2d_aa.default, (IMAGE, [4, 4], False), {}),
    (aten.upsample_trilinear3d.default, (BLOCK, [5, 5, 5], True), {}),
    *(
        (getattr(aten, f"{kind}_pad{n}d").default, (x, [1] * 2 * n), {})
        for kind in ("reflection", "replication")
        for n, x in ((1, LINE), (2, IMAGE), (3, BLOCK))
    ),
    (aten.pad.default, (IMAGE, [1, 1, 2, 2], "circular"), {}),
    (aten.pad.default, (IMAGE, [1, 1, 2, 2], "constant", 0.0), {}),
    (aten._pad_circular.default, (IMAGE, [1, 1, 1, 1]), {}),
]


def name_of(call: tuple[Any, tuple[Any, ...], dict[str, Any]]) -> str:
    return str(call[0]._schema.name.rpartition("::")[2])


class _Call:
    """A call as a node of a graph, which can be made with other tensors in its place."""

    def __init__(self, target: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.target, self.tensors = target, {}
        graph = Graph()

        def place(given: Any) -> Any:
            if not isinstance(given, Tensor):
                return given
            node = graph.placeholder(f"x{len(self.tensors)}")
            node.meta["val"] = given
            self.tensors[node] = given
            return node

        self.node: Node = graph.call_function(target, tuple(map(place, args)), keywords)
        self.entry: Declared = DECLARED[name_of((target, args, keywords))]

    def made(self, replaced: dict[Node, Tensor]) -> Tensor:
        tensors = self.tensors | replaced
        args = [tensors.get(given, given) if isinstance(given, Node) else given for given in self.node.args]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            result = self.target(*args, **self.node.kwargs)
        return result[0] if isinstance(result, tuple | list) else result

    def constant(self, like: Tensor, seed: int, make: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Random numbers, the same along what is put together; over the argument, and over the result."""
        along = self.entry.along(self.node)
        shape = [1 if dim in along else n for dim, n in enumerate(like.shape)]
        numbers = make(drawn(*shape, seed=seed))
        result = self.made({})
        gone = along if result.ndim < like.ndim else ()
        of_result = numbers if not along else numbers.squeeze(gone) if gone else numbers
        if name_of((self.target, (), {})) in ("_pdist_forward", "pdist", "cross_entropy_loss"):
            of_result = numbers.mean()
        return numbers.expand(like.shape), of_result


def operands(call: _Call, names: tuple[str, ...]) -> list[Node]:
    found = [argument(call.node, name) for name in names]
    return [one for one in found if isinstance(one, Node)]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: str(call[0]))
def test_what_is_declared_holds(call) -> None:
    one = _Call(*call)
    plain = one.made({})
    for seed, degree in enumerate(one.entry.degrees(one.node) or (), start=10):
        mine = operands(one, degree.arguments)
        if not mine:  # a number
            continue
        over, of_result = one.constant(call_tensor(one, mine), seed, lambda n: n.exp())
        scaled = one.made({node: one.tensors[node] * over for node in mine})
        expected = (
            plain * of_result**degree.degree if plain.is_floating_point() or plain.is_complex() else plain
        )
        torch.testing.assert_close(scaled, expected, rtol=1e-9, atol=1e-9)
    shifts = one.entry.shifts(one.node)
    if shifts is None:
        return
    names = [name for name in shifts.coefficients if isinstance(argument(one.node, name), Node)]
    for group in [tuple(names)] if shifts.together else [(name,) for name in names]:
        mine = operands(one, group)
        over, of_result = one.constant(call_tensor(one, mine), 20, lambda n: n)
        shifted = one.made({node: one.tensors[node] + over for node in mine})
        coefficient = shifts.coefficients[group[0]]
        expected = plain + coefficient * of_result if coefficient else plain
        torch.testing.assert_close(shifted, expected, rtol=1e-9, atol=1e-9)
    if shifts.linear:
        mine = operands(one, tuple(names))
        others = {node: drawn(*one.tensors[node].shape, seed=30 + i) for i, node in enumerate(mine)}
        mixed = one.made({node: 0.3 * one.tensors[node] + 0.7 * other for node, other in others.items()})
        torch.testing.assert_close(mixed, 0.3 * plain + 0.7 * one.made(others), rtol=1e-9, atol=1e-9)


def call_tensor(call: _Call, mine: list[Node]) -> Tensor:
    return max((call.tensors[node] for node in mine), key=lambda tensor: tensor.ndim)


def test_every_entry_is_tried() -> None:
    assert set(DECLARED) - {name_of(call) for call in CALLS} == set()
