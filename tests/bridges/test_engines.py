"""The registry of engines: one file and one registration make an engine, and each says what it can do."""

from __future__ import annotations

import numpy as np
import pytest

from bridges import (
    ENGINES,
    Capabilities,
    Choice,
    Engine,
    EngineError,
    Method,
    UnknownEngineError,
    choose,
    choose_for_jumps,
    engine_names,
    engines_with,
    get_engine,
)
from bridges.julia.engine import DiffeqEngine, using_backend
from bridges.trials import KnownProblem, try_engine, try_engines, try_methods
from tests.bridges.equations import METHODS, NO_JULIA, engine_called, properties
from tests.bridges.jobs import STAND_IN
from tests.bridges.toy_engine import ToyEngine, toy_registered


def test_engines_say_what_they_are() -> None:
    for name in engine_names():
        engine = get_engine(name)
        assert engine.name == name
        if name != "diffeq" or not NO_JULIA:
            assert any(character.isdigit() for character in engine.version)
    assert "StandIn (SciPy) " in engine_called("stand-in").version


def test_a_new_engine_is_one_registration() -> None:
    assert "toy" not in engine_names()
    with toy_registered():
        assert "toy" in engine_names()
        assert isinstance(get_engine("toy"), ToyEngine)
        assert not get_engine("toy").capabilities.embedded  # `auto` does not choose it
        ENGINES.register("toy", ENGINES["toy"])  # the same once more: no error
        with pytest.raises(ValueError, match="engine 'toy' is registered already"):
            ENGINES.register("toy", "elsewhere:Engine")
    with pytest.raises(UnknownEngineError):
        get_engine("toy")


def test_methods_are_a_mapping_that_gives_names() -> None:
    engine = get_engine("scipy")
    assert tuple(engine.methods) == ("DOP853", "RK23", "Midpoint", "RK8")
    assert "RK8" in engine.methods
    for pair in METHODS:
        method = properties(*pair)
        assert isinstance(method, Method)
        assert method.order >= 1
        assert method.jvp <= (method.kind == "implicit")
        assert method.sharpness <= (method.kind == "stabilised")


def test_what_auto_chooses_is_embedded_and_there() -> None:
    choices = [
        choose(kinks=kinks, stiffness=stiffness, rtol=rtol, on_gpu=on_gpu)
        for kinks in ((), ("ReLU",))
        for stiffness in (1.0, 1e4)
        for rtol in (None, 1e-8)
        for on_gpu in (False, True)
    ]
    choices += [
        choose_for_jumps(kinks=kinks, piece=0.1, on_gpu=on_gpu)
        for kinks in ((), ("ReLU",))
        for on_gpu in (False, True)
    ]
    assert {choice.engine for choice in choices} <= set(engines_with("embedded"))
    for choice in choices:
        method = properties(choice.engine, choice.method)
        assert (choice.step is not None) == (method.step == "required")
    assert all(properties(choice.engine, choice.method).jumps for choice in choices[-4:])


def test_the_engine_that_recommends() -> None:
    assert engines_with("recommends") == ("diffeq",)
    diffeq = get_engine("diffeq")
    for kinks, stiffness, rtol, method, used in (
        (("ReLU",), 1.0, None, "BS3", 1e-3),
        ((), 1.0, None, "Tsit5", 1e-6),
        ((), 1.0, 1e-8, "Vern7", 1e-8),
        ((), 1e3, 1e-10, "Vern9", 1e-10),
        ((), 1e3, 1e-5, "ROCK4", 1e-5),
        ((), 1e3, 1e-3, "ROCK4", 1e-3),
        ((), 1e3, 1e-2, "RKC", 1e-2),
    ):
        choice = diffeq.recommend(kinks=kinks, stiffness=stiffness, rtol=rtol)
        assert isinstance(choice, Choice)
        assert (choice.engine, choice.method, choice.rtol) == ("diffeq", method, used)
    for name in ("scipy", "sundials", "torch", "toy"):
        assert engine_called(name).recommend(kinks=(), stiffness=1.0, rtol=None) is None


def test_an_engine_without_laws_or_noise_says_so() -> None:
    assert engines_with("laws") == engines_with("noise") == ("diffeq",)
    one = np.ones((1, 1))
    with pytest.raises(EngineError, match="engine 'toy' does not solve the laws"):
        ToyEngine().solve_laws(
            order=1,
            m=one,
            b=one,
            kappa=one[0],
            force=one,
            y0=one[0],
            times=np.array([0.0, 1.0]),
            method="RK4",
            rtol=1e-6,
            atol=1e-9,
        )
    with pytest.raises(EngineError, match="engine 'toy' solves no stochastic"):
        ToyEngine().solve_noisy(
            lambda t, y, dy: None,
            factor=one[0],
            y0=one[0],
            time=1.0,
            step=0.1,
            seeds=[0],
            method="EM",
            on_member=lambda i, y: None,
        )


