"""Operations that are taken apart before the rules look at them: they are others put together.

What is in a table of `operations`, among the moves or among a kind's rules stays whole, and so does what nothing is
gained by taking apart. All else is taken apart by torch's own decompositions: they are carried out by operations that
are looked up here again, so that what is left has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.export import default_decompositions
from torch.fx import Graph

from nm_ode.symmetries.complex_numbers import both_complex, product
from nm_ode.symmetries.labels import MOVES
from nm_ode.symmetries.operations.contractions import CONTRACTIONS
from nm_ode.symmetries.operations.declared import DECLARED
from nm_ode.symmetries.operations.normalisations import NORMALISATIONS
from nm_ode.symmetries.operations.reading import operation
from nm_ode.symmetries.written_out import grouped_mm

Table: TypeAlias = dict[Any, Callable[..., Any]]

_aten = torch.ops.aten


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention as two contractions around a softmax; arguments as torch's."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], dim=-3)
    scores = (query @ key.mT) * (1.0 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        scores = scores.masked_fill(~past, -math.inf)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        else:
            scores = scores + attn_mask
    weights = torch.softmax(scores, -1)
    if dropout_p > 0:
        weights = torch.dropout(weights, dropout_p, True)
    return weights @ value


def einsum(equation: str, operands: list[Tensor], *, path: list[int] | None = None) -> Any:
    """Of more than two operands one after the other, from the left; of two it is a contraction and stays.

    Of two that are complex it is four of real ones.
    """
    if len(operands) == 2 and both_complex(*operands):
        first, second = operands
        return product(first, second, lambda a, b: _aten.einsum.default(equation, [a, b]))
    if len(operands) <= 2 or "..." in equation:
        return NotImplemented
    inputs, arrow, out = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow:
        out = "".join(sorted(c for c in set(inputs) - {","} if inputs.count(c) == 1))
    made, letters = operands[0], terms[0]
    for i, (term, operand) in enumerate(zip(terms[1:], operands[1:], strict=True), start=2):
        later = set(out).union(*terms[i:])
        kept = "".join(dict.fromkeys(c for c in letters + term if c in later)) if i < len(terms) else out
        made, letters = _aten.einsum.default(f"{letters},{term}->{kept}", [made, operand]), kept
    return made


def embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A lookup of rows, and the sum, mean or maximum of those of each bag; arguments as torch's.

    The bags' sizes and the winning rows, which torch gives too, are made of the indices alone.
    """
    starts = offsets[:-1] if include_last_offset else offsets
    places = torch.arange(indices.shape[0], device=indices.device, dtype=offsets.dtype)
    bag = torch.bucketize(places, starts, right=True) - 1
    rows = torch.nn.functional.embedding(indices, weight)
    counted = torch.ones_like(indices) if padding_idx is None else (indices != padding_idx).to(indices.dtype)
    sizes = torch.zeros_like(starts).index_add(0, bag, counted.to(starts.dtype))
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(1)
    if mode == 2:
        rows = rows if padding_idx is None else rows.masked_fill((counted == 0).unsqueeze(1), -math.inf)
        index = bag.unsqueeze(1).expand(rows.shape)
        none = torch.zeros((starts.shape[0], rows.shape[1]), dtype=rows.dtype, device=rows.device)
        made = none.scatter_reduce(0, index, rows, "amax", include_self=False)
        made = made.masked_fill((sizes == 0).unsqueeze(1), 0.0)
    else:
        rows = rows if padding_idx is None else rows.masked_fill((counted == 0).unsqueeze(1), 0.0)
        none = torch.zeros((starts.shape[0], rows.shape[1]), dtype=rows.dtype, device=rows.device)
        made = none.index_add(0, bag, rows)
        if mode == 1:
            made = made / sizes.clamp(min=1).to(rows.dtype).unsqueeze(1)
    return made, bag, sizes, bag


