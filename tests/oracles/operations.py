"""What torch offers for models and losses, each as a small case whose derivatives can be tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

aten = torch.ops.aten
SAMPLES, WIDTH = 6, 32


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


class After(nn.Module):
    """A linear map of the inputs to units of a shape, and what is tested after it."""

    def __init__(self, shape: tuple[int, ...], tested: nn.Module) -> None:
        super().__init__()
        self.linear, self.shape, self.tested = nn.Linear(4, WIDTH), shape, tested

    def forward(self, x: Tensor) -> Tensor:
        made = self.tested(self.linear(x).reshape(x.shape[0], *self.shape))
        return made if isinstance(made, Tensor) else made[0]


class _SelfAttention(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, h: Tensor) -> Any:
        return self.attention(h, h, h)


FLAT, SEQUENCE, IMAGE, VOLUME = (WIDTH,), (8, 4), (2, 4, 4), (2, 4, 2, 2)
_i = torch.tensor([0, 2, 1, 3])
_grid = (
    torch.rand(SAMPLES, 3, 3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 1.6 - 0.8
)
_ones = torch.ones(2, dtype=torch.float64)
_statistics = torch.zeros(2, dtype=torch.float64), _ones


def _heads(x: Tensor) -> tuple[Tensor, ...]:
    return tuple(part.unflatten(-1, (2, 2)).transpose(1, 2) for part in (x, x.roll(1, 1), x.roll(2, 2)))


OPERATIONS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    # normalisations
    "BatchNorm1d": (FLAT, lambda: nn.BatchNorm1d(WIDTH)),
    "BatchNorm2d": (IMAGE, lambda: nn.BatchNorm2d(2)),
    "BatchNorm3d": (VOLUME, lambda: nn.BatchNorm3d(2)),
    "BatchNorm2d, eval": (IMAGE, lambda: nn.BatchNorm2d(2).eval()),
    "torch.batch_norm": (
        IMAGE,
        lambda: Apply(lambda h: torch.batch_norm(h, None, None, None, None, True, 0.1, 1e-5, False)),
    ),
    "torch.native_batch_norm": (
        IMAGE,
        lambda: Apply(lambda h: torch.native_batch_norm(h, None, None, None, None, True, 0.1, 1e-5)),
    ),
    "_native_batch_norm_legit": (
        IMAGE,
        lambda: Apply(lambda h: aten._native_batch_norm_legit.no_stats(h, None, None, True, 0.1, 1e-5)),
    ),
    "_batch_norm_with_update": (
        IMAGE,
        lambda: Apply(
            lambda h: aten._batch_norm_with_update(
                h, _ones, None, *[s.clone() for s in _statistics], 0.1, 1e-5
            )
        ),
    ),
    "LayerNorm": (FLAT, lambda: nn.LayerNorm(WIDTH)),
    "torch.layer_norm": (FLAT, lambda: Apply(lambda h: torch.layer_norm(h, (WIDTH,)))),
    "torch.native_layer_norm": (
        FLAT,
        lambda: Apply(lambda h: torch.native_layer_norm(h, (WIDTH,), None, None, 1e-5)),
    ),
    "aten.layer_norm": (FLAT, lambda: Apply(lambda h: aten.layer_norm(h, (WIDTH,)))),
    "LayerNorm under vmap": (
        SEQUENCE,
        lambda: Apply(torch.func.vmap(lambda h: F.layer_norm(h, (4,)))),
    ),
    "LayerNorm in a gradient": (
        SEQUENCE,
        lambda: Apply(torch.func.vmap(torch.func.grad(lambda h: F.layer_norm(h, (4,)).sin().sum()))),
    ),
    "GroupNorm": (IMAGE, lambda: nn.GroupNorm(1, 2)),
    "torch.group_norm": (IMAGE, lambda: Apply(lambda h: torch.group_norm(h, 2))),
    "torch.native_group_norm": (
        IMAGE,
        lambda: Apply(lambda h: torch.native_group_norm(h, None, None, SAMPLES, 2, 16, 1, 1e-5)),
    ),
    "InstanceNorm2d": (IMAGE, lambda: nn.InstanceNorm2d(2, affine=True)),
    "torch.instance_norm": (
        IMAGE,
        lambda: Apply(lambda h: torch.instance_norm(h, None, None, None, None, True, 0.1, 1e-5, False)),
    ),
    "RMSNorm": (FLAT, lambda: nn.RMSNorm(WIDTH)),
    "LocalResponseNorm": (IMAGE, lambda: nn.LocalResponseNorm(2)),
    "normalize": (SEQUENCE, lambda: Apply(lambda h: F.normalize(h, dim=-1))),
    "weight_norm": (FLAT, lambda: parametrizations.weight_norm(nn.Linear(WIDTH, 3))),
    "spectral_norm": (FLAT, lambda: parametrizations.spectral_norm(nn.Linear(WIDTH, 3)).eval()),
    "orthogonal": (FLAT, lambda: parametrizations.orthogonal(nn.Linear(WIDTH, 3), use_trivialization=False)),
    # activations
    **{
        kind.__name__: (FLAT, kind)
        for kind in (
            nn.ReLU,
            nn.ReLU6,
            nn.LeakyReLU,
            nn.ELU,
            nn.SELU,
            nn.CELU,
            nn.GELU,
            nn.SiLU,
            nn.Mish,
            nn.Sigmoid,
            nn.Tanh,
            nn.Hardtanh,
            nn.Hardsigmoid,
            nn.Hardswish,
            nn.LogSigmoid,
            nn.Softplus,
            nn.Softsign,
            nn.Tanhshrink,
            nn.Softshrink,
            nn.Hardshrink,
            nn.PReLU,
            nn.GLU,
        )
    },
    "GELU, tanh": (FLAT, lambda: nn.GELU(approximate="tanh")),
    "Hardsigmoid, in place": (FLAT, lambda: nn.Sequential(nn.Hardtanh(), nn.Hardsigmoid(inplace=True))),
    "RReLU, eval": (FLAT, lambda: nn.RReLU().eval()),
    "Threshold": (FLAT, lambda: nn.Threshold(0.1, 0.2)),
    "Softmax": (SEQUENCE, lambda: nn.Softmax(-1)),
    "LogSoftmax": (SEQUENCE, lambda: nn.LogSoftmax(-1)),
    "Softmin": (SEQUENCE, lambda: nn.Softmin(-1)),
    "logsumexp": (SEQUENCE, lambda: Apply(lambda h: h.logsumexp(-1))),
    "gumbel_softmax without noise": (SEQUENCE, lambda: Apply(lambda h: (h / 0.7).softmax(-1))),
    # convolutions and what goes with them
    "Conv1d": (SEQUENCE, lambda: nn.Conv1d(8, 3, 3, padding=1)),
    "Conv2d": (IMAGE, lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)),
    "Conv2d, circular": (IMAGE, lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular")),
    "Conv3d": (VOLUME, lambda: nn.Conv3d(2, 2, 2, dilation=1)),
    "ConvTranspose1d": (SEQUENCE, lambda: nn.ConvTranspose1d(8, 2, 3, stride=2, padding=1, output_padding=1)),
    "ConvTranspose2d": (
        IMAGE,
        lambda: nn.ConvTranspose2d(2, 4, 3, stride=(2, 3), padding=1, output_padding=(1, 2), groups=2),
    ),
    "ConvTranspose3d": (VOLUME, lambda: nn.ConvTranspose3d(2, 2, 2, stride=2, output_padding=1)),
    "ConvTranspose2d, plain": (IMAGE, lambda: nn.ConvTranspose2d(2, 3, 3, stride=2)),
    "Bilinear": (FLAT, lambda: Apply(lambda h: torch.einsum("ni,nj->nij", h[:, :3], h[:, 3:6]))),
    "fold": (SEQUENCE, lambda: Apply(lambda h: F.fold(h, (3, 3), (2, 2)))),
    "unfold": (IMAGE, lambda: nn.Unfold(2)),
    "PixelShuffle": ((4, 2, 4), lambda: nn.PixelShuffle(2)),
    "ChannelShuffle": (IMAGE, lambda: nn.ChannelShuffle(2)),
    **{
        f"pad, {mode}": (IMAGE, lambda mode=mode: Apply(lambda h: F.pad(h, (1, 1, 1, 1), mode=mode)))
        for mode in ("constant", "reflect", "replicate", "circular")
    },
    **{
        f"interpolate, {mode}": (
            IMAGE,
            lambda mode=mode: Apply(lambda h: F.interpolate(h, scale_factor=1.5, mode=mode)),
        )
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
    },
    "interpolate, antialias": (
        IMAGE,
        lambda: Apply(lambda h: F.interpolate(h, size=(3, 3), mode="bicubic", antialias=True)),
    ),
    "grid_sample": (IMAGE, lambda: Apply(lambda h: F.grid_sample(h, _grid, align_corners=False))),
    "affine_grid": (
        FLAT,
        lambda: Apply(
            lambda h: F.affine_grid(h[:, :6].reshape(-1, 2, 3), [SAMPLES, 1, 3, 3], align_corners=False)
        ),
    ),
    # pools
    "MaxPool2d": (IMAGE, lambda: nn.MaxPool2d(2)),
    "MaxPool1d": (SEQUENCE, lambda: nn.MaxPool1d(2)),
    "MaxPool3d": (VOLUME, lambda: nn.MaxPool3d(2)),
    "AvgPool2d": (IMAGE, lambda: nn.AvgPool2d(3, stride=1, padding=1)),
    "AvgPool3d": (VOLUME, lambda: nn.AvgPool3d(2)),
    "LPPool2d": (IMAGE, lambda: nn.Sequential(nn.Sigmoid(), nn.LPPool2d(3, 2))),
    "AdaptiveAvgPool2d": (IMAGE, lambda: nn.AdaptiveAvgPool2d(3)),
    "AdaptiveMaxPool2d": (IMAGE, lambda: nn.AdaptiveMaxPool2d(3)),
    "FractionalMaxPool2d": (
        IMAGE,
        lambda: nn.FractionalMaxPool2d(
            2, output_size=3, _random_samples=torch.full((SAMPLES, 2, 2), 0.4).double()
        ),
    ),
    # recurrences and attention
    "RNN": (SEQUENCE, lambda: nn.RNN(4, 5, num_layers=2, batch_first=True)),
    "LSTM": (SEQUENCE, lambda: nn.LSTM(4, 5, bidirectional=True, batch_first=True)),
    "LSTM, projected": (SEQUENCE, lambda: nn.LSTM(4, 5, proj_size=3, batch_first=True)),
    "GRU": (SEQUENCE, lambda: nn.GRU(4, 5, batch_first=True)),
    "GRU after a LayerNorm": (
        SEQUENCE,
        lambda: nn.Sequential(nn.LayerNorm(4), nn.GRU(4, 5, batch_first=True)),
    ),
    "LSTMCell": (FLAT, lambda: nn.LSTMCell(WIDTH, 5)),
    "GRUCell": (FLAT, lambda: nn.GRUCell(WIDTH, 5)),
    "attention": (SEQUENCE, lambda: Apply(lambda h: F.scaled_dot_product_attention(*_heads(h)))),
    "attention, causal": (
        SEQUENCE,
        lambda: Apply(lambda h: F.scaled_dot_product_attention(*_heads(h), is_causal=True)),
    ),
    "flash attention by its name": (
        SEQUENCE,
        lambda: Apply(lambda h: aten._scaled_dot_product_flash_attention_for_cpu(*_heads(h), is_causal=True)),
    ),
    "MultiheadAttention": (
        SEQUENCE,
        lambda: _SelfAttention(nn.MultiheadAttention(4, 2, batch_first=True)),
    ),
    "TransformerEncoderLayer": (
        SEQUENCE,
        lambda: nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0, batch_first=True, activation="gelu"),
    ),
    "TransformerEncoderLayer, eval": (
        SEQUENCE,
        lambda: nn.TransformerEncoderLayer(4, 2, 5, batch_first=True).eval(),
    ),
    # distances and linear algebra
    **{
        f"cdist, p = {p}": (SEQUENCE, lambda p=p: Apply(lambda h: torch.cdist(h[:, :3], h[:, 3:], p)))
        for p in (1.0, 2.0, 4.0)
    },
    "cdist of many": (
        SEQUENCE,
        lambda: Apply(lambda h: torch.cdist(h.reshape(-1, 4), h.reshape(-1, 4)[:30] + 1)),
    ),
    "pdist": (FLAT, lambda: Apply(F.pdist)),
    "cosine_similarity": (SEQUENCE, lambda: Apply(lambda h: F.cosine_similarity(h[:, :4], h[:, 4:], dim=-1))),
    "pairwise_distance": (FLAT, lambda: Apply(lambda h: F.pairwise_distance(h, h.roll(1, 0)))),
    "vector_norm": (SEQUENCE, lambda: Apply(lambda h: torch.linalg.vector_norm(h, 3, dim=-1))),
    "var": (SEQUENCE, lambda: Apply(lambda h: torch.cat([h.var(-1), h.std(-1)]))),
    "det": (SEQUENCE, lambda: Apply(lambda h: torch.linalg.det(h[:, :4]))),
    "solve": (
        SEQUENCE,
        lambda: Apply(lambda h: torch.linalg.solve(h[:, :4] + 3 * torch.eye(4).double(), h[:, 4])),
    ),
    "fft": (FLAT, lambda: Apply(lambda h: torch.fft.rfft(h).abs())),
    "cumprod": (SEQUENCE, lambda: Apply(lambda h: h.cumprod(1))),
    "sort": (FLAT, lambda: Apply(lambda h: h.sort(-1).values)),
    "scatter": (FLAT, lambda: Apply(lambda h: h.scatter_add(1, _i.expand(SAMPLES, 4), h[:, :4].sin()))),
    "index": (FLAT, lambda: Apply(lambda h: h[:, _i].exp())),
    "checkpoint": (
        FLAT,
        lambda: Apply(lambda h: torch.utils.checkpoint.checkpoint(torch.tanh, h, use_reentrant=False)),
    ),
}


_classes = torch.randint(0, 5, (SAMPLES,), generator=torch.Generator().manual_seed(3))
_values = torch.randn(SAMPLES, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
_multi = torch.tensor(
    [
        [0, 3, -1, 1, 2],
        [2, -1, 0, 0, 0],
        [4, 1, 2, -1, 3],
        [-1, 0, 0, 0, 0],
        [1, 0, 2, 3, 4],
        [3, 3, -1, 0, 0],
    ]
)
LOSSES: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "cross_entropy": (F.cross_entropy, _classes),
    "cross_entropy, smoothed": (nn.CrossEntropyLoss(label_smoothing=0.1), _classes),
    "cross_entropy, weighted": (nn.CrossEntropyLoss(weight=torch.linspace(1, 2, 5).double()), _classes),
    "nll": (lambda o, y: F.nll_loss(o.log_softmax(1), y), _classes),
    "mse": (F.mse_loss, _values),
    "l1": (F.l1_loss, _values),
    "smooth_l1": (F.smooth_l1_loss, _values),
    "huber": (F.huber_loss, _values),
    "bce": (lambda o, y: F.binary_cross_entropy(o.sigmoid(), y.sigmoid()), _values),
    "bce with logits": (F.binary_cross_entropy_with_logits, _values.sigmoid()),
    "kl_div": (lambda o, y: F.kl_div(o.log_softmax(1), y.softmax(1), reduction="batchmean"), _values),
    "poisson": (F.poisson_nll_loss, _values.exp()),
    "gaussian": (lambda o, y: F.gaussian_nll_loss(o, y, o.exp()), _values),
    "soft_margin": (F.soft_margin_loss, _values.sign()),
    "multi_margin": (F.multi_margin_loss, _classes),
    "multi_margin, squared": (
        nn.MultiMarginLoss(p=2, margin=0.7, weight=torch.linspace(1, 2, 5).double(), reduction="sum"),
        _classes,
    ),
    "multilabel_margin": (F.multilabel_margin_loss, _multi),
    "multilabel_soft_margin": (F.multilabel_soft_margin_loss, (_values > 0).double()),
    "hinge_embedding": (F.hinge_embedding_loss, _values.sign()),
    "cosine_embedding": (lambda o, y: F.cosine_embedding_loss(o, y, y[:, 0].sign()), _values),
    "margin_ranking": (lambda o, y: F.margin_ranking_loss(o[:, 0], o[:, 1], y[:, 0].sign()), _values),
    "triplet": (lambda o, y: F.triplet_margin_loss(o, y, o.roll(1, 0)), _values),
}
