"""solve_charges: a charge law to an ODE engine, step by step through the jumps of its driver."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from bridges import (
    AUTO,
    Engine,
    LawsSolution,
    OdeProblem,
    choose,
    get_engine,
    resolve_method,
    solve_with,
)
from nm_ode.charges.driven import driven
from nm_ode.charges.equation import ChargeEquation
from nm_ode.charges.errors import LawError
from nm_ode.charges.laws import LAWS, law_named, require_described
from nm_ode.charges.predict import as_prediction
from nm_ode.charges.shares import shares
from nm_ode.required import require_dataset
from nm_ode.results import LawInfo
from nm_ode.solving.options import options

Array = NDArray[np.float64]

_SMALLEST = 1e-90  # charge
_STIFFNESS = 2.0  # b/m times a step is 2(1−β)/(1+β), at most this


def solve_charges(
    run: xr.Dataset,
    law: str = "second_order",
    *,
    engine: str | None = AUTO,
    method: str | None = None,
    rtol: float = 1e-9,
    atol: float | None = None,
    step: float | None = None,
) -> xr.Dataset:
    """The continuous law of a run's charges, solved by an engine with the recorded driver (docs/theory.md §3.3, §3.5).

    `predict_charges` integrates the same equation by matrix exponentials, without an error of its own; this is the
    same by any method of any engine.

    Args:
        run: from `train`, with charges recorded.
        law: "second_order", or "first_order" (without momentum).
        engine, method: as in `solve`; the engine is started anew at each step, since the driver jumps. "auto" takes
            what fits a smooth equation that is not stiff: over one step the velocity relaxes by no more than e².
            An engine with the capability `laws` ("diffeq") solves all charges at once, by its `laws_method` if none is
            named.
        rtol, atol: of the local error; atol is rtol times the largest charge if None.
        step: of a fixed-step method, in flow time; its steps end at each step of the run too. Nothing measures its
            error but `predict_charges`, which has none.

    Returns:
        `charge` (step, charge_index), with the run's coordinates and a LawInfo; NaN where the law does not describe a
        charge, as in `predict_charges`.

    Raises:
        LawError: no charges, a law that is no differential equation, a run that the law does not describe (as in
            `predict_charges`), or an engine that gave up.
        EngineError: unknown engine or method.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 4, 10], "relu"), cross_entropy, digits(samples=64))
        >>> charges, sgd = nm_ode.Charges(nm_ode.symmetries_of(problem)), nm_ode.SGD(lr=0.1, momentum=0.9)
        >>> run = nm_ode.train(problem, sgd, steps=20, observe=[charges])
        >>> solved, predicted = nm_ode.solve_charges(run), nm_ode.predict_charges(run, "second_order")
        >>> float(abs(solved.charge - predicted.charge).max()) < 1e-6
        True
    """
    require_dataset(run, "run", "nm_ode.train")
    title = law_named(law).title
    asked = options(engine, method, rtol=rtol, atol=atol, step=step)
    asked.require(torch.float64)
    engine, method, rtol, atol = asked.engine, asked.method, asked.rtol or 1e-9, asked.atol
    parts, beyond = shares(run)
    equations = []
    for share in parts:
        try:
            equations.append((share.where, _equation(share.run, law)))
        except LawError as error:
            if len(parts) == 1:
                raise
            beyond |= dict.fromkeys(share.symmetries, str(error))
    if not equations:
        raise LawError(next(reversed(beyond.values())))
    span = max(float(equation.times[-1] - equation.times[0]) for _, equation in equations)
    asked.require(torch.float64, span=span)
    if engine == AUTO:
        choice = choose(kinks=(), stiffness=_STIFFNESS, rtol=rtol)
        engine, method = choice.engine, choice.method
    found = get_engine(engine)
    if method in (None, AUTO) and asked.step is None:
        method = found.laws_method
    method = resolve_method(found, method, asked.step)
    if atol is None:
        largest = max(float(np.abs(one.solved_in(one.start)).max()) for _, one in equations)
        atol = rtol * max(largest, _SMALLEST)
    charges, rhs, jvp = np.full(run["charge"].shape, np.nan), 0, 0
    solver = _Solver(found, method, rtol, atol, asked.step, title)
    for where, equation in equations:
        solved = solver.solved(equation)
        charges[:, where] = (solved.charges + equation.added)[: len(charges)]
        rhs, jvp = rhs + solved.rhs_evaluations, jvp + (solved.jvp_evaluations or 0)
    info = LawInfo(
        law,
        title,
        engine=engine,
        method=method,
        rtol=rtol if asked.step is None else None,
        atol=atol if asked.step is None else None,
        step=asked.step,
        rhs_evaluations=rhs,
        jvp_evaluations=jvp,
        beyond=beyond,
    )
    return as_prediction(run, charges, info)


@dataclass(frozen=True, eq=False)
class _Solver:
    """An engine, and how it is asked.

    Attributes:
        title: of the law, for messages.
    """

    engine: Engine
    method: str
    rtol: float
    atol: float
    step: float | None
    title: str

    @property
    def who(self) -> str:
        """What a message begins with."""
        return f"{self.title}: {self.engine.name} {self.method}"

    def solved(self, equation: ChargeEquation) -> LawsSolution:
        """Charges that one equation has.

        Raises:
            LawError: not all are there, or they are not finite.
        """
        found = self._at_once(equation) if self.engine.capabilities.laws else self._step_by_step(equation)
        expected = (len(equation.times), equation.kappa.size)
        if np.shape(found.charges) != expected:
            raise LawError(
                f"{self.who} gave charges of shape {np.shape(found.charges)}; {expected} was asked for"
            )
        if not np.isfinite(found.charges).all():
            step = int(np.flatnonzero(~np.isfinite(found.charges).all(axis=1))[0])
            raise LawError(f"{self.who} gave charges that are not finite, from step {step} on: tighten rtol")
        return found

    def _at_once(self, equation: ChargeEquation) -> LawsSolution:
        """All in one solve of the engine's own, which is given the drivers of every step."""
        return self.engine.solve_laws(
            order=equation.order,
            m=equation.m,
            b=equation.b,
            kappa=equation.kappa,
            force=equation.force,
            y0=equation.start,
            times=equation.times,
            method=self.method,
            rtol=self.rtol,
            atol=self.atol,
            step=self.step,
        )

    def _step_by_step(self, equation: ChargeEquation) -> LawsSolution:
        """With a solve for each step of the run."""
        state = equation.start
        charges, evaluations = [equation.solved_in(state)], 0
        for k, ends in enumerate(pairwise(equation.times)):

            def rhs(t: float, y: Array, dy: Array, k: int = k) -> None:
                dy[:] = equation.rhs(k, y)

            after = np.empty_like(state)

            def keep(index: int, t: float, y: Array, after: Array = after) -> None:
                after[:] = y

            problem = OdeProblem(rhs, state, np.array(ends), self.rtol, self.atol, self.step)
            solution = solve_with(self.engine, problem, self.method, keep)
            if solution.status != "success":
                raise LawError(f"{self.who} stopped in step {k}: {solution.message}")
            evaluations += solution.statistics.rhs_evaluations
            state = after
            charges.append(equation.solved_in(state))
        return LawsSolution(np.stack(charges), evaluations)


def _equation(run: xr.Dataset, law: str) -> ChargeEquation:
    found, what = law_named(law), driven(run)
    if found.equation is None:
        equations = ", ".join(name for name, one in LAWS.items() if one.equation is not None)
        raise LawError(f"{law!r} is no differential equation; there are {equations}")
    require_described(law, what.optimizer, what.hyperparameters, at_rest=what.at_rest)
    if np.ptp(what.weight_decay) or not what.lr.all():
        raise LawError(
            "within the run the weight decay changed, or the learning rate was 0: an engine solves no such equation; "
            "take predict_charges"
        )
    return found.equation(what)
