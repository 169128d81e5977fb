"""How noisy a batch's gradient is: from gradients over equal parts of one batch, with a standard error.

n parts of b samples, drawn alike. With gᵢ the gradient of the mean loss over part i and ḡ their mean:

    tr Σ ≈ b Σᵢ ‖gᵢ − ḡ‖² / (n − 1)        Σ: covariance of the gradient of one sample
    ‖G‖² ≈ ‖ḡ‖² − tr Σ / (n b)              G: the gradient of the expected loss

Both are without bias. tr Σ/‖G‖² is the simple noise scale, the number of samples at which a batch's gradient is as much
noise as signal (McCandlish et al. 2018, eq. 2.9 and appendix A.1), and its inverse the signal-to-noise ratio of one
sample. Standard errors are those of the jackknife over parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nm_ode.loss.sums import inner
from nm_ode.parameters import Layout


@dataclass(frozen=True, eq=False)
class Estimate:
    """Of each layer, and of all of theta last: values and standard errors, shape (layers + 1,), float64."""

    value: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False)
class NoiseScale:
    """Of a gradient.

    Attributes:
        trace: tr Σ, of one sample's gradient.
        signal: ‖G‖²; below 0 where the noise hides it.
        snr: ‖G‖²/tr Σ.
        scale: tr Σ/‖G‖², in samples; NaN where ‖G‖² is not above 0.
    """

    trace: Estimate
    signal: Estimate
    snr: Estimate
    scale: Estimate


def noise_scale(
    gradients: Callable[[], Iterator[Tensor]], layout: Layout, parts: int, part_size: int
) -> NoiseScale:
    """From the gradients of the parts' mean losses, shape (P,), which are asked for twice and must be the same.

    In memory there are three vectors of theta's size, whatever the number of parts.

    Args:
        parts: n, at least 3.
        part_size: b.
    """
    mean: Tensor | None = None
    for gradient in gradients():
        mean = gradient.clone() if mean is None else mean.add_(gradient)
    assert mean is not None
    mean.div_(parts)
    deviations, products = [], []
    for gradient in gradients():
        deviation = gradient - mean
        deviations.append(_by_layer(layout, deviation, deviation))
        products.append(_by_layer(layout, deviation, mean))
    return _estimates(
        _with_total(torch.stack(deviations)),
        _with_total(torch.stack(products)),
        _with_total(_by_layer(layout, mean, mean)[None])[0],
        part_size,
    )


def _estimates(squares: Tensor, products: Tensor, mean_square: Tensor, part_size: int) -> NoiseScale:
    """From ‖gᵢ − ḡ‖² and ⟨gᵢ − ḡ, ḡ⟩, shape (parts, …), and ‖ḡ‖²."""
    n, b = len(squares), part_size
    total = squares.sum(dim=0)
    trace = b * total / (n - 1)
    signal = mean_square - trace / (n * b)
    # Without part i the mean is ḡ − (gᵢ − ḡ)/(n − 1).
    traces = b * (total - squares * n / (n - 1)) / (n - 2)
    signals = mean_square - 2 * products / (n - 1) + squares / (n - 1) ** 2 - traces / ((n - 1) * b)
    above = torch.where(signal > 0, signal, torch.nan)
    return NoiseScale(
        Estimate(trace, _jackknife(traces)),
        Estimate(signal, _jackknife(signals)),
        Estimate(signal / trace, _jackknife(signals / traces)),
        Estimate(trace / above, _jackknife(traces / torch.where(signals > 0, signals, torch.nan))),
    )


def _jackknife(without: Tensor) -> Tensor:
    """Standard error, of values each without one of the parts; shape (parts, …)."""
    n = len(without)
    return ((n - 1) / n * (without - without.mean(dim=0)).square().sum(dim=0)).sqrt()


def _by_layer(layout: Layout, u: Tensor, v: Tensor) -> Tensor:
    """⟨u, v⟩ of each layer, shape (layers,), added up in float64."""
    pieces = zip(layout.split(u), layout.split(v), strict=True)
    return layout.sum_layers(torch.stack([inner(a, b) for a, b in pieces]))


def _with_total(of_layers: Tensor) -> Tensor:
    return torch.cat([of_layers, of_layers.sum(dim=1, keepdim=True)], dim=1)
