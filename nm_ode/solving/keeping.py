"""A solve that is kept while it runs, its check included, and goes on from there.

A method that takes one step after the other without a memory goes on as if it had never stopped; one that remembers
earlier steps starts anew with small ones, and agrees within its tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from bridges import Kept, OdeProblem, OdeSolution, Statistics, solve_with
from bridges.vectors import Vector, on_host
from nm_ode.flows import Flow
from nm_ode.loss import problem_identity
from nm_ode.observers import Recording
from nm_ode.observers.kept import RecordingFile, fingerprint
from nm_ode.observers.memory import as_arrays, in_part
from nm_ode.results.checkpoints import Checkpoint
from nm_ode.results.segments import Segment, digest
from nm_ode.solving.described import options_of
from nm_ode.solving.field import Array, Field, to_numpy
from nm_ode.solving.plan import Plan

_AGREE = {torch.float64: 1e-7, torch.float32: 1e-3}  # one right-hand side by other threads or another torch


class KeptSolve:
    """The checkpoint of one solve; without one it solves and keeps nothing.

    Args:
        checkpoint: where; None for nowhere.
        plan: engine and method.
        flow, ode: what is solved.
        described: what else fixes the solve, as JSON has it.
        recording: that samples of the first solve are handed to.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        plan: Plan,
        flow: Flow,
        ode: OdeProblem,
        described: Mapping[str, Any],
        recording: Recording,
    ) -> None:
        self._plan, self._flow, self._ode = plan, flow, ode
        self._file: RecordingFile | None = None
        self._done: list[tuple[OdeSolution, Array | None]] = []  # solves that are done, and what they filled
        self._begun: Segment | None = None  # the one that was under way
        self._solves, self.restarts = 0, 0
        self.anew = 0  # restarts of a method that remembers earlier steps
        self._probe: list[float] | None = None
        if checkpoint is None:
            return
        if not plan.engine.goes_on:
            checkpoint.say(
                f"{flow.title}: no checkpoint is kept: engine {plan.engine.name!r} cannot go on from one"
            )
            return
        belongs = {
            "kind": "solve",
            "flow": f"{type(flow).__module__}.{type(flow).__qualname__}",
            "title": flow.title,
            "options": options_of(flow),
            "times": digest(ode.times, np.empty(0) if ode.restarts is None else ode.restarts),
            "start": digest(on_host(ode.y0)),
            **described,
            **problem_identity(flow.problem),
        }
        self._file = RecordingFile.of(checkpoint, flow.title, belongs, recording)

    def go_on(self) -> int:
        """How many samples were recorded; 0 if nothing was kept."""
        if self._file is None:
            return 0
        last: Segment | None = None
        for segment in self._file.taken_up(
            lambda first: self._is_of_this_field(first.facts["probe"]), "what was kept is of another field"
        ):
            last = segment
        if last is None:
            return 0
        facts, state = last.facts, last.state
        self._file.restore(last)
        self._done = [_solution(one, in_part(f"done {i}/", state)) for i, one in enumerate(facts["done"])]
        self._begun = last if facts["begun"] is not None else None
        self._probe, self.restarts = list(facts["probe"]), int(facts["restarts"]) + 1
        self.anew = int(facts["anew"])
        total, samples = len(self._ode.times), int(facts["samples"])
        which = f"sample {samples} of {total}" if not self._done else "its check"
        start, end = self._ode.times[0], self._ode.times[-1]
        time = f", t = {start + facts['begun']['t']:g} of {end:g}" if self._begun is not None else ""
        self._file.say(f"goes on from {which}{time}")
        return samples

    def solve(
        self, ode: OdeProblem, on_sample: Callable[[int, float, Vector], None], filled: Array | None = None
    ) -> OdeSolution:
        """`solve_with` the plan's engine, from where it was kept; the result at once if it was done.

        Args:
            filled: what `on_sample` fills beside the recording, shape (times,).
        """
        which, self._solves = self._solves, self._solves + 1
        if self._file is None:
            return self._solved(ode, on_sample)
        if which < len(self._done):
            solution, numbers = self._done[which]
            if filled is not None and numbers is not None:
                filled[:] = numbers
            return solution
        kept = None
        if self._begun is not None and which == len(self._done):
            kept = _place(self._begun.facts["begun"], in_part("begun/", self._begun.state))
            self.anew += ode.step is None and not kept.memory
            numbers = self._begun.state.get("filled")
            if filled is not None and numbers is not None:
                filled[:] = numbers
        self._begun = None

        def keep(place: Callable[[], Kept]) -> None:
            if self._file is not None and self._file.due():
                self._save(place(), filled)

        solution = self._solved(replace(ode, kept=kept, on_step=keep), on_sample)
        if solution.status != "success":
            self._file = (
                None  # what comes after is of a solve that was not done, and is not done again from there
            )
            return solution
        self._done.append((solution, filled))
        if self._file.due(ending=True):
            self._save(None, None)
        return solution

    def _solved(self, ode: OdeProblem, on_sample: Callable[[int, float, Vector], None]) -> OdeSolution:
        try:
            return solve_with(self._plan.engine, ode, self._plan.choice.method, on_sample)
        finally:
            # The parameters may be views of the engine's vectors, which would be held beside those of the next solve.
            self._flow.problem.rest()

    def _save(self, place: Kept | None, filled: Array | None) -> None:
        assert self._file is not None
        self._probe = self._measured() if self._probe is None else self._probe
        facts: dict[str, Any] = {
            "probe": self._probe,
            "restarts": self.restarts,
            "anew": self.anew,
            "samples": self._done[0][0].samples if self._done else 0,
            "done": [_facts(solution) for solution, _ in self._done],
            "begun": None,
        }
        state: dict[str, Array] = {}
        for i, (solution, numbers) in enumerate(self._done):
            state |= as_arrays(f"done {i}/", filled=numbers, errors=solution.error_estimates)
        if place is not None:
            facts["begun"] = {"t": place.t, "samples": place.samples, "statistics": asdict(place.statistics)}
            facts["samples"] = facts["samples"] or place.samples
            state |= as_arrays("begun/", y=place.y, errors=place.errors)
            state |= as_arrays("begun/memory/", **place.memory)
            state |= as_arrays("", filled=filled)
        self._file.save_all(facts, state)

    def _is_of_this_field(self, probe: list[float]) -> bool:
        here = self._measured()
        return bool(np.allclose(probe, here, rtol=_AGREE.get(self._flow.problem.dtype, 1e-3), atol=0))

    def _measured(self) -> list[float]:
        """A few numbers of the field at the start that another has not."""
        return fingerprint(to_numpy(Field(self._flow).at_start(float(self._ode.times[0]), self._ode.y0)))


def _facts(solution: OdeSolution) -> dict[str, Any]:
    return asdict(replace(solution, error_estimates=None))


def _solution(facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> tuple[OdeSolution, Array | None]:
    statistics = _statistics(facts)
    values = {**facts, "statistics": statistics, "error_estimates": arrays.get("errors")}
    return OdeSolution(**values), arrays.get("filled")


def _statistics(facts: Mapping[str, Any]) -> Statistics:
    """JSON knows no tuples."""
    kept = facts["statistics"]
    return Statistics(**{**kept, "spent": tuple(kept.get("spent", ()))})


def _place(facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> Kept:
    return Kept(
        float(facts["t"]),
        arrays["y"],
        int(facts["samples"]),
        _statistics(facts),
        in_part("memory/", arrays),
        arrays.get("errors"),
    )
