"""A line of plain words on an observed order: what it is, and if it falls short, why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nm_ode.comparison.order import ObservedOrder
from nm_ode.optimizers import SERIES_LIMIT

TOLERANCE, WIDEST = 0.15, 0.3
"""An order is as expected within the first, or within twice its standard error as long as that is below the second."""


@dataclass(frozen=True)
class Evidence:
    """What was measured of one flow over a ladder; NaN for what was not.

    Attributes:
        order, expected: seen, and of theory.
        rungs: how many learning rates there are.
        left_out: reason → how many of them are not in the fit.
        local_orders: between neighbours, from the largest learning rate down.
        kinks: names of operations whose derivative jumps; "" for a smooth loss.
        crossing_share: largest over the rungs of the mean share of units that cross a kink in one step.
        noise: is it a full-batch flow beside minibatches?
        normalised_sharpness: largest η λ_max along the path, over the rungs in the fit.
        cold_start: did the optimiser start with nothing to remember?
        start_share: largest over the rungs of the share of the summed one-step defects in the first tenth of the run.
        fixed_step: were the flows solved with one?
        batch_transients: is it a same-batch flow of an optimiser that remembers?
    """

    order: ObservedOrder
    expected: int
    rungs: int
    left_out: dict[str, int]
    local_orders: tuple[float, ...]
    kinks: str
    crossing_share: float
    noise: bool
    normalised_sharpness: float
    cold_start: bool
    start_share: float
    fixed_step: bool = False
    batch_transients: bool = False


def verdict(seen: Evidence) -> str:
    """One to four short sentences."""
    used = seen.rungs - sum(seen.left_out.values())
    if math.isnan(seen.order.order):
        told = f"No order: only {used} of {seen.rungs} learning rates can be used."
        return " ".join([told, *_floors(seen)])
    told = f"Order {seen.order.order:.2f}"
    if not math.isnan(seen.order.standard_error):
        told += f" ± {seen.order.standard_error:.2f}"
    if seen.noise:
        told += f"; theory's {seen.expected} is not to be expected here."
        return " ".join([told, *_causes(seen), *_floors(seen)])
    gap = seen.order.order - seen.expected
    if abs(gap) <= min(WIDEST, max(TOLERANCE, 2 * _or_zero(seen.order.standard_error))):
        return " ".join([f"{told}, as theory has it ({seen.expected}).", *_floors(seen)])
    if gap > 0:
        told += f", above the {seen.expected} of theory: these learning rates are not on the final slope yet"
        return " ".join([f"{told} ({_local(seen)}).", *_floors(seen)])
    told += f", short of the {seen.expected} of theory for smooth losses."
    return " ".join([told, *(_causes(seen) or [_unexplained(seen)]), *_floors(seen)])


def _causes(seen: Evidence) -> list[str]:
    causes = []
    if seen.noise:
        causes.append(
            "This flow takes all samples and the run takes batches: their noise is in the error, and no order can show."
        )
    if seen.kinks:
        share = (
            ""
            if math.isnan(seen.crossing_share)
            else (f", and up to {seen.crossing_share:.2%} of the units cross theirs in one step")
        )
        causes.append(
            f"Kinks are the cause: the gradient jumps where a unit crosses zero ({seen.kinks}){share}."
        )
    if seen.normalised_sharpness >= SERIES_LIMIT:
        causes.append(
            f"lr · λ_max reaches {seen.normalised_sharpness:.2g} along the path, and the series of a modified flow "
            f"converges below {SERIES_LIMIT:g}: leave out the largest learning rates."
        )
    if seen.batch_transients:
        causes.append(
            "Each change of batch starts a transient of what the optimiser remembers, which differences do not follow "
            "to any order in lr."
        )
    if seen.cold_start:
        share = (
            ""
            if math.isnan(seen.start_share)
            else (f" ({seen.start_share:.0%} of the one-step defects fall in the first tenth of the run)")
        )
        causes.append(
            "The optimiser starts with nothing to remember, and its first steps leave an error of order 1"
            f"{share}: take training.warm_steps."
        )
    return causes


def _unexplained(seen: Evidence) -> str:
    rising = len(seen.local_orders) > 1 and all(
        a < b for a, b in zip(seen.local_orders, seen.local_orders[1:], strict=False)
    )
    if rising:
        return f"It still rises towards small lr ({_local(seen)}): smaller learning rates would show it."
    return f"No cause was found ({_local(seen)})."


def _local(seen: Evidence) -> str:
    return "from one lr to the next: " + ", ".join(f"{order:.2f}" for order in seen.local_orders)


def _floors(seen: Evidence) -> list[str]:
    tighten = "take a smaller solver.step" if seen.fixed_step else "tighten solver.rtol"
    remedies = {
        "not solved": "of {n} learning rates the run or the flow has no end",
        "solver's error": f"at {{n}} the solver's own error is above a tenth of what is measured: {tighten}",
        "rounding": "at {n} the error is at the rounding of the run itself",
    }
    told = [remedies[why].format(n=n) for why, n in seen.left_out.items() if n]
    return [f"Left out: {'; '.join(told)}."] if told else []


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
