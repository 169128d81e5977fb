"""Trees of small studies, one of each kind."""

from __future__ import annotations

import pytest
import xarray as xr

import nm_ode
from nm_ode.optimizers.schedules import Drop
from tests.reporting.trees import ladder, predicted, small_problem, study_tree

TWO_FLOWS = "gradient", "modified_2_hessian"


@pytest.fixture(scope="session")
def problem() -> nm_ode.Problem:
    return small_problem()


@pytest.fixture(scope="session")
def with_flows(problem) -> xr.DataTree:
    """Gradient flow and the second modified flow in Hessian form, beside plain descent."""
    optimizer = nm_ode.SGD(lr=0.1)
    run = nm_ode.train(problem, optimizer, 10, save_every=5)
    flows = [nm_ode.GradientFlow(problem), nm_ode.modified_flow(problem, optimizer, 2, form="hessian")]
    return study_tree(run, [nm_ode.solve(flow, run, rtol=1e-5) for flow in flows])


@pytest.fixture(scope="session")
def with_ladder(problem) -> xr.DataTree:
    """The same with sharpness, and orders over a ladder of learning rates."""
    optimizer = nm_ode.SGD(lr=0.1)
    run = nm_ode.train(problem, optimizer, 10, save_every=5, observe=[nm_ode.Curvature(3)])
    solution = nm_ode.solve(nm_ode.GradientFlow(problem), run, rtol=1e-9)
    return study_tree(run, [solution], found_orders=ladder(problem, [0.2, 0.1, 0.05], 1.0))


@pytest.fixture(scope="session")
def with_charges() -> xr.DataTree:
    """Charges of translation, scale and rescale, and two laws: one exact, one that misses by a hundredth."""
    problem = small_problem("relu", norm="batch")
    found = nm_ode.symmetries_of(problem)
    optimizer = nm_ode.SGD(lr=0.05, momentum=0.9, weight_decay=1e-3)
    run = nm_ode.train(
        problem,
        optimizer,
        30,
        batch_size=20,
        save_every=10,
        schedule=Drop((15,), 0.5),
        observe=[nm_ode.Charges(found)],
    )
    laws = {
        "exact": predicted(run, "exact", "exact discrete law", 1e-14),
        "exact_epsilon": predicted(
            run, "exact", "exact discrete law, with what ε adds", 0.0, with_residual=True
        ),
        "second_order": predicted(run, "second_order", "second-order continuous law", 1e-2),
    }
    return study_tree(run, predictions=laws, symmetries=found)
