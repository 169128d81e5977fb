"""The same tree by xarray's own functions, chunked as it was written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import nm_ode
from nm_ode.results import StoreError
from nm_ode.results.study import StudyStore
from nm_ode.xarray_engine import StudyEngine
from tests.results.studies import record, work


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = StudyStore.at(tmp_path_factory.mktemp("engine"), "sweep_x")
    store.begin(record())
    for place in record().members[:4]:
        work(store, place)
        store.commit(place.name)
    return Path(store.place(""))


def test_xarray_opens_a_study_lazily_with_the_chunks_that_were_written(path: Path) -> None:
    ours = nm_ode.open_study(path)
    theirs = xr.open_datatree(path, engine=StudyEngine, chunks={})
    assert theirs["discrete/theta"].chunks == ((1, 1), (1, 1, 1), (5,), (3,))
    xr.testing.assert_identical(theirs.load(), ours.load())
    mean = (
        xr.open_dataset(path, engine=StudyEngine, group="discrete", chunks={})["loss"].mean("seed").compute()
    )
    np.testing.assert_array_equal(mean, ours["discrete/loss"].mean("seed"))
    assert "loss" not in xr.open_dataset(path, engine=StudyEngine, group="discrete", drop_variables="loss")
    with pytest.raises(StoreError, match="no group 'flows'"):
        xr.open_dataset(path, engine=StudyEngine, group="flows")


def test_the_engine_costs_other_programs_nothing() -> None:
    code = "import nm_ode.xarray_engine, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
