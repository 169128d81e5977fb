"""Studies of many members, made by hand."""

from __future__ import annotations

import pytest
import xarray as xr

from tests.reporting.study.trees import study_tree

LRS, MOMENTA = [0.4, 0.2, 0.1, 0.05], [0.0, 0.5, 0.9]
STATES = {
    (0, 2): ("diverged", "training diverged at step 12"),
    (1, 2): ("stopped", "the solver gave up at t = 3"),
    (2, 1): ("failed", "<out of memory>"),
    (3, 0): ("missing", ""),
}


@pytest.fixture(scope="session")
def plane() -> xr.DataTree:
    """lr × momentum, all whole but four, one of each kind."""
    return study_tree({"lr": LRS, "momentum": MOMENTA}, STATES)


@pytest.fixture(scope="session")
def seeds() -> xr.DataTree:
    """One axis, of repetitions."""
    return study_tree({"seed": list(range(12))})


@pytest.fixture(scope="session")
def space() -> xr.DataTree:
    """Three axes, one of them of names."""
    return study_tree(
        {"lr": [0.2, 0.1, 0.05], "model": ["tanh", "relu"], "seed": [0, 1, 2]},
        {(0, 0, 1): ("failed", "killed")},
    )
