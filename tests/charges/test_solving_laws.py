"""The same laws by an ODE engine."""

from __future__ import annotations

import numpy as np
import pytest

import nm_ode
from bridges import EngineError, get_engine
from bridges.julia.engine import using_backend
from nm_ode.charges import predict_charges
from nm_ode.optimizers import Drop
from nm_ode.results import law_info
from tests.oracles.charged_runs import trained

MOMENTA = pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])


@pytest.mark.parametrize(
    ("engine", "method", "accuracy"), [("scipy", "DOP853", 1e-6), ("sundials", "BDF", 1e-4)]
)
@MOMENTA
def test_an_engine_solves_the_same_law(relu, engine, method, accuracy, momentum, nesterov):
    run = trained(
        relu, 40, Drop((20,), 0.5), lr=0.02, momentum=momentum, nesterov=nesterov, weight_decay=1e-2
    )
    for law in ("second_order",) if momentum else ("second_order", "first_order"):
        solved = nm_ode.solve_charges(run, law, engine=engine, method=method, rtol=1e-9)
        expected = predict_charges(run, law)
        size = float(np.abs(expected["charge"] - expected["charge"][0]).max())
        np.testing.assert_allclose(solved["charge"], expected["charge"], rtol=0, atol=accuracy * size)
        info = law_info(solved)
        assert info.method == method
        assert info.rhs_evaluations > 40


@MOMENTA
def test_julia_is_given_the_whole_law_at_once(relu, momentum, nesterov):
    """With SciPy standing in for Julia: what crosses, and what comes back, is the same law."""
    run = trained(
        relu, 40, Drop((20,), 0.5), lr=0.02, momentum=momentum, nesterov=nesterov, weight_decay=1e-2
    )
    for law in ("second_order",) if momentum else ("second_order", "first_order"):
        with using_backend("tests.bridges.stand_in:StandIn"):
            solved = nm_ode.solve_charges(run, law, engine="diffeq", rtol=1e-10)
        expected = predict_charges(run, law)
        size = float(np.abs(expected["charge"] - expected["charge"][0]).max())
        np.testing.assert_allclose(solved["charge"], expected["charge"], rtol=0, atol=1e-7 * size)
        info = law_info(solved)
        assert (info.engine, info.method) == ("diffeq", "Vern7")


@pytest.mark.parametrize(
    ("engine", "method", "order"), [("scipy", "Midpoint", 2), ("diffeq", "RK4", 4), ("scipy", None, 2)]
)
def test_a_fixed_step_converges_to_the_law(relu, engine, method, order):
    run = trained(relu, 12, Drop((5,), 0.5), lr=0.02, momentum=0.9, weight_decay=1e-2)
    expected, errors = predict_charges(run, "second_order")["charge"], []
    with using_backend("tests.bridges.stand_in:StandIn"):
        for step in (0.005, 0.0025):
            solved = nm_ode.solve_charges(run, engine=engine, method=method, step=step)
            errors.append(float(np.abs(solved["charge"] - expected).max()))
            info = law_info(solved)
            assert (info.step, info.rtol, info.atol) == (step, None, None)
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.3)


@pytest.mark.parametrize(
    ("engine", "method", "step", "sentence"),
    [
        ("diffeq", "RK4", None, "'RK4' has a fixed step: give `step`"),
        ("diffeq", "Rodas5P", 0.1, "'Rodas5P' chooses its own steps"),
        ("diffeq", None, 0.1, "step goes with an explicit method of engine 'diffeq'"),
        ("scipy", "Midpoint", None, "'Midpoint' has a fixed step: give `step`"),
        ("scipy", "Midpoint", -0.1, "step must be a positive number"),
        ("scipy", "Midpoint", 1e-15, "step = 1e-15 is too small"),
        ("auto", None, 0.1, "step goes with a named engine"),
    ],
)
def test_a_step_that_does_not_fit_is_refused(relu, engine, method, step, sentence):
    run = trained(relu, 3, lr=0.02, momentum=0.9)
    with pytest.raises(EngineError, match=sentence):
        nm_ode.solve_charges(run, engine=engine, method=method, step=step)


NO_JULIA = get_engine("diffeq").lacks()


@pytest.mark.julia
@pytest.mark.skipif(bool(NO_JULIA), reason=f"no Julia: {NO_JULIA}")
@pytest.mark.parametrize("method", ["Rodas5P", "FBDF", "KenCarp4", "Vern7", "RK4"])
@MOMENTA
def test_julia_solves_the_law_by_any_method(relu, method, momentum, nesterov):
    """Implicit ones with its exact product: with differences Rodas5P took 80 times the right-hand sides."""
    run = trained(relu, 40, lr=0.02, momentum=momentum, nesterov=nesterov, weight_decay=1e-2)
    step = 0.005 if method == "RK4" else None
    solved = nm_ode.solve_charges(run, engine="diffeq", method=method, rtol=1e-9, step=step)
    expected = predict_charges(run, "second_order")
    size = float(np.abs(expected["charge"] - expected["charge"][0]).max())
    np.testing.assert_allclose(solved["charge"], expected["charge"], rtol=0, atol=1e-5 * size)
    info, implicit = law_info(solved), method in ("Rodas5P", "FBDF", "KenCarp4")
    assert (info.jvp_evaluations > 0) == implicit
    assert info.rhs_evaluations < 40 * 1000
    # The library's own count has two more for each product.
    assert not implicit or info.rhs_evaluations < 2 * info.jvp_evaluations


def test_auto_takes_what_fits_an_equation_that_is_not_stiff(relu):
    run = trained(relu, 5, lr=0.02, momentum=0.9, weight_decay=1e-2)
    assert law_info(nm_ode.solve_charges(run)).method == "DOP853"
    with pytest.raises(EngineError, match="method goes with a named engine"):
        nm_ode.solve_charges(run, method="BDF")
