"""Sentences made from the values of `comparison`, for the terminal and the page alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nm_ode.comparison import (
    Cause,
    Diagnosis,
    Evidence,
    Jump,
    LeftOut,
    NotForeseen,
    Outcome,
    Row,
    Stability,
    farther_flows,
)
from nm_ode.optimizers import SERIES_LIMIT
from nm_ode.reporting.formats import order_with_error, power
from nm_ode.results import SymmetriesInfo

_FINEST_RTOL = 1e-12
"""At this tolerance and below, what limits a solver is rounding."""

_NO_CHECK = {
    "same_steps": "its check took the same steps; tighten solver.rtol and solver.atol, or take a smaller step",
    "too_loose": "its tolerances admit as much as the solution moves; tighten solver.rtol and solver.atol",
    "stopped": "its check stopped before the end; raise solver.max_rhs, max_steps or max_seconds",
}


@dataclass(frozen=True)
class Sentence:
    """A sentence, and whether it warns."""

    text: str
    warns: bool = False


def run_sentence(
    optimizer_text: str,
    steps: str,
    batch_size: int | str,
    *,
    warm_start: bool,
    augmentation: str = "",
    autocast: str = "",
) -> str:
    """What was run: "400 steps of SGD, lr = 0.1, full batch"."""
    batches = "full batch" if batch_size == "full" else f"batches of {batch_size}"
    start = ", from a warm start" if warm_start else ""
    images = f" of augmented images ({augmentation})" if augmentation else ""
    passes = f", forward passes in {autocast}" if autocast else ""
    return f"{steps} steps of {optimizer_text}{start}, {batches}{images}{passes}"


def flow_sentences(rows: Sequence[Row]) -> list[Sentence]:
    """What must be known to read the errors of the flows."""
    found = []
    kinks = sorted({kink for row in rows for kink in row.kinks})
    if kinks:
        found.append(
            Sentence(
                f"The loss is not smooth ({', '.join(kinks)}): the orders that theory gives for smooth losses are not "
                "to be expected."
            )
        )
    foreign = sorted({row.foreign_gradient for row in rows if row.foreign_gradient})
    found += [
        Sentence(
            f"{_start(reason)}. Run and flows follow one field, which is not a gradient: there is no Hessian, and no "
            "law of charges holds.",
            warns=True,
        )
        for reason in foreign
    ]
    full = [row for row in rows if row.beside == "full_batch"]
    if full:
        found.append(
            Sentence(
                "The run used minibatches. A full-batch flow takes all samples, so its error holds the noise of the "
                "batches as well as the discretisation."
            )
        )
        found += [Sentence(text, warns) for text, warns in dict.fromkeys(map(_of_batches, full)) if text]
    if any(row.beside == "same_batch" for row in rows):
        found.append(
            Sentence(
                "A same-batch flow takes, during each step, the samples of that step: its error is the "
                "discretisation's alone."
            )
        )
    for row in rows:
        found += [Sentence(f"{_start(row.title)}: {text}.") for text in _solution_clauses(row)]
    found += [solver_sentence(row) for row in rows if row.solver_limited]
    return found


def farther_sentences(rows: Sequence[Row], seen: Stability | None) -> list[Sentence]:
    """Of flows that are farther from the run than one of lower order: why, by the sharpness where that is known."""
    return [
        Sentence(
            f"{_start(higher.title)} is farther from the run at its end ({power(higher.relative_error)} of the motion) "
            f"than {lower.title} ({power(lower.relative_error)}): {_why_farther(higher, seen)}.",
            warns=True,
        )
        for higher, lower in farther_flows(rows)
    ]


def _why_farther(row: Row, seen: Stability | None) -> str:
    if row.solver_limited and (seen is None or seen.largest <= seen.series_limit):
        return "the solver's own error is in it"
    if seen is None:
        return "where lr · λ_max is above 1 a higher order need not be closer; [stability] in the case measures it"
    limit = f"{seen.series_limit:g}"
    if seen.largest > seen.series_limit:
        stable = (
            "" if seen.stability_limit is None else f", and a step is stable below {seen.stability_limit:.3g}"
        )
        return (
            f"lr · λ_max reaches {seen.largest:.3g}, and above {limit} the series of a modified flow does not converge"
            f"{stable}; a smaller lr brings them into order"
        )
    reach = (
        f"lr · λ_max stays below {_rounded_up(seen.largest)}: the sharpness (limit {limit}) is not the cause"
    )
    if row.kinks:
        return f"the gradient jumps at kinks ({', '.join(row.kinks)}), which no order follows; {reach}"
    return (
        f"{reach}; the learning rate may be too large for what the loss does elsewhere: look at smaller ones"
    )


def remark_sentences(info: SymmetriesInfo) -> list[Sentence]:
    """What was left out of the symmetries, or could not be checked, and why."""
    return [Sentence(f"{_start(remark)}.", warns=True) for remark in info.remarks]


def _of_batches(row: Row) -> tuple[str, bool]:
    """What the loss over a batch is to a full-batch flow's loss, unless it is a mean; and whether that warns."""
    if row.batch_bias is not None:
        differs = _bias(row.batch_bias, math.nan if row.batch_bias_error is None else row.batch_bias_error)
        return (
            "Over a batch the loss is neither the mean nor the sum of its samples' losses (augmentation, "
            "batch-dependent layers, class weights or ignored targets do this): the batches' mean gradient differs "
            f"from the full one{differs}. A full-batch flow's error holds that difference too, which is not noise."
        ), True
    if row.batch_share is not None:
        return (
            f"The loss sums over its samples, of which a step takes a share of {row.batch_share:.3g} on average: a "
            "full-batch flow is that of this share of the loss, and as fast as the run."
        ), False
    return "", False


