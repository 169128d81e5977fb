"""lr · λ_max against its limits, in words."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from nm_ode.comparison import stability


def tree(x, limit: float = 2.0) -> xr.DataTree:
    steps = np.arange(len(x)) * 10
    curvature = xr.Dataset(
        {"normalised_sharpness": ("curvature_step", np.asarray(x, float))},
        coords={"curvature_step": steps, "curvature_time": ("curvature_step", 0.1 * steps)},
        attrs={"series_limit": 1.0, "stability_limit": limit},
    )
    comparison = xr.Dataset(
        {"relative_error": ("step", [np.nan, 0.01, 0.02, 0.5])},
        coords={"step": [0, 10, 20, 30], "time": ("step", [0.0, 1.0, 2.0, 3.0])},
        attrs={"title": "gradient flow"},
    )
    return xr.DataTree.from_dict({"/discrete/curvature": curvature, "/comparison/gradient": comparison})


def test_below_both_limits() -> None:
    seen = stability(tree([0.1, 0.234, 0.2]))
    assert (seen.series_from, seen.unstable_from) == (None, None)
    assert seen.words == (
        "lr · λ_max stays below 0.24: the series of a modified flow converges below 1, and the run is stable below 2."
    )


def test_above_the_series_limit() -> None:
    seen = stability(tree([0.5, 1.2, 1.5, 0.9]))
    assert (seen.series_from, seen.unstable_from) == (10, None)
    assert "lr · λ_max reaches 1.5: from step 10 on it is above 1" in seen.words
    assert "The limit of stability, 2, is not passed." in seen.words


def test_past_the_limit_of_stability() -> None:
    seen = stability(tree([0.5, 1.2, 2.1, 1.9]))
    assert (seen.series_from, seen.unstable_from) == (10, 20)
    assert seen.unstable_time == pytest.approx(2.0)
    assert seen.words.startswith(
        "From step 20 on lr · λ_max passes the limit of stability, 2 (it reaches 2.1)."
    )
    assert "past this step none is expected to follow the run, of whatever order" in seen.words
    assert seen.words.endswith("gradient flow: error over motion 2.0e-02 there, 5.0e-01 at the end")


def test_momentum_has_another_limit() -> None:
    assert stability(tree([0.5, 3.5], limit=3.8)).unstable_from is None
    assert stability(tree([0.5, 3.9], limit=3.8)).unstable_from == 10


def test_without_a_measurement_there_is_nothing_to_say() -> None:
    assert stability(xr.DataTree.from_dict({"/discrete": xr.Dataset()})) is None
