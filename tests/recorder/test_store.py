"""A recorded run in a store is the run in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from torch.nn import functional as F

import nm_ode
from nm_ode.results.stream import arrays
from tests.recorder.loops import Loop, assert_same, model_and_data, recorded


@pytest.fixture(params=[1024, 16, 1], ids=lambda rows: f"chunks of {rows}")
def chunk_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(arrays, "CHUNK_ROWS", request.param)
    rows: int = request.param
    return rows


@pytest.mark.parametrize("steps", [0, 1, 48, 53])
def test_equals_the_run_in_memory(tmp_path: Path, chunk_rows: int, steps: int) -> None:
    kept = recorded(None, steps)
    stored = recorded(tmp_path / "run.zarr", steps)
    assert_same(kept, stored)
    assert kept.attrs == stored.attrs
    assert nm_ode.run_info(stored).status == "success"


@pytest.mark.parametrize("steps", [0, 53])
def test_xarray_opens_a_closed_store_by_itself(tmp_path: Path, chunk_rows: int, steps: int) -> None:
    stored = recorded(tmp_path / "run.zarr", steps)
    alone = xr.open_dataset(tmp_path / "run.zarr", engine="zarr")
    assert_same(stored, alone)
    assert {key: alone.attrs[key] for key in stored.attrs} == stored.attrs


def test_serves_laws_comparisons_and_flows(tmp_path: Path) -> None:
    model, x, y = model_and_data()
    problem = nm_ode.Problem(model, F.cross_entropy, (x, y))
    run = recorded(tmp_path / "run.zarr", 40)
    predicted = nm_ode.predict_charges(run, "exact")
    assert float(np.abs(predicted["charge"] - run["charge"]).max()) < 1e-12
    assert nm_ode.compare(run, predicted).sizes["step"] == 40
    flow = nm_ode.modified_flow(problem, nm_ode.SGD(lr=0.05, momentum=0.9), 1)
    comparison = nm_ode.compare(run, nm_ode.solve(flow, run, check=False))
    in_memory = nm_ode.compare(recorded(None, 40), nm_ode.solve(flow, recorded(None, 40), check=False))
    np.testing.assert_array_equal(comparison["error"], in_memory["error"])


def test_thetas_are_read_when_they_are_used(tmp_path: Path) -> None:
    recorded(tmp_path / "run.zarr", 40)
    run = nm_ode.open_run(tmp_path / "run.zarr")
    (tmp_path / "run.zarr" / "tail.bin").unlink()
    assert run["theta"].shape == (7, 66)  # what is open stays so
    with pytest.raises(nm_ode.StoreError):
        nm_ode.open_run(tmp_path / "none.zarr")


def test_large_rows_are_cut_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "PIECE_BYTES", 100)
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 1000)
    stored = recorded(tmp_path / "run.zarr", 30)
    assert_same(recorded(None, 30), stored)
    assert len(list((tmp_path / "run.zarr/theta/c/0").iterdir())) > 3
    assert_same(stored, xr.open_dataset(tmp_path / "run.zarr", engine="zarr"))


def test_nothing_is_written_over(tmp_path: Path) -> None:
    recorded(tmp_path / "run.zarr", 5)
    with pytest.raises(nm_ode.StoreError, match="already"):
        recorded(tmp_path / "run.zarr", 5)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(nm_ode.StoreError, match="no recorded run"):
        recorded(tmp_path / "other", 5)
    assert (tmp_path / "other" / "mine.txt").read_text() == "mine"


def test_two_recorders_on_one_store_are_refused(tmp_path: Path) -> None:
    first, second = Loop(), Loop()
    with first.recorder(tmp_path / "run.zarr") as recorder:
        first.step(recorder)
        with (
            pytest.raises(nm_ode.StoreError, match="another recorder"),
            second.recorder(tmp_path / "run.zarr"),
        ):
            pass
        first.step(recorder)
    assert nm_ode.open_run(tmp_path / "run.zarr").sizes["step"] == 2


def test_size_does_not_grow_with_the_model_but_for_thetas(tmp_path: Path) -> None:
    import torch
    from torch import nn

    from nm_ode.recorder import Recorder

    sizes = []
    for width in (4, 400):
        model, path = nn.Sequential(nn.Linear(5, width), nn.Linear(width, 3)), tmp_path / f"{width}.zarr"
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with Recorder(model, optimizer, path):
            for k in range(20):
                optimizer.zero_grad()
                model(torch.full((2, 5), 1.0 + k)).square().mean().backward()
                optimizer.step()
        sizes.append(sum(file.stat().st_size for file in path.rglob("*") if file.is_file()))
    assert sizes[1] < 1.1 * sizes[0]
