"""How an oscillation along the Hessian's sharpest direction grows from step to step, until it bends the path.

docs/theory.md §4.11. A run is θ_k = w_k + δ_k u, w the smooth path and u the eigenvector of λ_max. What each step adds
to δ (rounding, the noise of a batch) and what was there at the start go on by the optimiser's own recursion, which past
the stability limit makes them grow; a modified flow knows nothing of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MOST = 1e200  # of a variance: what is beyond has left every flow long since


@dataclass(frozen=True)
class Recursion:
    """δ_{k+1} = p δ_k − q δ_{k−1} on an eigenvector of curvature λ_k, with x_k = lr (1 − dampening) λ_k.

    Attributes:
        momentum: β. Plain descent, β = 0, has p = 1 − x_k and q = 0; heavy ball p = 1 + β − x_k and q = β.
        nesterov: p = (1 + β)(1 − x_k) and q = β (1 − x_{k−1}) instead.
    """

    momentum: float = 0.0
    nesterov: bool = False

    def coefficients(self, x: float, before: float) -> tuple[float, float]:
        """p and q from x_k and x_{k−1}."""
        beta = self.momentum
        if self.nesterov:
            return (1 + beta) * (1 - x), beta * (1 - before)
        return 1 + beta - x, beta

    @property
    def noise_gain(self) -> float:
        """Of the gradient's noise, times lr (1 − dampening), in an oscillation that changes its sign every step."""
        return 1 + 2 * self.momentum if self.nesterov else 1.0

    def log_factor(self, x: float) -> float:
        """log |r|, r the larger root of r² − p r + q = 0: growth in a step where x hardly changes."""
        p, q = self.coefficients(x, x)
        inside = p * p / 4 - q
        size = abs(p) / 2 + math.sqrt(inside) if inside >= 0 else math.sqrt(q)
        return math.log(size) if size else -math.inf


@dataclass(frozen=True)
class Growth:
    """δ's second moments, each step's noise being independent of those before.

    Attributes:
        recursion: of the optimiser.
        variance: E δ_k².
        before, together: E δ_{k−1}² and E δ_k δ_{k−1}.
        last: x_{k−1}; 0 before the first step.
    """

    recursion: Recursion = field(default_factory=Recursion)
    variance: float = 0.0
    before: float = 0.0
    together: float = 0.0
    last: float = 0.0

    @classmethod
    def started(cls, size: float, recursion: Recursion) -> Growth:
        """From rest, δ_0 = δ_{−1} = size: that far from where the direction's own minimum is."""
        return cls(recursion, size * size, size * size, size * size)

    @property
    def amplitude(self) -> float:
        """Root mean square of δ_k."""
        return math.sqrt(self.variance)

    def no_larger(self, size: float) -> Growth:
        """As it was measured: not above this size."""
        less = size * size / self.variance if size < self.amplitude else 1.0
        return self._times(less)

    def _times(self, share: float) -> Growth:
        if share == 1.0:
            return self
        return replace(
            self,
            variance=self.variance * share,
            before=self.before * share,
            together=self.together * share,
        )

    def after(self, x: float, noise: float) -> Growth:
        """One step on.

        Args:
            x: lr (1 − dampening) λ_max of the step.
            noise: standard deviation of what the step adds: of the gradient's noise along u, times lr (1 − dampening).
        """
        p, q = self.recursion.coefficients(x, self.last)
        noise *= self.recursion.noise_gain
        now = p * p * self.variance - 2 * p * q * self.together + q * q * self.before + noise * noise
        together = p * self.variance - q * self.together
        gone = Growth(self.recursion, max(now, 0.0), self.variance, together, x)
        return gone._times(min(1.0, _MOST / now) if now > 0 else 1.0)


def amplitudes(
    x: Sequence[float] | Array,
    noise: Sequence[float] | Array,
    recursion: Recursion,
    start: float = 0.0,
    at_most: Mapping[int, float] | None = None,
) -> Array:
    """δ's root mean square before each step and after the last, shape (N + 1,).

    Args:
        x, noise: of each step, shape (N,), as of `Growth.after`.
        start: |δ_0|.
        at_most: before a step: so large it was at most, as was measured there.
    """
    at, known = Growth.started(start, recursion), at_most or {}
    found = []
    for step, (here, added) in enumerate(
        zip(np.asarray(x).tolist(), np.asarray(noise).tolist(), strict=True)
    ):
        at = at.no_larger(known.get(step, math.inf))
        found.append(at.amplitude)
        at = at.after(here, added)
    return np.array([*found, at.amplitude])


def leaving_size(sharpening: float, change: float) -> float:
    """The oscillation at which the run leaves a flow that knows nothing of it; NaN where the path does not sharpen.

    It bends the path by −½ δ² ∇λ_max, and at this size takes from λ_max in a unit of flow time what the path adds: it
    is the oscillation of the central flow with one critical direction. As long as it is much smaller the run is on
    the modified flow; soon after, λ_max falls.

    Args:
        sharpening: −⟨∇λ_max, ∇L⟩, what the path adds to λ_max in a unit of flow time.
        change: ‖∇λ_max‖.
    """
    if not (sharpening > 0 and change > 0):
        return math.nan
    return math.sqrt(2 * sharpening) / change


def first_above(amplitude: Array, size: float | Array, after: int = 0) -> int | None:
    """The first step, from `after` on, before which the amplitude has the size; None if it never has.

    Args:
        size: one, or one for each amplitude; NaN is never reached.
    """
    found = np.flatnonzero(
        np.asarray(amplitude)[after:] >= np.broadcast_to(size, np.shape(amplitude))[after:]
    )
    return after + int(found[0]) if found.size else None
