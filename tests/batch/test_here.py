"""run_study: a case file from Python, the same results as the command's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nm_ode

CASE = """
name = "small"
loss = "mse"
flows = ["gradient"]
model = { name = "linear", inputs = 10, outputs = 1 }
data = { name = "diabetes", samples = 20 }
optimizer = { lr = 0.1 }
training = { steps = 4 }
"""


def test_a_sweep_is_run_once_and_opened(tmp_path: Path) -> None:
    case = tmp_path / "small.toml"
    case.write_text(CASE + '[sweep]\n"optimizer.lr" = [0.1, 0.05]\nconstraint = "lr * steps = 0.4"\n')
    study = nm_ode.run_study(case, tmp_path / "results")
    errors = study["comparison/gradient/error"].isel(saved_step=-1)
    assert study["comparison/gradient/error"].sizes["lr"] == 2
    assert float(nm_ode.study_frame(study)["error.gradient"].iloc[0]) > 0
    stores = sorted((tmp_path / "results/small/study.zarr").glob("lr=*"))
    before = [store.stat().st_mtime_ns for store in stores]
    again = nm_ode.run_study(str(case), str(tmp_path / "results"))
    assert [store.stat().st_mtime_ns for store in stores] == before
    np.testing.assert_array_equal(again["comparison/gradient/error"].isel(saved_step=-1), errors)
    assert not list((tmp_path / "results").rglob("*.html"))


def test_a_case_alone_is_the_tree_of_its_store(tmp_path: Path) -> None:
    case = tmp_path / "small.toml"
    case.write_text(CASE)
    tree = nm_ode.run_study(case, tmp_path / "results")
    assert tree["discrete"].sizes["step"] == 4
    assert tree.identical(nm_ode.open_store(tmp_path / "results/small/run.zarr"))


def test_what_cannot_be_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(nm_ode.NmOdeError, match="did you mean 'digits_mlp'"):
        nm_ode.run_study("digits_mpl")
    case = tmp_path / "small.toml"
    case.write_text(CASE.replace("mse", "cross_entropy") + "[sweep]\nseed = [0, 1]\n")
    with pytest.raises(nm_ode.NmOdeError, match="and 1 more"):
        nm_ode.run_study(case, tmp_path / "results")