def _bias(distance: float, error: float) -> str:
    """At the start, over the full gradient: ", by 0.12 ± 0.01 of it at the start"."""
    if math.isnan(distance):
        return ""
    deviation = "" if math.isnan(error) else f" ± {error:.1g}"
    return f", by {distance:.2g}{deviation} of it at the start"


def _solution_clauses(row: Row) -> Iterator[str]:
    if row.gradient_noise is not None and row.rtol_floor is not None:
        where = f" ({', '.join(row.coarse)})" if row.coarse else ""
        yield (
            f"the gradient's rounding noise is {power(row.gradient_noise)} of its size{where}, so no rtol below "
            f"{power(row.rtol_floor)} means anything"
        )
    if row.check_verdict == "bound":
        yield "its solver's own error is a bound, from a coarser solve: rounding leaves no room for a finer one"
    for method, distance in row.engine_distances:
        if np.isnan(distance):
            yield f"to be checked by {method} too, which is the same method: that is no check"
        else:
            yield f"solved by {method} too; the two solutions are at most {power(distance)} apart"
    if row.holds_from is not None and row.holds_from < 0:
        yield "its one-step defect is above a thousandth of the update up to the last step"
    elif row.holds_from:
        yield (
            f"its one-step defect is above a thousandth of the update before step {row.holds_from}, and below it from "
            "there on"
        )


def solver_sentence(row: Row) -> Sentence:
    """Of a flow whose error the solver's own limits: what to do."""
    if row.check_verdict in _NO_CHECK:
        sentence = f"the solver's own error is not known: {_NO_CHECK[row.check_verdict]}"
    elif row.rtol <= _FINEST_RTOL and row.solver_step is None:
        sentence = "as close to the run as the solver gets; what is left is rounding"
    else:
        sentence = f"the solver's own error is above a tenth of what is measured; {_remedy(row)}"
    return Sentence(f"{_start(row.title)}: {sentence}.", warns=True)


def _remedy(row: Row) -> str:
    """What makes a solver's own error smaller."""
    if row.solver_step is not None:
        return f"take a smaller step (engine = '{row.engine}', method = '{row.method}', step = …)"
    if row.coarse and row.rtol_floor is not None:
        finer = f"let the model compute in {row.dtype or 'a finer dtype'} inside"
        if row.rtol < 2 * row.rtol_floor:
            return finer
        return f"tighten solver.rtol, but not below {power(row.rtol_floor)}, or {finer}"
    kinked = " (or, with kinks, use method = 'Midpoint' and a smaller step)"
    return "tighten solver.rtol" + (kinked if row.kinks else "")


def diagnosis_sentence(diagnosis: Diagnosis) -> str:
    """The observed order and how it stands to theory's; then why, and what was left out of the fit."""
    seen = diagnosis.evidence
    sentences = [_outcome(diagnosis), *(_cause(cause, seen) for cause in diagnosis.causes)]
    if diagnosis.outcome is Outcome.SHORT and not diagnosis.causes:
        sentences.append(f"No cause was found ({_local(seen)}).")
    if seen.left_out:
        sentences.append(f"Left out: {'; '.join(_left_out(seen))}.")
    return " ".join(sentences)


def _outcome(diagnosis: Diagnosis) -> str:
    seen = diagnosis.evidence
    if diagnosis.outcome is Outcome.TOO_FEW_POINTS:
        return f"No order: only {seen.used} of {seen.points} learning rates can be used."
    observed = f"Order {order_with_error(seen.order.order, seen.order.standard_error)}"
    match diagnosis.outcome:
        case Outcome.AS_EXPECTED:
            return f"{observed}, as theory predicts ({seen.expected})."
        case Outcome.ABOVE:
            return f"{observed}, above the {seen.expected} that theory predicts."
        case Outcome.SHORT:
            return f"{observed}, short of the {seen.expected} that theory predicts for smooth losses."
        case _:
            return f"{observed}; the {seen.expected} of theory is not to be expected here."


