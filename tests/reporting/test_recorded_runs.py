"""The report of a recorded run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

import nm_ode
from nm_ode.cli import app
from nm_ode.recorder import Recorder
from nm_ode.reporting.plots import RUN_PLOTS
from nm_ode.reporting.plots.recorded import draw_series
from nm_ode.reporting.recorded import run_tree
from nm_ode.reporting.style import panel
from tests.recorder.loops import Loop, recorded


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "mine.zarr"
    recorded(path, 60)
    return path


def test_the_command_writes_a_page_and_prints_the_laws(store: Path) -> None:
    found = CliRunner().invoke(app, ["report", str(store)])
    assert found.exit_code == 0, found.output
    page = store.with_suffix(".html").read_text()
    for title in ("The run", "By layer", "Charges and their laws of motion", "mine.zarr", "66 parameters"):
        assert title in page
    assert len(re.findall("<img", page)) >= 3
    assert "exact" in found.output
    assert "rescale" in found.output


def test_the_laws_of_the_table_are_those_of_the_run(store: Path) -> None:
    run = nm_ode.open_run(store)
    tree, said = run_tree(run)
    assert not said
    predicted = nm_ode.predict_charges(run, "exact")
    np.testing.assert_array_equal(tree["laws/exact"]["charge"], predicted["charge"])
    expected = nm_ode.compare(run, predicted)["symmetry_relative_error"]
    np.testing.assert_array_equal(tree["comparison/exact"]["symmetry_relative_error"], expected)


def test_a_run_that_was_cut_off_is_shown_and_said(store: Path, tmp_path: Path) -> None:
    path, loop = tmp_path / "cut.zarr", Loop()

    def broken() -> None:
        with loop.recorder(path) as recorder:
            for _ in range(9):
                loop.step(recorder)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    found = CliRunner().invoke(app, ["report", str(path)])
    assert found.exit_code == 0
    assert "ZeroDivisionError" in found.output
    assert "ZeroDivisionError" in path.with_suffix(".html").read_text()


@pytest.mark.parametrize("steps", [0, 1])
def test_runs_of_hardly_a_step(tmp_path: Path, steps: int) -> None:
    recorded(tmp_path / "run.zarr", steps)
    found = CliRunner().invoke(app, ["report", str(tmp_path / "run.zarr")])
    assert found.exit_code == 0, found.output


def test_a_run_without_charges_and_thetas(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    with Recorder(model, optimizer, tmp_path / "run.zarr"):
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().mean().backward()
            optimizer.step()
    found = CliRunner().invoke(app, ["report", str(tmp_path / "run.zarr")])
    assert found.exit_code == 0, found.output
    assert "RMSprop" in (tmp_path / "run.html").read_text()


def test_what_is_no_store(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["report", str(tmp_path / "none.zarr")]).exit_code == 2


def test_a_line_of_many_steps_is_their_means_and_range() -> None:
    values = np.arange(10_000.0) % 7
    series = xr.DataArray(values, dims="step", coords={"step": np.arange(10_000)})
    axes = panel("")
    draw_series(axes, series, "black")
    drawn = axes.lines[0].get_ydata()
    assert len(drawn) == 400
    np.testing.assert_allclose(drawn, values.reshape(400, 25).mean(axis=1))
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (0.0, 6.0)


def test_spectra_are_drawn() -> None:
    generator = np.random.default_rng(0)
    steps = np.arange(4) * 10
    run = xr.Dataset(
        {
            "hessian_eigenvalue": (("hessian_step", "hessian_eigenpair"), generator.random((4, 2))),
            "hessian_node": (("hessian_step", "hessian_vector", "hessian_rule"), generator.random((4, 3, 5))),
            "hessian_weight": (("hessian_step", "hessian_vector", "hessian_rule"), np.full((4, 3, 5), 0.2)),
        },
        coords={"hessian_step": steps},
    )
    run["hessian_eigenvalue"].attrs["long_name"] = "largest eigenvalues of H"
    tree = xr.DataTree.from_dict({"discrete": run})
    assert RUN_PLOTS["eigenvalues"].applies(tree)
    assert RUN_PLOTS["densities"].applies(tree)
    drawn = RUN_PLOTS["densities"].figure(tree).axes[0]
    for patch in drawn.patches:
        assert abs(patch.get_data().values.sum() - 1) < 1e-12  # all eigenvalues are in the picture
    assert not RUN_PLOTS["densities"].applies(xr.DataTree.from_dict({"discrete": xr.Dataset()}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_charges_that_rounding_alone_moves_do_not_move(tmp_path: Path, dtype: torch.dtype) -> None:
    """Without theta in the run, whose sums are all in float64, the table shows no law that misses by 100 %."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).to(dtype)
    x, y = torch.randn(8, 3, dtype=dtype), torch.randint(0, 2, (8,))
    symmetries = nm_ode.find_symmetries(model, x, loss="cross_entropy")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, tmp_path / "run.zarr", observe=[nm_ode.Charges(symmetries)]) as recorder:
        for _ in range(20):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            recorder.loss(loss.item())
            optimizer.step()
    run = nm_ode.open_run(tmp_path / "run.zarr")
    errors = nm_ode.compare(run, nm_ode.predict_charges(run, "exact"))
    still = run["kind"].values == "translation"
    assert still.any()
    assert (errors["charge_motion"].values[still] == 0).all()
    assert (errors["charge_motion"].values[~still] > 0).any()
