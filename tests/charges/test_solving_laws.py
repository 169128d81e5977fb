"""The same laws by an ODE engine."""

from __future__ import annotations

import numpy as np
import pytest

import nm_ode
from bridges import EngineError
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


def test_auto_takes_what_fits_an_equation_that_is_not_stiff(relu):
    run = trained(relu, 5, lr=0.02, momentum=0.9, weight_decay=1e-2)
    assert law_info(nm_ode.solve_charges(run)).method == "DOP853"
    with pytest.raises(EngineError, match="method goes with a named engine"):
        nm_ode.solve_charges(run, method="BDF")
