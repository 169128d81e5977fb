"""Ensembles of paths of the stochastic modified flow, to be compared with one of SGD in distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bridges import Engine, EngineError, engines_with, get_engine, require_limits
from nm_ode.ensembles import ensemble_dataset, groups_of_members, start_of_members
from nm_ode.errors import ArgumentError
from nm_ode.flows import StochasticModifiedFlow
from nm_ode.loss.noise import GradientNoise, along
from nm_ode.modes import in_own_modes
from nm_ode.required import as_seed
from nm_ode.results import EnsembleInfo


@in_own_modes
def solve_ensemble(
    flow: StochasticModifiedFlow,
    time: float,
    *,
    members: int,
    engine: str = "torch",
    method: str = "EM",
    step: float | None = None,
    seed: int = 0,
    theta0: Tensor | None = None,
) -> xr.Dataset:
    """Paths of a stochastic modified flow to `time` (docs/theory.md §4.8 (iii)).

    Args:
        flow: a `StochasticModifiedFlow`.
        time: flow time at which the paths end; of runs beside them, `ensemble_info(runs).time`.
        members: number of paths.
        engine: "torch" (Euler–Maruyama, here) or "diffeq" (StochasticDiffEq.jl).
        method: "EM", and with "diffeq" also "SRA1", "SOSRA" (strong order 1.5) and "SOSRI" (the same, for diagonal
            noise alone).
        step: of all methods, which are never adaptive (docs/bridge.md rule 12); lr/4 if None. It is changed a
            little so that whole steps make up `time`.
        seed: of the noise; member i has its own.
        theta0: where all start, shape (P,); the problem's own start if None.

    Returns:
        `theta` (member, param), at `time`; `start` (param), and `noise_theta` (param), at which the noise was measured,
        if it is of `gradient_noise`. `nm_ode.ensemble_info` gives the typed record, with what the noise is of.

    Raises:
        ArgumentError: another flow, members, time or step out of range, or a start of another shape.
        EngineError: an unknown engine or method, a method that does not take such noise, no StochasticDiffEq, or paths
            that became non-finite.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, sgd = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.SGD(lr=0.05)
        >>> noise = nm_ode.gradient_noise(problem, problem.theta0, batch_size=16)
        >>> paths = nm_ode.solve_ensemble(nm_ode.StochasticModifiedFlow(problem, sgd, noise), time=0.5, members=8)
        >>> paths.theta.shape, nm_ode.ensemble_info(paths).method, nm_ode.ensemble_info(paths).step
        ((8, 11), 'EM', 0.0125)
    """
    if not isinstance(flow, StochasticModifiedFlow):
        raise ArgumentError(
            f"an ensemble is one of a StochasticModifiedFlow, whose paths differ; {type(flow).__name__} was given: "
            "take nm_ode.solve"
        )
    for name, value in (("time", time), ("step", step)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ArgumentError(f"{name} must be a positive number; {value} was given")
    seed = as_seed(seed)
    start = start_of_members(flow.problem, theta0, members)
    used = flow.optimizer.lr / 4 if step is None else step
    require_limits(step=used, span=time)
    count = max(1, round(time / used))
    if engine == "torch":
        if method != "EM":
            raise EngineError(
                f"engine 'torch' has the method 'EM' alone; {method!r} was given: take 'diffeq'"
            )
        ends = _euler_maruyama(flow, start, time / count, count, members, seed)
    elif engine in engines_with("noise"):
        ends = _by_engine(get_engine(engine), flow, start, time, time / count, members, method, seed)
    else:
        known = " or ".join(map(repr, ("torch", *engines_with("noise"))))
        raise EngineError(f"an ensemble is solved by {known}; {engine!r} was given")
    info = EnsembleInfo(
        title=flow.title,
        members=members,
        seed=seed,
        time=time,
        layout=flow.problem.layout,
        flow=flow.name,
        engine=engine,
        method=method,
        step=time / count,
        lr=flow.optimizer.lr,
    )
    if flow.noise is None:
        return ensemble_dataset(ends, info, start=start)
    return ensemble_dataset(ends, _with_noise(info, flow.noise), start=start, noise_theta=flow.noise.theta)


def _with_noise(info: EnsembleInfo, noise: GradientNoise) -> EnsembleInfo:
    return replace(
        info,
        noise_kind=noise.kind,
        noise_batch_size=noise.batch_size,
        noise_captured=noise.captured,
        noise_estimator=noise.estimator,
        noise_draws=noise.draws,
        noise_standard_error=noise.standard_error,
    )


def _euler_maruyama(
    flow: StochasticModifiedFlow, start: Tensor, h: float, count: int, members: int, seed: int
) -> Tensor:
    """Where the members end, shape (M, P); many step at once. The same numbers as of one after another, to rounding."""
    factor, ends = flow.factor, []

    def draw(generator: torch.Generator) -> Tensor:
        return torch.randn(len(factor), dtype=factor.dtype, generator=generator, device="cpu")

    def draw_all(stream: torch.Generator) -> None:
        for _ in range(count):
            draw(stream)

    for generators in groups_of_members(members, len(start), seed, draw_all):
        thetas = start.expand(len(generators), -1)
        for _ in range(count):
            normal = torch.stack([draw(generator) for generator in generators]).to(factor)
            thetas = thetas + h * flow.drifts(thetas) + h**0.5 * along(factor, normal)
        ends.append(thetas)
    found = torch.cat(ends)
    wrong = (~found.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if wrong:
        raise EngineError(
            f"{len(wrong)} of {members} paths became non-finite, path {wrong[0]} the first of them; a smaller step may "
            "help"
        )
    return found


def _by_engine(
    engine: Engine,
    flow: StochasticModifiedFlow,
    start: Tensor,
    time: float,
    h: float,
    members: int,
    method: str,
    seed: int,
) -> Tensor:
    ends, came = np.empty((members, len(start))), np.zeros(members, dtype=bool)

    def drift(t: float, y: np.ndarray, dy: np.ndarray) -> None:
        dy[:] = flow.drift(torch.from_numpy(y.copy()).to(start)).cpu().numpy()

    def keep(member: int, y: np.ndarray) -> None:
        ends[member], came[member] = y, True

    seeds: Sequence[int] = np.random.SeedSequence(seed).generate_state(members).tolist()
    engine.solve_noisy(
        drift,
        factor=np.asarray(flow.factor.cpu().numpy(), dtype=np.float64),
        y0=np.asarray(start.cpu().numpy(), dtype=np.float64),
        time=time,
        step=h,
        seeds=seeds,
        method=method,
        on_member=keep,
    )
    if not came.all():
        raise EngineError(f"{engine.name} {method} gave {int(came.sum())} of {members} members")
    return torch.from_numpy(ends)
