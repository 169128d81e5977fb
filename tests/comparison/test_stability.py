"""lr · λ_max against its limits."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from nm_ode.comparison import stability
from nm_ode.results import ComparisonInfo, write


def tree(x, limit: float | None = 2.0) -> xr.DataTree:
    steps = np.arange(len(x)) * 10
    limits = {"series_limit": 1.0} | ({} if limit is None else {"stability_limit": limit})
    curvature = xr.Dataset(
        {"normalised_sharpness": ("curvature_step", np.asarray(x, float)), **limits},
        coords={"curvature_step": steps, "curvature_time": ("curvature_step", 0.1 * steps)},
    )

    def comparison(title: str, errors: list[float]) -> xr.Dataset:
        made = xr.Dataset(
            {"relative_error": ("saved_step", errors)},
            coords={"saved_step": [0, 10, 20, 30], "saved_time": ("saved_step", [0.0, 1.0, 2.0, 3.0])},
        )
        return write(made, ComparisonInfo(title=title))

    return xr.DataTree.from_dict(
        {
            "/discrete/curvature": curvature,
            "/comparison/modified": comparison("modified flow", [np.nan, 0.001, 0.002, 0.3]),
            "/comparison/gradient": comparison("gradient flow", [np.nan, 0.01, 0.02, 0.5]),
        }
    )


def test_below_both_limits() -> None:
    seen = stability(tree([0.1, 0.234, 0.2]))
    assert (seen.series_from, seen.unstable_from, seen.unstable_time) == (None, None, None)
    assert (seen.largest, seen.series_limit, seen.stability_limit, seen.points) == (0.234, 1.0, 2.0, 3)


def test_above_the_series_limit() -> None:
    seen = stability(tree([0.5, 1.2, 1.5, 0.9]))
    assert (seen.series_from, seen.unstable_from) == (10, None)
    assert seen.errors == ()


def test_past_the_limit_of_stability() -> None:
    seen = stability(tree([0.5, 1.2, 2.1, 1.9]))
    assert (seen.series_from, seen.unstable_from) == (10, 20)
    assert seen.unstable_time == pytest.approx(2.0)
    assert [one[:3] for one in seen.errors] == [("gradient flow", 0.02, 0.5), ("modified flow", 0.002, 0.3)]
    assert seen.jump is None  # the learning rates of the steps are not there


def test_momentum_has_another_limit() -> None:
    assert stability(tree([0.5, 3.5], limit=3.8)).unstable_from is None
    assert stability(tree([0.5, 3.9], limit=3.8)).unstable_from == 10


def test_an_optimizer_whose_limit_is_not_known_is_never_called_unstable() -> None:
    seen = stability(tree([0.5, 100.0], limit=None))
    assert (seen.series_from, seen.unstable_from, seen.stability_limit) == (10, None, None)


def test_without_a_measurement_there_is_nothing_to_say() -> None:
    assert stability(xr.DataTree.from_dict({"/discrete": xr.Dataset()})) is None
    assert stability(tree([])) is None
