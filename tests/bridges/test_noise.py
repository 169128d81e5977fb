"""Stochastic paths: the law of a linear diffusion, which holds every method to it, and how they end and fail."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import expm, solve_continuous_lyapunov

from bridges import (
    Engine,
    EngineError,
    NoiseMethod,
    UnknownMethodError,
    engine_names,
    engines_with,
    get_engine,
    julia,
)
from bridges.julia.conversation import Callbacks
from bridges.julia.engine import DiffeqEngine
from bridges.julia.process import WorkerError
from bridges.noise_trials import LinearDiffusion, judge, known_diffusion, try_noise_methods
from tests.bridges.equations import engine_called, needs_julia
from tests.bridges.fake_julia import FakeJulia, write_project
from tests.bridges.jobs import STAND_IN, patient_session

MAKERS = ["stand-in", pytest.param("diffeq", marks=needs_julia)]


class FaultyEngine(DiffeqEngine):
    """The stand-in, with methods that are wrong as their names say."""

    noise_methods: Mapping[str, NoiseMethod] = {
        name: NoiseMethod(strong_order=1, weak_order=1)
        for name in (
            "EM, variance 1.4",
            "SRA1, variance 1.7",
            "EM, variance 0.7",
            "EM, mean 0.3",
            "SRA1, drift 0.7",
            "EM, independence 0",
            "EM, seeds 0",
            "no such method",
        )
    }


def paths(
    engine: Engine,
    drift,
    *,
    method: str = "EM",
    factor=(0.5, 0.5),
    y0=(1.0, -2.0),
    time: float = 1.0,
    step: float = 0.25,
    seeds=(3, 4),
) -> np.ndarray:
    ends: list[np.ndarray] = []

    def keep(member: int, y: np.ndarray) -> None:
        assert member == len(ends)
        ends.append(y.copy())

    engine.solve_noisy(
        drift,
        factor=np.array(factor, dtype=float),
        y0=np.array(y0, dtype=float),
        time=time,
        step=step,
        seeds=seeds,
        method=method,
        on_member=keep,
    )
    return np.array(ends)


def decay(t, y, dy) -> None:
    dy[:] = -y


@pytest.mark.parametrize("noise", ["diagonal", "matrix"])
def test_the_law_of_a_linear_diffusion_is_that_of_its_closed_form(noise) -> None:
    diffusion, time = known_diffusion(noise, n=6), 0.7
    law, decayed = diffusion.law(time), expm(-diffusion.a * time)
    stationary = solve_continuous_lyapunov(diffusion.a, diffusion.diffusion)
    np.testing.assert_allclose(
        law.mean, diffusion.centre + decayed @ (diffusion.start - diffusion.centre), rtol=1e-12
    )
    np.testing.assert_allclose(
        law.covariance, stationary - decayed @ stationary @ decayed.T, rtol=1e-10, atol=1e-13
    )


def test_the_law_of_one_component() -> None:
    one = LinearDiffusion(np.array([[2.0]]), np.array([3.0]), np.array([0.5]), np.array([4.0]))
    law = one.law(0.3)
    assert law.mean == pytest.approx(3 + np.exp(-0.6))
    assert law.covariance == pytest.approx(0.25 / 4 * (1 - np.exp(-1.2)))
    step = one.euler_law(0.3, 1)
    assert step.mean == pytest.approx(4 - 0.3 * 2)
    assert step.covariance == pytest.approx(0.3 * 0.25)


@pytest.mark.parametrize("noise", ["diagonal", "matrix"])
def test_the_law_of_euler_maruyama_tends_to_it_with_order_one(noise) -> None:
    diffusion = known_diffusion(noise, n=6)
    law, errors = diffusion.law(1.0), []
    for steps in (50, 100):
        euler = diffusion.euler_law(1.0, steps)
        errors.append(
            [np.linalg.norm(euler.mean - law.mean), np.linalg.norm(euler.covariance - law.covariance)]
        )
    np.testing.assert_allclose(np.divide(*errors), 2, rtol=0.05)


@pytest.mark.parametrize("noise", ["diagonal", "matrix"])
def test_draws_of_the_law_itself_are_right_and_those_of_another_are_not(noise) -> None:
    diffusion, generator = known_diffusion(noise), np.random.default_rng(0)
    law = diffusion.law(1.0)
    root = np.linalg.cholesky(law.covariance)

    def found_right(scale: float = 1.0, shift: float = 0.0) -> list[bool]:
        draws = [
            law.mean
            + (shift / 8 + np.sqrt(scale) * generator.standard_normal((64, len(root)))) @ root.T  # 8 = √64
            for _ in range(8)
        ]
        return [judge("", noise, diffusion, ends).right for ends in draws]

    assert all(found_right())
    assert not any(found_right(scale=1.3))
    assert not any(found_right(scale=0.75))
    assert not any(found_right(shift=2.0))  # standard errors of each component


@pytest.mark.parametrize("method", DiffeqEngine.noise_methods)
@pytest.mark.parametrize("engine", MAKERS)
def test_every_offered_method_has_the_law_of_the_diffusion(engine: str, method: str) -> None:
    made = engine_called(engine)
    made.require_noise_ready()
    tried = list(try_noise_methods(made, (method,)))
    kinds = ("diagonal",) if made.noise_methods[method].diagonal_only else ("diagonal", "matrix")
    assert tuple(trial.noise for trial in tried) == kinds
    assert all(trial.right for trial in tried), tried


@pytest.mark.parametrize("method", FaultyEngine.noise_methods)
def test_a_wrong_method_is_found(method: str) -> None:
    for trial in try_noise_methods(FaultyEngine(STAND_IN), (method,)):
        assert not trial.right, trial
        assert ("no such method" in trial.message) == (method == "no such method")


def test_an_engine_with_noise_names_its_methods() -> None:
    assert engines_with("noise") == tuple(name for name in engine_names() if get_engine(name).noise_methods)


@pytest.mark.parametrize("engine", MAKERS)
def test_without_noise_the_paths_have_the_order_of_the_method(engine: str) -> None:
    def ends(method: str, step: float) -> np.ndarray:
        return paths(engine_called(engine), decay, method=method, factor=(0, 0), step=step, seeds=(1,))[0]

    exact = np.array([1.0, -2.0]) * np.exp(-1)
    for method, properties in DiffeqEngine.noise_methods.items():
        coarse, fine = (np.abs(ends(method, step) - exact).max() for step in (0.1, 0.05))
        assert coarse / fine > 0.8 * 2**properties.weak_order, method


@pytest.mark.parametrize("engine", MAKERS)
@pytest.mark.parametrize(
    ("time", "step", "lengths"),
    [
        (1.0, 0.25, [0.25] * 4),
        (1.0, 0.4, [0.4, 0.4, 0.2]),
        (0.3, 5.0, [0.3]),
        (0.3, 0.1, [0.1] * 3),
        (0.7, 0.1, [0.1] * 7),
    ],
)
def test_paths_end_at_their_time_whatever_the_step(engine: str, time: float, step: float, lengths) -> None:
    """dy = t dt and Euler–Maruyama tell every step: the mean is Σ h t, and the variance is the time."""

    def drift(t, y, dy) -> None:
        dy[:] = t

    ends = paths(engine_called(engine), drift, factor=np.zeros(2), time=time, step=step, seeds=(1,))
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    np.testing.assert_allclose(
        ends, [np.array([1.0, -2.0]) + np.sum(starts * np.array(lengths))], rtol=1e-12, atol=1e-12
    )
    n = 4000
    ends = paths(
        engine_called(engine),
        lambda t, y, dy: dy.fill(0),
        factor=np.ones(n),
        y0=np.zeros(n),
        time=time,
        step=step,
        seeds=(1,),
    )
    assert ends.var() == pytest.approx(time, rel=6 * np.sqrt(2 / n))


@pytest.mark.parametrize("engine", MAKERS)
@pytest.mark.parametrize("factor", [(0.5, 0.3), ((0.5, 0.1), (0.0, 0.3), (0.2, -0.4))])
def test_a_seed_fixes_a_path_and_another_gives_another(engine: str, factor) -> None:
    made = engine_called(engine)
    first = paths(made, decay, factor=factor, seeds=(0, 7, 2**63 - 1, 7))
    again = paths(made, decay, factor=factor, seeds=(7, 0))
    assert len({path.tobytes() for path in first}) == 3
    np.testing.assert_array_equal(first[1], first[3])
    np.testing.assert_array_equal(first[1::-1], again)


@pytest.mark.parametrize("engine", MAKERS)
@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyboardInterrupt()])
def test_what_the_drift_or_the_callback_raises_comes_out_as_it_is(engine: str, error) -> None:
    made = engine_called(engine)

    def raises(t, y, dy) -> None:
        if t > 0.4:
            raise error
        dy[:] = -y

    with pytest.raises(type(error)) as raised:
        paths(made, raises)
    assert raised.value is error

    def refuses(member: int, y) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        made.solve_noisy(
            decay,
            factor=np.ones(1),
            y0=np.ones(1),
            time=1.0,
            step=0.5,
            seeds=[1],
            method="EM",
            on_member=refuses,
        )
    assert raised.value is error
    assert paths(made, decay).shape == (2, 2)


@pytest.mark.parametrize("engine", MAKERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_path_that_is_not_finite_is_an_error(engine: str, value: float) -> None:
    came: list[int] = []

    def breaks(t, y, dy) -> None:
        dy[:] = value if came and t > 0.3 else -y

    made = engine_called(engine)
    with pytest.raises(EngineError, match="EM stopped on path 1 of 2"):
        made.solve_noisy(
            breaks,
            factor=np.ones(1),
            y0=np.ones(1),
            time=1.0,
            step=0.25,
            seeds=[1, 2],
            method="EM",
            on_member=lambda member, y: came.append(member),
        )
    assert came == [0]
    assert paths(made, decay).shape == (2, 2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "LambaEM"}, "no method 'LambaEM' for paths with noise. Known: EM, SRA1, SOSRA, SOSRI"),
        ({"method": "Tsit5"}, "no method 'Tsit5' for paths with noise"),
        ({"method": "sra1"}, "did you mean 'SRA1'"),
        ({"method": "SOSRI", "factor": np.eye(2)}, "'SOSRI' is for diagonal noise"),
        ({"factor": np.ones(3)}, r"factor has shape \(3,\); of a state of 2 it is \(2,\)"),
        ({"factor": np.ones((2, 3))}, r"factor has shape \(2, 3\)"),
        ({"factor": np.ones((0, 2))}, r"factor has shape \(0, 2\)"),
        ({"factor": (1, np.inf)}, "factor has entries that are not finite"),
        ({"y0": (1, np.nan)}, "y0 must be a non-empty vector of finite numbers"),
        ({"time": 0.0}, "time must be a positive number"),
        ({"time": np.inf}, "time must be a positive number"),
        ({"step": 0.0}, "step must be a positive number"),
        ({"step": np.nan}, "step must be a positive number"),
        ({"step": None}, "every method for paths with noise has a fixed step: give `step`"),
        ({"step": 1e-12}, "step = 1e-12 is too small"),
        ({"seeds": (1, -1)}, "a seed is a whole number from 0 to"),
        ({"seeds": (2**63,)}, "a seed is a whole number from 0 to"),
        ({"seeds": (0.5,)}, "a seed is a whole number from 0 to"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(options, sentence: str) -> None:
    never = DiffeqEngine("no such module:Nothing")
    with pytest.raises(EngineError, match=sentence) as raised:
        paths(never, decay, **options)
    assert isinstance(raised.value, UnknownMethodError) == (
        options.get("method", "EM") not in DiffeqEngine.noise_methods
    )


def test_without_its_package_nothing_starts(tmp_path: Path, monkeypatch) -> None:
    write_project(tmp_path, without=("StochasticDiffEq",))
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", str(FakeJulia(tmp_path).path))
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(tmp_path))
    engine = get_engine("diffeq")
    engine.require_ready()
    with pytest.raises(EngineError, match=r"StochasticDiffEq .* run `nm-ode bridge install`"):
        paths(engine, decay)
    assert FakeJulia(tmp_path).calls == []
    DiffeqEngine(STAND_IN).require_noise_ready()


def test_no_method_chooses_its_own_steps() -> None:
    """Adaptive ones were seen with up to twice the variance (docs/bridge.md rule 12)."""
    in_julia = Path(julia.__file__).with_name("nm_noise.jl").read_text()
    assert re.findall(r"adaptive = (\w+)", in_julia) == ["false"]
    job = {"method": "SOSRA", "time": 1.0, "step": 0.5, "seeds": [1], "diagonal": True}
    session = patient_session()
    try:
        for change in ({"adaptive": True}, {"step": 0.0}):
            with pytest.raises(WorkerError, match="AssertionError"):
                session.noisy(
                    {**job, **change}, np.ones(1), {"factor": np.ones(1)}, Callbacks(decay, lambda i, y: None)
                )
    finally:
        session.close()
