"""What torch fuses, made of elementary operations: differentiable any number of times."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Statistics = tuple[Tensor, Tensor, Tensor]
"""What is normalised, the mean that was taken from it, and what it was multiplied by."""


def layer_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Statistics:
    """`torch.native_layer_norm`."""
    over = tuple(range(-len(normalized_shape), 0))
    mean = x.mean(over, keepdim=True)
    centred = x - mean
    scale = (centred.square().mean(over, keepdim=True) + eps).rsqrt()
    normed = centred * scale
    normed = normed if weight is None else normed * weight
    return (normed if bias is None else normed + bias), mean, scale


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    eps: float,
) -> Statistics:
    """`torch.native_batch_norm` without its side effect on the running statistics."""

    def by_channel(vector: Tensor) -> Tensor:
        return vector.reshape(1, -1, *[1] * (x.ndim - 2))

    if training or running_mean is None or running_var is None:
        over = tuple(i for i in range(x.ndim) if i != 1)
        mean = x.mean(over)
        centred = x - by_channel(mean)
        scale = (centred.square().mean(over) + eps).rsqrt()
    else:
        mean, scale = running_mean, (running_var + eps).rsqrt()
        centred = x - by_channel(mean)
    normed = centred * by_channel(scale)
    normed = normed if weight is None else normed * by_channel(weight)
    return (normed if bias is None else normed + by_channel(bias)), mean, scale


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v/‖v‖, the norm over all dimensions but `dim` (Salimans & Kingma 2016)."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def hardsigmoid(x: Tensor) -> Tensor:
    """`F.hardsigmoid`: x/6 + 1/2 between −3 and 3."""
    return (x / 6 + 0.5).clamp(0, 1)


def cdist(x1: Tensor, x2: Tensor, p: float) -> Tensor:
    """`torch.cdist`: p-norms between rows, shapes (…, P, D) and (…, R, D) to (…, P, R); no gradient where it is 0."""
    distances: Tensor = torch.linalg.vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, dim=-1)
    return distances


def pdist(x: Tensor, p: float) -> Tensor:
    """`F.pdist`: p-norms between the rows of x, shape (N, D) to (N(N−1)/2,)."""
    i, j = torch.triu_indices(len(x), len(x), offset=1, device=x.device)
    distances: Tensor = torch.linalg.vector_norm(x[i] - x[j], p, dim=-1)
    return distances


def embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    mode: int,
    per_sample_weights: Tensor | None,
    include_last_offset: bool,
    padding_idx: int,
    largest: Tensor,
) -> Tensor:
    """`F.embedding_bag`, mode 0 for sums, 1 for means, 2 for maxima; an empty bag gives zeros.

    Args:
        weight: shape (V, D).
        indices: shape (N,), rows of weight.
        offsets: shape (bags,), where each bag starts; with `include_last_offset` shape (bags + 1,).
        padding_idx: a row that no bag counts; −1 for none.
        largest: for maxima, shape (bags, D), the row that wins.
    """
    starts = offsets[:-1] if include_last_offset else offsets
    places = torch.arange(len(indices), device=indices.device, dtype=offsets.dtype)
    bag = torch.bucketize(places, starts, right=True) - 1
    counts = indices != padding_idx
    bag, indices = bag[counts], indices[counts]
    sizes = torch.bincount(bag, minlength=len(starts)).unsqueeze(1)
    if mode == 2:
        return torch.where(sizes > 0, weight.gather(0, largest.clamp(min=0)), 0.0)
    rows = weight[indices]
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[counts].unsqueeze(1)
    total = weight.new_zeros(len(starts), weight.shape[1]).index_add(0, bag, rows)
    return total / sizes.clamp(min=1) if mode == 1 else total


def multi_margin_loss(
    x: Tensor, target: Tensor, p: float, margin: float, weight: Tensor | None, reduction: int
) -> Tensor:
    """`F.multi_margin_loss`, shapes (N, C) and (N,), or (C,) and (); reduction 0 for none, 1 the mean, 2 the sum."""
    single = x.ndim < 2
    x, target = (x.reshape(1, -1), target.reshape(1)) if single else (x, target)
    index = target.unsqueeze(1)
    terms = (margin - x.gather(1, index) + x).clamp(min=0) ** p
    if weight is not None:
        terms = terms * weight[target].unsqueeze(1)
    losses = terms.scatter(1, index, 0.0).sum(1) / x.shape[1]
    return _reduced(losses.squeeze(0) if single and target.ndim == 0 else losses, reduction, single)


def multilabel_margin_loss(x: Tensor, target: Tensor, reduction: int) -> Tensor:
    """`F.multilabel_margin_loss`, shapes (N, C) or (C,); the classes before the first −1 of a row are its targets."""
    single = x.ndim < 2
    rows, labels = (x.reshape(1, -1), target.reshape(1, -1)) if single else (x, target)
    known = (labels >= 0).cumprod(1).bool()
    index = labels.clamp(min=0)
    is_target = torch.zeros_like(rows, dtype=torch.long).scatter_add(1, index, known.long()) > 0
    gaps = (1 - rows.gather(1, index).unsqueeze(2) + rows.unsqueeze(1)).clamp(min=0)
    counted = known.unsqueeze(2) & ~is_target.unsqueeze(1)
    losses = torch.where(counted, gaps, 0.0).sum((1, 2)) / rows.shape[1]
    return _reduced(losses, reduction, single)


def _reduced(losses: Tensor, reduction: int, single: bool) -> Tensor:
    if reduction == 0:
        return losses.squeeze(0) if single and losses.ndim else losses
    return losses.mean() if reduction == 1 else losses.sum()


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, is_causal: bool, scale: float | None
) -> Tensor:
    """`F.scaled_dot_product_attention` without dropout."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ value


def widened(x: Tensor, bias: Tensor | None, padding: Sequence[int], output_padding: Sequence[int]) -> Tensor:
    """A transposed convolution with padding, from one without: cropped, or filled with zeros, at its ends."""
    around = [part for p, more in zip(padding, output_padding, strict=True) for part in (more - p, -p)]
    made = F.pad(x, around[::-1])
    return made if bias is None else made + bias.reshape(-1, *[1] * len(padding))