def _cause(cause: Cause, seen: Evidence) -> str:
    match cause:
        case Cause.BATCH_LOSS:
            return (
                "Over a batch the loss is neither the mean nor the sum of its samples' losses, and the batches' mean "
                f"gradient differs from the full one{_bias(seen.batch_bias, seen.batch_bias_error)}."
            )
        case Cause.BATCH_NOISE:
            return (
                "This flow takes all samples and the run takes batches: the noise of the batches is in the error, and "
                "hides the order."
            )
        case Cause.KINKS:
            crossings = (
                f", which up to {seen.crossing_share:.2%} of the units do in one step"
                if np.isfinite(seen.crossing_share)
                else ""
            )
            return (
                "Kinks are the cause: the gradient jumps where a unit crosses its kink "
                f"({', '.join(seen.kinks)}){crossings}."
            )
        case Cause.SHARPNESS:
            return (
                f"lr · λ_max reaches {seen.normalised_sharpness:.2g} along the path, and the series of a modified flow "
                f"converges below {SERIES_LIMIT:g}: leave out the largest learning rates."
            )
        case Cause.BATCH_TRANSIENTS:
            return (
                "Each change of batch starts a transient of the optimiser's state, which the differences of the flow "
                "do not follow to any order in lr."
            )
        case Cause.COLD_START:
            share = (
                f" ({seen.start_share:.0%} of the one-step defects fall in the first tenth of the run)"
                if np.isfinite(seen.start_share)
                else ""
            )
            return (
                "The optimiser's state is empty at the start, and its first steps leave an error of order 1"
                f"{share}: set training.warm_steps."
            )
        case Cause.LARGE_STEPS:
            return f"These learning rates are not small enough to show the order ({_local(seen)})."


def _local(seen: Evidence) -> str:
    return "from each to the next smaller: " + ", ".join(f"{order:.2f}" for order in seen.local_orders)


def _left_out(seen: Evidence) -> Iterator[str]:
    reasons = {
        LeftOut.NOT_SOLVED: "the run diverged, or the solve failed",
        LeftOut.SOLVER_ERROR: "the solver's own error is above a tenth of what is measured ("
        + ("take a smaller solver.step" if seen.fixed_step else "tighten solver.rtol")
        + ")",
        LeftOut.ROUNDING: "the error is at the rounding of the run itself",
    }
    for why, n in seen.left_out.items():
        yield f"at {n} learning rate{'' if n == 1 else 's'} {reasons[why]}"


def stability_sentence(seen: Stability) -> Sentence:
    """lr · λ_max against its limits, and what that means for the flows."""
    series = f"{seen.series_limit:g}"
    limit = None if seen.stability_limit is None else f"{seen.stability_limit:.3g}"
    if seen.unstable_from is not None:
        sentence = (
            f"From step {seen.unstable_from} on lr · λ_max is above the stability limit, {limit} (it reaches "
            f"{seen.largest:.3g}). There an oscillation along the sharpest direction grows from step to step, of which "
            "a flow of whatever order in lr knows nothing: it follows the run until the oscillation is so large that "
            "it bends the path. Beyond that a central flow follows the run's average."
        )
        return Sentence(
            f"{sentence} {jump_words(seen.jump)}" if seen.jump is not None else sentence, warns=True
        )
    if seen.series_from is not None:
        passed = "" if limit is None else f" The stability limit, {limit}, is not passed."
        return Sentence(
            f"lr · λ_max reaches {seen.largest:.3g}: from step {seen.series_from} on it is above {series}, where the "
            "series of the modified flow does not converge in the sharpest directions, and a higher order need not be "
            f"closer.{passed}"
        )
    stable = "" if limit is None else f", and the run is stable below {limit}"
    return Sentence(
        f"lr · λ_max stays below {_rounded_up(seen.largest)}: the series of a modified flow converges below {series}"
        f"{stable}."
    )


def jump_words(jump: Jump) -> str:
    """When the oscillation is so large: foreseen, and seen."""
    seen = "" if jump.seen is None else f"it is seen at step {jump.seen}"
    if jump.foreseen is None:
        assert jump.why_not is not None
        return f"When that is is not foreseen: {_NOT_FORESEEN[jump.why_not]}{seen and '; '}{seen}."
    source = "the noise of the batches" if jump.batches else "rounding"
    return (
        f"From {source}, {power(jump.noise)} a step, that is foreseen at step {jump.foreseen}, with an oscillation of "
        f"{power(jump.size)}; {seen or 'in the run it is not seen'}."
    )


_NOT_FORESEEN = {
    NotForeseen.NOT_RECORDED: "how an oscillation grows under this optimiser is not known, or was not recorded",
    NotForeseen.NO_SIZE: "λ_max does not grow along the path, or the loss has no third derivative",
    NotForeseen.TOO_SMALL: "within the run it stays smaller",
}


def _rounded_up(value: float) -> str:
    """Two figures, not below the value."""
    scale = 10.0 ** (np.floor(np.log10(value)) - 1) if value > 0 else 1.0
    return f"{np.ceil(value / scale) * scale:.2g}"


def _start(title: str) -> str:
    """As the start of a sentence."""
    return title[:1].upper() + title[1:]
