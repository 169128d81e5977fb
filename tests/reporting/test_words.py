"""Sentences: whole, grammatical, with the figures they are about."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace

import pytest

from nm_ode.comparison import (
    Cause,
    Diagnosis,
    EngineDistance,
    ErrorPastStability,
    Evidence,
    Jump,
    LeftOut,
    NotForeseen,
    ObservedOrder,
    Outcome,
    Row,
    Stability,
)
from nm_ode.reporting.tables import stability_table
from nm_ode.reporting.words import diagnosis_sentence, flow_sentences, run_sentence, stability_sentence

SEEN = Evidence(
    flow="modified_4_iterated_map",
    title="modified flow, order 4, iterated-map form",
    order=ObservedOrder(3.0, 0.01),
    expected=4,
    points=4,
    left_out={},
    local_orders=(2.8, 3.1, 3.3),
    kinks=("ReLU", "MaxPool2d"),
    crossing_share=0.0284,
    normalised_sharpness=1.34,
    start_share=0.7,
    batch_bias=0.3,
    batch_bias_error=0.01,
)


def require_sentences(text: str) -> None:
    """Whole sentences, each with a capital and a stop, without a comma between subject and verb."""
    assert text.endswith(".")
    for sentence in re.split(r"(?<=[a-z)][.]) ", text):
        # "lr" is a symbol, and keeps its case.
        assert sentence[0].isupper() or sentence.startswith("lr "), text
    for broken in ("..", " .", " ,", ",,", "  ", "nan", ", was ", ", leaves ", "()", "None"):
        assert broken not in text, text
    assert text.count("(") == text.count(")")


def test_every_outcome_with_every_cause_is_in_sentences() -> None:
    causes = [(), *((cause,) for cause in Cause), tuple(Cause)]
    lefts = [{}, {LeftOut.ROUNDING: 1}, dict.fromkeys(LeftOut, 2)]
    orders = [ObservedOrder(3.0, 0.01), ObservedOrder(3.0, math.nan)]
    for outcome, why, left_out, order in itertools.product(Outcome, causes, lefts, orders):
        for evidence in (
            replace(SEEN, left_out=left_out, order=order),
            replace(
                SEEN,
                left_out=left_out,
                order=order,
                crossing_share=math.nan,
                start_share=math.nan,
                batch_bias=math.nan,
                batch_bias_error=math.nan,
            ),
        ):
            require_sentences(diagnosis_sentence(Diagnosis(outcome, why, evidence)))


@pytest.mark.parametrize(
    ("outcome", "causes", "figures"),
    [
        (Outcome.AS_EXPECTED, (), ["3.00 ± 0.01", "(4)"]),
        (Outcome.SHORT, (), ["3.00 ± 0.01", "short of the 4", "No cause was found", "2.80, 3.10, 3.30"]),
        (Outcome.SHORT, (Cause.LARGE_STEPS,), ["2.80, 3.10, 3.30"]),
        (Outcome.SHORT, (Cause.KINKS,), ["ReLU, MaxPool2d", "2.84%"]),
        (Outcome.SHORT, (Cause.SHARPNESS,), ["lr · λ_max reaches 1.3 "]),
        (Outcome.SHORT, (Cause.COLD_START,), ["70%", "training.warm_steps"]),
        (Outcome.SHORT, (Cause.BATCH_TRANSIENTS,), ["change of batch"]),
        (
            Outcome.NOT_TO_BE_EXPECTED,
            (Cause.BATCH_NOISE,),
            ["the 4 of theory is not to be expected", "noise"],
        ),
        (Outcome.NOT_TO_BE_EXPECTED, (Cause.BATCH_LOSS, Cause.BATCH_NOISE), ["0.3 ± 0.01 of it", "noise"]),
        (Outcome.ABOVE, (Cause.LARGE_STEPS,), ["above the 4"]),
    ],
)
def test_figures_are_told(outcome: Outcome, causes: tuple[Cause, ...], figures: list[str]) -> None:
    text = diagnosis_sentence(Diagnosis(outcome, causes, SEEN))
    for figure in figures:
        assert figure in text


def test_a_cause_is_named_only_where_it_was_found() -> None:
    text = diagnosis_sentence(Diagnosis(Outcome.SHORT, (Cause.SHARPNESS,), SEEN))
    for other in ("ReLU", "batch", "first steps", "Left out", "No cause"):
        assert other not in text


def test_what_is_left_out_is_counted_with_its_remedy() -> None:
    left_out = {LeftOut.NOT_SOLVED: 1, LeftOut.SOLVER_ERROR: 2}
    text = diagnosis_sentence(Diagnosis(Outcome.TOO_FEW_POINTS, (), replace(SEEN, left_out=left_out)))
    assert "only 1 of 4 learning rates" in text
    assert "at 1 learning rate the run diverged, or the solve failed" in text
    assert "at 2 learning rates the solver's own error" in text
    assert "tighten solver.rtol" in text
    stepped = replace(SEEN, left_out=left_out, fixed_step=True)
    assert "a smaller solver.step" in diagnosis_sentence(Diagnosis(Outcome.TOO_FEW_POINTS, (), stepped))


STABLE = Stability(
    largest=0.234,
    series_limit=1.0,
    stability_limit=2.0,
    series_from=None,
    unstable_from=None,
    unstable_time=None,
    points=20,
)


@pytest.mark.parametrize("limit", [2.0, None])
@pytest.mark.parametrize("series_from", [None, 10])
def test_stable_runs(limit: float | None, series_from: int | None) -> None:
    said = stability_sentence(replace(STABLE, stability_limit=limit, series_from=series_from))
    require_sentences(said.text)
    assert not said.warns
    assert ("stability limit" in said.text or "stable below 2" in said.text) == (limit is not None)
    assert ("from step 10 on" in said.text) == (series_from is not None)


def test_the_sharpness_is_rounded_up_where_it_is_a_bound() -> None:
    assert "stays below 0.24" in stability_sentence(STABLE).text


def test_past_the_limit_of_stability() -> None:
    errors = (
        ErrorPastStability("gradient flow", 0.02, 0.5),
        ErrorPastStability("modified flow, order 2", 0.001, 0.4),
    )
    unstable = replace(
        STABLE, largest=2.1, series_from=10, unstable_from=20, unstable_time=2.0, errors=errors
    )
    said = stability_sentence(unstable)
    require_sentences(said.text)
    assert said.warns
    for figure in ("From step 20 on", "it reaches 2.1", "a central flow follows"):
        assert figure in said.text
    table = stability_table(unstable)
    assert [cell.text for cell in table.rows[0]] == ["gradient flow", "2.0e−2", "–", "5.0e−1"]
    assert stability_table(STABLE) is None


@pytest.mark.parametrize(
    ("jump", "said"),
    [
        (
            Jump(30, 33, size=0.02, noise=1.6e-17),
            "From rounding, 1.6e−17 a step, that is foreseen at step 30, with",
        ),
        (Jump(30, 33, size=0.02, noise=1.6e-17), "it is seen at step 33"),
        (Jump(30, None, size=0.02, noise=1e-3, batches=True), "From the noise of the batches, 1.0e−3 a step"),
        (Jump(30, None, size=0.02, noise=1e-3), "in the run it is not seen"),
        *((Jump(None, 33, why), "not foreseen") for why in NotForeseen),
        *((Jump(None, 33, why), "it is seen at step 33") for why in NotForeseen),
    ],
)
def test_the_jump_foreseen_and_seen(jump: Jump, said: str) -> None:
    errors = (ErrorPastStability("gradient flow", 0.02, 0.5, 0.03),)
    unstable = replace(STABLE, unstable_from=20, unstable_time=2.0, errors=errors, jump=jump)
    text = stability_sentence(unstable).text
    require_sentences(text)
    assert said in text
    caption = stability_table(unstable).caption
    assert ("not foreseen" if jump.foreseen is None else "foreseen at step 30") in caption


ROW = Row(
    name="gradient",
    title="gradient flow",
    beside=None,
    expected_order=1,
    engine="scipy",
    method="DOP853",
    choice="",
    kinks=(),
    rtol=1e-6,
    status="success",
    message="",
    rhs_evaluations=1,
    gradient_evaluations=1,
    hvp_evaluations=0,
    third_derivative_evaluations=0,
    wall_seconds=1.0,
)


@pytest.mark.parametrize(
    "title", ["gradient flow", "modified flow, order 4, iterated-map form", "second-order form"]
)
@pytest.mark.parametrize(
    ("changes", "figures"),
    [
        ({"kinks": ("ReLU",)}, ["ReLU"]),
        ({"beside": "full_batch"}, ["minibatches"]),
        ({"beside": "same_batch"}, ["the samples of that step"]),
        (
            {"engine_distances": (EngineDistance("diffeq Vern9 (1.0)", 1e-9),)},
            ["diffeq Vern9 (1.0)", "1.0e−9"],
        ),
        ({"holds_from": 7}, ["before step 7"]),
        ({"holds_from": -1}, ["up to the last step"]),
        ({"solver_limited": True}, ["solver.rtol"]),
        ({"solver_limited": True, "rtol": 1e-12}, ["rounding"]),
        ({"solver_limited": True, "method": "Midpoint", "solver_step": 0.1}, ["smaller step", "'Midpoint'"]),
    ],
)
def test_what_must_be_known_of_a_flow(title: str, changes, figures: list[str]) -> None:
    (said,) = flow_sentences([replace(ROW, title=title, **changes)])
    require_sentences(said.text)
    assert said.warns == ("solver_limited" in changes)
    for figure in figures:
        assert figure in said.text


@pytest.mark.parametrize(("rtol", "tighten"), [(1e-2, True), (1e-3, False)])
def test_no_tolerance_below_the_floor_is_recommended(rtol: float, tighten: bool) -> None:
    coarse = {
        "rtol_floor": 1e-3,
        "gradient_noise": 1e-4,
        "coarse": ("bfloat16 in '1' (Norm)",),
        "dtype": "float64",
    }
    *_, said = flow_sentences([replace(ROW, solver_limited=True, rtol=rtol, **coarse)])
    require_sentences(said.text)
    assert "float64 inside" in said.text
    assert ("not below 1.0e−3" in said.text) == tighten


@pytest.mark.parametrize(
    ("changes", "figures"),
    [
        (
            {"batch_bias": 0.123, "batch_bias_error": 0.0211},
            ["0.12 ± 0.02 of it", "not noise", "class weights"],
        ),
        ({"batch_bias": math.nan, "batch_bias_error": math.nan}, ["neither the mean nor the sum"]),
        ({"batch_share": 0.24987}, ["a share of 0.25"]),
    ],
)
def test_what_batches_are_to_the_whole_is_said_once(changes, figures: list[str]) -> None:
    _, said = flow_sentences([replace(ROW, beside="full_batch", **changes)] * 2)
    require_sentences(said.text)
    assert said.warns == ("batch_bias" in changes)
    for figure in figures:
        assert figure in said.text


def test_nothing_is_said_of_a_flow_without_peculiarities() -> None:
    assert flow_sentences([replace(ROW, holds_from=0, solver_limited=False)]) == []


def test_what_holds_for_all_flows_is_said_once() -> None:
    assert len(flow_sentences([replace(ROW, kinks=("ReLU",), beside="full_batch")] * 3)) == 2


def test_what_was_run() -> None:
    assert (
        run_sentence("SGD, lr = 0.1", "400", "full", warm_start=False)
        == "400 steps of SGD, lr = 0.1, full batch"
    )
    told = run_sentence("Adam, lr = 0.001", "50", 32, warm_start=True)
    assert "from a warm start" in told
    assert told.endswith("batches of 32")
    told = run_sentence("SGD", "5", 8, warm_start=False, augmentation="flips, seed 0", autocast="bfloat16")
    assert told.endswith("batches of 8 of augmented images (flips, seed 0), forward passes in bfloat16")