def test_a_backend_is_used_within_its_block() -> None:
    with using_backend(STAND_IN):
        assert get_engine("diffeq").lacks() == ""
        assert "StandIn" in get_engine("diffeq").version
        with pytest.raises(RuntimeError, match="mine"), using_backend("nowhere:Nothing"):
            raise RuntimeError("mine")
        assert "StandIn" in get_engine("diffeq").version
    assert get_engine("diffeq").lacks() == NO_JULIA


def test_a_backend_that_cannot_start_is_an_error_of_the_engine() -> None:
    with using_backend("nowhere:Nothing"), pytest.raises(EngineError, match=r"engine 'diffeq': .*nowhere"):
        get_engine("diffeq").version  # noqa: B018


def test_every_engine_is_tried_the_new_one_too() -> None:
    with toy_registered():
        found = {trial.name: trial for trial in try_engines()}
    assert set(found) == {*engine_names(), "toy"}
    for name in ("scipy", "sundials", "torch", "toy"):
        assert found[name].works, found[name]
        assert all(method in found[name].detail for method in engine_called(name).methods)
    assert found["diffeq"].works == (not NO_JULIA)
    if NO_JULIA:
        assert found["diffeq"].detail == NO_JULIA
        assert "nm-ode bridge install" in found["diffeq"].remedy


def test_julia_is_tried_by_two_methods() -> None:
    with using_backend(STAND_IN):
        trial = try_engine("diffeq")
    assert trial.works
    assert "Tsit5, Vern9" in trial.detail


def test_an_engine_that_is_wrong_is_told_with_its_remedy() -> None:
    wrong = KnownProblem("decay", lambda t, y, dy: dy.fill(0.0), np.ones(3), lambda t: np.full(3, np.exp(-t)))
    trial = try_engine("scipy", wrong)
    assert not trial.works
    assert "DOP853 is wrong by 6.3e-01" in trial.detail
    assert trial.remedy == "pip install --force-reinstall scipy"


class Unready(Engine):
    name = "unready"
    methods: dict[str, Method] = {}  # noqa: RUF012
    version = "1.0"
    remedy = "pip install its-library"

    def lacks(self) -> str:
        return "its library is not installed"

    def solve(self, problem, method, on_sample):
        raise AssertionError("never started")


@pytest.mark.parametrize(
    ("entry", "detail", "remedy"),
    [
        (Unready, "its library is not installed", "pip install its-library"),
        ("tests.bridges.nowhere:Engine", "cannot be imported", "tests.bridges.nowhere"),
    ],
)
def test_an_engine_that_is_not_installed_is_told_with_its_remedy(entry, detail: str, remedy: str) -> None:
    ENGINES.register("unready", entry)
    try:
        trial = try_engine("unready")
        assert not trial.works
        assert detail in trial.detail
        assert remedy in trial.remedy
        # Neither a list of alternatives nor the other engines are touched.
        assert engines_with("embedded") == ("scipy", "sundials", "torch")
    finally:
        ENGINES.unregister("unready")
    with pytest.raises(EngineError, match="engine 'unready' cannot start: its library is not installed; pip"):
        Unready().require_ready()


def test_a_broken_library_is_told_and_not_imported_before(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sksundae.cvode", None)  # an import of it fails
    trial = try_engine("sundials")
    assert not trial.works
    assert "scikit-sundae cannot be imported" in trial.detail
    assert trial.remedy == "pip install --force-reinstall scikit-sundae"
    with pytest.raises(EngineError, match="pip install --force-reinstall scikit-sundae"):
        get_engine("sundials").require_ready()


def test_every_method_of_an_engine_is_tried_on_every_known_problem() -> None:
    rows = [row for engine in (get_engine("scipy"), ToyEngine()) for row in try_methods(engine)]
    assert len(rows) == 3 * (len(get_engine("scipy").methods) + 1)
    assert {row.problem for row in rows} == {"decay", "oscillator", "Prothero and Robinson"}
    for row in rows:
        assert row.right, row
        assert row.rhs_evaluations > 0


def test_engines_are_values_without_a_state() -> None:
    """Two of one name share the worker; nothing is started by making one."""
    assert DiffeqEngine.capabilities == Capabilities(recommends=True, laws=True, noise=True)
    assert DiffeqEngine("nowhere:Nothing").lacks() == ""
