"""Sentences on what a central flow predicts of a run past the edge of stability."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from nm_ode.comparison import CentralRow, Edge
from nm_ode.reporting.formats import count, number, order
from nm_ode.reporting.words import Sentence

_FEW = 4.0
"""Independent points, below which a correlation says nothing."""


def edge_sentences(seen: Edge) -> list[Sentence]:
    """What each flow comes to, the variance predicted and measured, and of which it is not predicted at an instant."""
    sentences = [sentence for row in seen.central for sentence in _of(row, seen)]
    low = [row.title for row in seen.central if not row.no_average and row.step is not None and _is_low(row)]
    return [*sentences, _of_low(low)] if low else sentences


def _of(row: CentralRow, seen: Edge) -> Iterator[Sentence]:
    title = row.title[:1].upper() + row.title[1:]
    if row.no_average:
        yield Sentence(f"{title} is held against no average: {row.no_average}.", warns=True)
        return
    if seen.step is None:
        yield Sentence(f"{title} comes to no edge: it predicts no oscillation.")
        return
    if row.step is None:
        yield Sentence(
            f"{title} predicts an oscillation from step {count(seen.step)} on, of which the run has not half of the "
            "mean size up to its end, or as far as the flow was solved: in the run it must grow from rounding."
        )
        return
    yield Sentence(
        f"{title} predicts an oscillation from step {count(seen.step)} on; from step {count(row.step)} on the run has "
        f"one of half the mean size or more. Means from there on: tr Σ predicted {number(row.predicted)}, measured "
        f"{number(row.measured)} about the run's own average."
    )
    yield _of_correlation(row)


def _of_correlation(row: CentralRow) -> Sentence:
    found = row.correlation
    if found.points < 3:
        return Sentence("At fewer than three samples both are known: they have no correlation.")
    if math.isnan(found.value):
        return Sentence("Along the run one of the two is constant, so that they have no correlation.")
    rests = f"on about {count(round(found.independent))} independent points of {count(found.points)}"
    if found.independent < _FEW:
        return Sentence(
            f"Their correlation along the run, {_signed(found.value)}, rests {rests}: too few to say whether the "
            "variance at an instant is predicted.",
            warns=True,
        )
    error = found.standard_error
    uncertain = "" if math.isnan(error) else f" ± {order(error)}"
    return Sentence(f"Their correlation along the run is {_signed(found.value)}{uncertain}, {rests}.")


def _is_low(row: CentralRow) -> bool:
    """Low, and told well enough?"""
    found = row.correlation
    told = found.points >= 3 and not math.isnan(found.value) and found.independent >= _FEW
    return told and row.is_low


def _of_low(titles: Sequence[str]) -> Sentence:
    """Once for all flows of which the correlation is low."""
    return Sentence(
        f"Of {' and of '.join(titles)} this is low: the variance at an instant is not predicted. Descent bursts there, "
        "and a central flow has the mean over many bursts at best.",
        warns=True,
    )


def _signed(value: float) -> str:
    return order(value).replace("-", "−")
