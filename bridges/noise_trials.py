"""Are an engine's stochastic paths right? Its methods on a linear diffusion, whose law is known.

A Gaussian law of many coupled components is whitened by its closed form: then each path gives as many independent
standard normal numbers as it has components, and a few paths are enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy.linalg import expm
from scipy.stats import chi2

from bridges.engine import Engine
from bridges.errors import EngineError
from bridges.problem import Array

NoiseKind: TypeAlias = Literal["diagonal", "matrix"]

COMPONENTS, PATHS = 48, 64
TIME, STEP = 1.0, 0.02
CHANCE = 1e-6
"""How often a right method is called wrong, for each end of each bound: that of five standard errors of a normal."""

_SHAPE = 6.0  # standard errors; 4 is the most of 6000 draws of the law itself


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A law: mean, shape (n,), and covariance, shape (n, n)."""

    mean: Array
    covariance: Array


@dataclass(frozen=True, eq=False)
class LinearDiffusion:
    """dX = −A(X − μ)dt + noise, X(0) = start.

    Attributes:
        a: A, shape (n, n); any matrix.
        centre: μ, shape (n,).
        factor: of the noise, shape (n,), diagonal, or (r, n): FᵀdW for r Wiener processes.
        start: shape (n,).
    """

    a: Array
    centre: Array
    factor: Array
    start: Array

    def drift(self, t: float, x: Array, dx: Array) -> None:
        """As `Engine.solve_noisy` takes it."""
        np.matmul(self.a, self.centre - x, out=dx)

    @property
    def diffusion(self) -> Array:
        """Q, the covariance of the noise in unit time, shape (n, n)."""
        return np.diag(self.factor**2) if self.factor.ndim == 1 else self.factor.T @ self.factor

    def law(self, time: float) -> Gaussian:
        """Of X(time): μ + e^{−At}(start − μ), and ∫₀ᵗ e^{−As} Q e^{−Aᵀs} ds (Van Loan 1978, theorem 1)."""
        n = len(self.centre)
        blocks = expm(time * np.block([[-self.a, self.diffusion], [np.zeros((n, n)), self.a.T]]))
        decay = blocks[:n, :n]
        return Gaussian(self.centre + decay @ (self.start - self.centre), blocks[:n, n:] @ decay.T)

    def euler_law(self, time: float, steps: int) -> Gaussian:
        """Of what Euler–Maruyama makes of it in equal steps h: X' = X − hA(X − μ) + √h noise."""
        h = time / steps
        once = np.eye(len(self.centre)) - h * self.a
        away, covariance = self.start - self.centre, np.zeros_like(self.a)
        for _ in range(steps):
            away, covariance = once @ away, once @ covariance @ once.T + h * self.diffusion
        return Gaussian(self.centre + away, covariance)


@dataclass(frozen=True)
class NoiseTried:
    """How a method did with one kind of noise.

    Attributes:
        mean_error: of the whitened means, in standard errors, the root of the mean square over the components: 1 is
            what chance makes; nan if there are no paths.
        variance: over the true one, of all components together.
        shape: how far the whitened covariance is from a multiple of the identity, in standard errors: 0 is what
            chance makes.
        right: all three are what chance and the error of the step explain.
        message: why there are no paths; "" if there are.
    """

    method: str
    noise: NoiseKind
    mean_error: float
    variance: float
    shape: float
    right: bool
    message: str = ""


def known_diffusion(noise: NoiseKind, n: int = COMPONENTS) -> LinearDiffusion:
    """Rates from 0.3 to 1.5 in rotated directions, which also turn into one another; a matrix factor of 3n/2 rows."""
    generator = np.random.default_rng(20)

    def rotation(rows: int) -> Array:
        made: Array = np.linalg.qr(generator.standard_normal((rows, n)))[0]
        return made

    directions, turning = rotation(n), generator.standard_normal((n, n)) / math.sqrt(8 * n)
    a = directions * np.linspace(0.3, 1.5, n) @ directions.T + turning - turning.T
    sizes = generator.permutation(np.linspace(0.5, 1.5, n))
    factor = sizes if noise == "diagonal" else rotation(3 * n // 2) * sizes @ rotation(n).T
    centre = generator.standard_normal(n)
    return LinearDiffusion(a, centre, factor, centre + 2 * generator.standard_normal(n))


def try_noise_methods(engine: Engine, methods: Sequence[str] | None = None) -> Iterator[NoiseTried]:
    """Each stochastic method of an engine with each kind of noise that it takes; all of them, or those named."""
    for method in engine.noise_methods if methods is None else methods:
        diagonal_only = engine.noise_methods[method].diagonal_only
        kinds: tuple[NoiseKind, ...] = ("diagonal",) if diagonal_only else ("diagonal", "matrix")
        for noise in kinds:
            diffusion = known_diffusion(noise)
            try:
                ends = _paths(engine, method, diffusion)
            except EngineError as failure:
                yield NoiseTried(method, noise, math.nan, math.nan, math.nan, False, str(failure))
            else:
                yield judge(method, noise, diffusion, ends)


def judge(method: str, noise: NoiseKind, diffusion: LinearDiffusion, ends: Array) -> NoiseTried:
    """Have these ends of paths, shape (M, n), the law of the diffusion?

    Under it, for M paths of n components: the squares of the whitened means, times M, sum to a χ² of n degrees of
    freedom; the trace of the whitened covariance S, times M − 1, is one of n(M − 1); and U = tr((S/s − 1)²)/n with
    s = tr S/n has (M − 1)U − n → N(1, 4) (John 1971; Ledoit & Wolf 2002, proposition 3). The bounds are quantiles of
    these, widened by the error that Euler–Maruyama itself has at `STEP`, which is known: some 0.15 standard errors of a
    mean, and 1 to 3 % of the variance. That of a higher weak order is smaller.
    """
    (members, n), law = ends.shape, diffusion.law(TIME)
    root = np.linalg.inv(np.linalg.cholesky(law.covariance))
    white = (ends - law.mean) @ root.T
    mean, covariance = white.mean(axis=0), np.cov(white.T)
    variance = float(np.trace(covariance)) / n
    sphericity = float(np.square(covariance / variance - np.eye(n)).sum()) / n
    mean_error = math.sqrt(members * float(np.square(mean).mean()))
    shape = ((members - 1) * sphericity - n - 1) / 2

    euler = diffusion.euler_law(TIME, round(TIME / STEP))
    bias = math.sqrt(members / n) * float(np.linalg.norm(root @ (euler.mean - law.mean)))
    spread = np.linalg.eigvalsh(root @ euler.covariance @ root.T)
    freedom = n * (members - 1)
    most_mean = math.sqrt(chi2.isf(CHANCE, n) / n) + bias
    least = chi2.ppf(CHANCE, freedom) / freedom * min(1.0, spread[0])
    most = chi2.isf(CHANCE, freedom) / freedom * max(1.0, spread[-1])
    right = mean_error < most_mean and least < variance < most and abs(shape) < _SHAPE
    return NoiseTried(method, noise, mean_error, variance, shape, bool(right))


def _paths(engine: Engine, method: str, diffusion: LinearDiffusion) -> Array:
    ends = np.full((PATHS, len(diffusion.start)), np.nan)

    def keep(member: int, x: Array) -> None:
        ends[member] = x

    engine.solve_noisy(
        diffusion.drift,
        factor=diffusion.factor,
        y0=diffusion.start,
        time=TIME,
        step=STEP,
        seeds=range(1, PATHS + 1),
        method=method,
        on_member=keep,
    )
    return ends
