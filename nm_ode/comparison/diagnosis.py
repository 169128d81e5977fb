"""Diagnosis of an observed order: how it stands to theory's, and what explains one that falls short."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from nm_ode.comparison.order import ObservedOrder
from nm_ode.optimizers import SERIES_LIMIT
from nm_ode.results import Beside

TOLERANCE, WIDEST = 0.15, 0.3
"""An order is as expected within the first, or within twice its standard error as long as that is below the second."""


class LeftOut(StrEnum):
    """Why the error at a learning rate is not in the fit."""

    NOT_SOLVED = "not_solved"  # the run diverged, or the solve failed
    SOLVER_ERROR = "solver_error"  # above a tenth of what is measured
    ROUNDING = "rounding"  # of the run itself


class Outcome(StrEnum):
    """How the observed order stands to theory's."""

    AS_EXPECTED = "as_expected"
    ABOVE = "above"
    SHORT = "short"
    NOT_TO_BE_EXPECTED = "not_to_be_expected"  # the noise of the batches is in the error
    TOO_FEW_POINTS = "too_few_points"


class Cause(StrEnum):
    """What explains an order that is not theory's."""

    BATCH_LOSS = "batch_loss"  # whose mean gradient over batches is not that over all samples
    BATCH_NOISE = "batch_noise"
    KINKS = "kinks"
    SHARPNESS = "sharpness"  # beyond what the modified flow's series converges for
    BATCH_TRANSIENTS = "batch_transients"
    COLD_START = "cold_start"
    LARGE_STEPS = "large_steps"  # the learning rates are not small enough for the asymptotic slope


@dataclass(frozen=True)
class Evidence:
    """What was measured of one flow over several learning rates; NaN for what was not.

    Attributes:
        flow, title: its name, and for a reader.
        order, expected: observed, and of theory for smooth losses.
        points: how many learning rates there are.
        left_out: reason → how many of them are not in the fit; only reasons that occur.
        local_orders: between neighbours in the fit, from the largest learning rate down.
        kinks: operations whose derivative jumps; none for a smooth loss.
        crossing_share: largest over the fit of the mean share of units that cross a kink in one step.
        normalised_sharpness: largest lr · λ_max along the path, over the fit.
        start_share: largest over the fit of the share of the summed one-step defects in the first tenth of the run.
        beside: over whose samples the flow's loss is, where the runs are on minibatches.
        batch_bias, batch_bias_error: of a loss that over a batch is neither mean nor sum of its samples': how far the
            batches' mean gradient is from the full gradient at the start, over that, and its standard error.
        stateful: has the optimiser a state beyond theta?
        warm_start: did the runs start with the state of an earlier run?
        fixed_step: were the flows solved with a step of the user's?
    """

    flow: str
    title: str
    order: ObservedOrder
    expected: int
    points: int
    left_out: Mapping[LeftOut, int]
    local_orders: tuple[float, ...]
    kinks: tuple[str, ...] = ()
    crossing_share: float = math.nan
    normalised_sharpness: float = math.nan
    start_share: float = math.nan
    beside: Beside | None = None
    batch_bias: float = math.nan
    batch_bias_error: float = math.nan
    stateful: bool = False
    warm_start: bool = False
    fixed_step: bool = False

    @property
    def used(self) -> int:
        """How many learning rates are in the fit."""
        return self.points - sum(self.left_out.values())

    @property
    def batch_noise(self) -> bool:
        """Does the flow take all samples, where the runs take batches?"""
        return self.beside == "full_batch"


@dataclass(frozen=True)
class Diagnosis:
    """An observed order, judged.

    Attributes:
        causes: what explains it; empty where it is as expected, where nothing can be said, or where no cause was found.
        evidence: the figures.
    """

    outcome: Outcome
    causes: tuple[Cause, ...]
    evidence: Evidence


def diagnose(seen: Evidence) -> Diagnosis:
    """How the observed order stands to theory's, and why."""
    outcome = _outcome(seen)
    causes: tuple[Cause, ...] = ()
    if outcome is Outcome.ABOVE:
        causes = (Cause.LARGE_STEPS,)
    elif outcome in (Outcome.SHORT, Outcome.NOT_TO_BE_EXPECTED):
        causes = tuple(_causes(seen))
        if not causes and _rises(seen.local_orders):
            causes = (Cause.LARGE_STEPS,)
    return Diagnosis(outcome, causes, seen)


def _outcome(seen: Evidence) -> Outcome:
    if math.isnan(seen.order.order):
        return Outcome.TOO_FEW_POINTS
    if seen.batch_noise:
        return Outcome.NOT_TO_BE_EXPECTED
    gap, deviation = seen.order.order - seen.expected, seen.order.standard_error
    spread = 0.0 if math.isnan(deviation) else 2 * deviation
    if abs(gap) <= min(WIDEST, max(TOLERANCE, spread)):
        return Outcome.AS_EXPECTED
    return Outcome.ABOVE if gap > 0 else Outcome.SHORT


def _causes(seen: Evidence) -> Iterator[Cause]:
    if seen.batch_noise and seen.batch_bias > 2 * seen.batch_bias_error:
        yield Cause.BATCH_LOSS
    if seen.batch_noise:
        yield Cause.BATCH_NOISE
    if seen.kinks:
        yield Cause.KINKS
    if seen.normalised_sharpness >= SERIES_LIMIT:
        yield Cause.SHARPNESS
    if seen.stateful and seen.beside == "same_batch":
        yield Cause.BATCH_TRANSIENTS
    if seen.stateful and not seen.warm_start:
        yield Cause.COLD_START


def _rises(local_orders: tuple[float, ...]) -> bool:
    """Does the order rise from each learning rate to the next smaller one?"""
    return len(local_orders) > 1 and all(a < b for a, b in pairwise(local_orders))