def recurrent(op: Any) -> Callable[..., Any]:
    """nn.RNN, nn.LSTM or nn.GRU layer by layer, with the dropout between layers that torch's own leaves out."""

    def apart(
        x: Tensor,
        hx: Any,
        params: list[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        rest = (0.0, train, bidirectional)
        if num_layers == 1 or dropout == 0 or not train:
            return _torchs()[op](x, hx, params, has_biases, num_layers, *rest, batch_first)
        several = isinstance(hx, list | tuple)  # an LSTM's h and c
        hidden = tuple(hx) if several else (hx,)
        ways, each = 2 if bidirectional else 1, len(params) // num_layers
        last: list[tuple[Tensor, ...]] = []
        x = x.transpose(0, 1) if batch_first else x
        for i in range(num_layers):
            first = [h.narrow(0, i * ways, ways) for h in hidden]
            mine = params[i * each : (i + 1) * each]
            x, *final = op(x, first if several else first[0], mine, has_biases, 1, *rest, False)
            last.append(tuple(final))
            x = torch.dropout(x, dropout, True) if i < num_layers - 1 else x
        x = x.transpose(0, 1) if batch_first else x
        return (x, *(torch.cat(states) for states in zip(*last, strict=True)))

    return apart


def copied(into: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """What a write in place of a part leaves there: torch has no derivative of `aten.copy`."""
    return source.to(into.dtype).expand(into.shape).clone()


def multiplied(a: Tensor, b: Tensor) -> Any:
    """Of complex numbers by their parts; of real ones it stays."""
    return product(a, b, _aten.mul.Tensor) if both_complex(a, b) else NotImplemented


def matrix_product(a: Tensor, b: Tensor) -> Any:
    """The same of matrices."""
    return product(a, b, _aten.matmul.default) if both_complex(a, b) else NotImplemented


def slice_written(
    into: Tensor,
    source: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Any:
    """A part of a tensor in the place of another's: the parts before it, it, and those after it."""
    size = into.shape[dim]
    if step != 1:
        return NotImplemented
    first, last = (_edge(size, n) for n in (0 if start is None else start, size if end is None else end))
    if not first < last:
        return into.clone()
    pieces = [source.to(into.dtype)]
    if first > 0:
        pieces.insert(0, into.narrow(dim, 0, first))
    if last < size:
        pieces.append(into.narrow(dim, last, size - last))
    return torch.cat(pieces, dim)


def _edge(size: int, n: int) -> int:
    """An end of a slice as Python has it: counted from the last where it is negative, within the size."""
    n = n + size if n < 0 else n
    return 0 if n < 0 else n if n < size else size


def place_written(into: Tensor, source: Tensor, dim: int, index: int) -> Any:
    """The same of one place along a dimension."""
    return slice_written(into, source.unsqueeze(dim), dim, index, index + 1 or None)


_RECURRENT = (_aten.rnn_tanh.input, _aten.rnn_relu.input, _aten.lstm.input, _aten.gru.input)

OWN: Table = {
    _aten.scaled_dot_product_attention.default: attention,
    _aten.copy.default: copied,
    _aten.slice_scatter.default: slice_written,
    _aten.select_scatter.default: place_written,
    _aten.einsum.default: einsum,
    _aten.mul.Tensor: multiplied,
    **dict.fromkeys((_aten.matmul.default, _aten.bmm.default, _aten.mm.default), matrix_product),
    _aten.embedding_bag.default: embedding_bag,
    _aten.embedding_bag.padding_idx: embedding_bag,
    _aten._embedding_bag.default: embedding_bag,
}
"""Those of nm_ode, for `ExportedProgram.run_decompositions`; writes in place become ordinary operations by it too."""


_OF_LIBRARIES: dict[str, Callable[..., Any]] = {
    # transformers' mixtures of experts
    "grouped_mm_fallback": lambda rows, matrices, offs: grouped_mm(rows, matrices, offs=offs),
    "_grouped_mm": grouped_mm,
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


CURVED = _names(
    "arccos arccosh arcsin arcsinh arctan arctan2 arctanh celu cos elu erf exp expm1 frac gelu hardshrink hardsigmoid "
    "hardswish hardtanh log log1p log_sigmoid log_sigmoid_forward logit mish relu6 selu sigmoid silu sin sinc softplus "
    "softshrink tan tanh xlogy"
)
"""Functions of each entry of which no factor and no shift comes out, whole or in parts."""

_WHOLE = CURVED | _names(
    # made of numbers alone
    "arange empty empty_like eye full full_like linspace logspace new_empty new_full new_ones new_zeros ones ones_like "
    "zeros zeros_like "
    # of integers: which of them may be met is read from these (`ranges`)
    "floor_divide gather index_add index_put index_select multi_margin_loss nll_loss nll_loss2d nll_loss2d_forward "
    "nll_loss_forward nll_loss_nd one_hot scatter scatter_add scatter_reduce take_along_dim type_as "
    # a stopped gradient
    "detach "
    # of these there is a second derivative only as a whole (`nm_ode.loss.elementary`)
    "cdist multilabel_margin_loss multilabel_margin_loss_forward pdist _weight_norm _weight_norm_interface "
    # sums of exponentials: they shift as a whole
    "logaddexp logaddexp2 logcumsumexp logsumexp"
)


def table(*, all_of_torchs: bool = True) -> Table:
    """For `ExportedProgram.run_decompositions`.

    Args:
        all_of_torchs: False: nm_ode's own alone.
    """
    if not all_of_torchs:
        return dict(OWN)
    whole = _WHOLE | with_an_entry()
    torchs = {op: apart for op, apart in _torchs().items() if _name(op) not in whole}
    return torchs | OWN | {op: recurrent(op) for op in _RECURRENT}


def of_libraries(graph: Graph) -> Table:
    """Those of other libraries that a graph has, by their names."""
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    return {node.target: _OF_LIBRARIES[name] for node in nodes if (name := operation(node)) in _OF_LIBRARIES}


def with_an_entry() -> frozenset[str]:
    """Operations that are in a table, among the moves, or have a rule of some kind."""
    from nm_ode.symmetries.rules import matrix, scaling, translation  # they stand on the graph

    return frozenset(
        {*MOVES, *CONTRACTIONS, *NORMALISATIONS, *DECLARED, *matrix.RULES, *scaling.RULES, *translation.RULES}
    )


@cache
def _torchs() -> Table:
    """torch's own, but for what draws at random, since its parts would draw other numbers."""
    return {
        op: apart
        for op, apart in default_decompositions().items()
        if isinstance(op, torch._ops.OpOverload)
        and op.namespace == "aten"
        and (op in _RECURRENT or torch.Tag.nondeterministic_seeded not in op.tags)
        and not _name(op).endswith("_backward")
    }


def _name(op: Any) -> str:
    return str(op._schema.name.rpartition("::")[2])
