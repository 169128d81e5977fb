"""The numbers for other programs: they are the same in each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import nm_ode
from nm_ode.comparison.study import study_numbers, write_csv, write_netcdf


def test_one_row_a_member_in_the_order_of_the_grid(plane) -> None:
    frame = nm_ode.study_frame(plane)
    assert frame.index[1] == "lr=0.4,momentum=0.5"
    assert frame["lr"].tolist() == np.repeat([0.4, 0.2, 0.1, 0.05], 3).tolist()
    assert frame.loc["lr=0.1,momentum=0.5", "reason"] == "<out of memory>"
    whole = frame[frame.state == "whole"]
    law = 0.3 * (1 + whole.momentum) ** 2 * whole.lr**2
    np.testing.assert_allclose(whole["error.modified_2_hessian"], law, rtol=1e-12)
    assert frame[frame.state == "missing"]["final_loss"].isna().all()


def test_a_csv_file_has_all_digits(plane, tmp_path: Path) -> None:
    read = pd.read_csv(write_csv(plane, tmp_path / "study.csv"), index_col="member", keep_default_na=True)
    frame = nm_ode.study_frame(plane)
    pd.testing.assert_frame_equal(read.fillna({"reason": ""}), frame, check_dtype=False, rtol=0, atol=0)


@pytest.mark.parametrize("fixture", ["plane", "seeds", "space"])
def test_a_netcdf_file_has_the_axes(request, fixture: str, tmp_path: Path) -> None:
    tree = request.getfixturevalue(fixture)
    numbers = study_numbers(tree)
    with xr.open_dataset(write_netcdf(tree, tmp_path / "study.nc")) as read:
        assert read["error"].dims == numbers["error"].dims
        np.testing.assert_array_equal(read["error"], numbers["error"])
        assert read["member"].values.tolist() == numbers["member"].values.tolist()
        assert [str(text).strip() for text in read["reason"].values.flat] == list(
            numbers["reason"].values.flat
        )
        assert ("observed_order" in read) == ("lr" in read.dims)
        assert read["final_loss"].attrs["long_name"]


def test_a_file_is_there_as_a_whole_or_not(plane, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="folder"):
        write_csv(plane, tmp_path / "no folder" / "study.csv")
    assert list(tmp_path.iterdir()) == []
