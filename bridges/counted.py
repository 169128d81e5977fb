"""The field of a problem as an engine may evaluate it: counted, timed, within the limits, finite."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from bridges.differences import DifferenceProduct
from bridges.problem import Jvp, OdeProblem, SolveStopped, Statistics
from bridges.vectors import Vector, is_far, is_finite


class CountedField:
    """Right-hand side, Jacobian product and sharpness of a problem, with counters and a clock.

    The limits of the problem hold for all evaluations together, of whichever of the three, and what is not finite stops
    the solve: at once, or after the step (`require_finite`) where the state lies on a device that would have to be
    waited for at each evaluation.

    Attributes:
        rhs_evaluations: right-hand sides, those of difference quotients among them.
        jvp_evaluations: products by `OdeProblem.jvp`.
        probe_evaluations: right-hand sides that `OdeProblem.sharpness` took.
        last_t: time of the last evaluation.
    """

    def __init__(self, problem: OdeProblem) -> None:
        self._problem, kept = problem, problem.kept
        before = Statistics() if kept is None else kept.statistics
        self._seconds_before = before.wall_seconds
        self.start_clock()
        self.rhs_evaluations = before.rhs_evaluations
        self.jvp_evaluations = before.jvp_evaluations
        self.probe_evaluations = before.probe_evaluations
        self._rhs_seconds, self._jvp_seconds = before.rhs_seconds, before.jvp_seconds
        self._spent = tuple(before.spent)
        self.last_t = float(problem.times[0] if kept is None else kept.t)
        self._unseen: Vector | None = None

    def start_clock(self) -> None:
        """The solve begins now: for engines that prepare something before."""
        self._started = time.perf_counter() - self._seconds_before

    @property
    def seconds(self) -> float:
        """Wall time since the solve began."""
        return time.perf_counter() - self._started

    def statistics(self, steps: int, rejected_steps: int) -> Statistics:
        """What the solve has cost so far."""
        return Statistics(
            rhs_evaluations=self.rhs_evaluations,
            steps=steps,
            rejected_steps=rejected_steps,
            wall_seconds=self.seconds,
            jvp_evaluations=self.jvp_evaluations,
            probe_evaluations=self.probe_evaluations,
            rhs_seconds=self._rhs_seconds,
            jvp_seconds=self._jvp_seconds,
            spent=self._spent,
        )

    def rhs(self, t: float, y: Vector, dy: Vector) -> None:
        """See `OdeProblem.rhs`.

        Raises:
            SolveStopped: see above.
        """
        self._require_room()
        self.rhs_evaluations += 1
        with self._metered():
            self._rhs_seconds += self._evaluate(t, y, dy)

    def require_finite(self) -> None:
        """After a step: were all its right-hand sides finite? One number comes from the device, if there is one.

        Raises:
            SolveStopped: see above.
        """
        if self._unseen is not None:
            unseen, self._unseen = self._unseen, None
            if not math.isfinite(float(unseen)):
                raise _not_finite()

    def jvp(self) -> Jvp:
        """A product with the Jacobian: the problem's own, or where it has none difference quotients."""
        if self._problem.jvp is not None:
            return self._own_jvp
        return DifferenceProduct(self.rhs, self._problem.noise, self._problem.scales)

    def sharpness(self, t: float, y: Vector, rate: Vector | None = None) -> float:
        """See `OdeProblem.sharpness`, which there must be; its right-hand sides are probes.

        Args:
            rate: the field at (t, y) where that is known: it costs nothing then to ask for it, of this very y.
        """
        assert self._problem.sharpness is not None

        def probe(at: float, z: Vector, dz: Vector) -> None:
            if rate is not None and z is y:
                dz[:] = rate
            else:
                self._probe(at, z, dz)

        radius = self._problem.sharpness(t, y, probe)
        if not np.isfinite(radius):
            raise SolveStopped("non_finite", "the spectral radius of the Jacobian is not finite")
        return radius

    def _own_jvp(self, t: float, y: Vector, v: Vector, out: Vector) -> None:
        assert self._problem.jvp is not None
        self._require_room()
        self.jvp_evaluations += 1
        self.last_t = t
        before = time.perf_counter()
        with self._metered():
            self._problem.jvp(t, y, v, out)
        self._jvp_seconds += time.perf_counter() - before
        if not is_finite(out):
            raise SolveStopped("non_finite", "the Jacobian product has entries that are not finite")

    def _probe(self, t: float, y: Vector, dy: Vector) -> None:
        self._require_room()
        self.probe_evaluations += 1
        self._evaluate(t, y, dy)

    def _evaluate(self, t: float, y: Vector, dy: Vector) -> float:
        """Seconds that it took."""
        self.last_t = t
        before = time.perf_counter()
        self._problem.rhs(t, y, dy)
        took = time.perf_counter() - before
        if is_far(dy):
            # What is not finite stays so in a sum, and the sum stays on the device; in float64 no float32 overflows it.
            total = dy.sum(dtype=self._problem.y0.dtype)
            self._unseen = total if self._unseen is None else self._unseen + total
        elif not is_finite(dy):
            raise _not_finite()
        return took

    @contextmanager
    def _metered(self) -> Iterator[None]:
        """Adds what the caller's counters gain meanwhile."""
        meter = self._problem.meter
        before = () if meter is None else meter()
        try:
            yield
        finally:
            now = () if meter is None else meter()
            spent = self._spent or (0,) * len(now)
            self._spent = tuple(a + c - b for a, b, c in zip(spent, before, now, strict=True))

    def _require_room(self) -> None:
        problem = self._problem
        spent = self.rhs_evaluations + self.jvp_evaluations + self.probe_evaluations
        if problem.max_rhs is not None and spent >= problem.max_rhs:
            others = (("Jacobian products", self.jvp_evaluations), ("probes", self.probe_evaluations))
            what = " and ".join(["right-hand sides", *(name for name, count in others if count)])
            raise SolveStopped("max_rhs", f"the limit of {problem.max_rhs} {what} was reached")
        if problem.max_seconds is not None and self.seconds > problem.max_seconds:
            raise SolveStopped(
                "max_seconds", f"the limit of {problem.max_seconds:g} s of wall time was reached"
            )


def _not_finite() -> SolveStopped:
    return SolveStopped("non_finite", "the right-hand side has entries that are not finite")
