"""Is the learning rate one at which a flow can follow, along the whole path? Read off the measured sharpness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Stability:
    """lr · λ_max along a run, against the limit of the modified flow's series and that of stability.

    Attributes:
        largest: over the measured steps.
        series_from, unstable_from: first measured step above each limit; None if there is none.
        unstable_time: flow time of the latter.
        errors: title of each flow, its error over the motion where stability ends and at the end of the run.
    """

    largest: float
    series_limit: float
    stability_limit: float
    series_from: int | None
    unstable_from: int | None
    unstable_time: float | None
    points: int
    errors: tuple[tuple[str, float, float], ...] = ()

    @property
    def words(self) -> str:
        """In plain words, for a report."""
        limit, series = f"{self.stability_limit:.3g}", f"{self.series_limit:g}"
        if self.unstable_from is not None:
            return (
                f"From step {self.unstable_from} on lr · λ_max passes the limit of stability, {limit} (it reaches "
                f"{self.largest:.3g}). A step there overshoots in the sharpest direction by more than it started with, "
                "which no flow does: past this step none is expected to follow the run, of whatever order. "
                + "; ".join(
                    f"{title}: error over motion {a:.1e} there, {b:.1e} at the end"
                    for title, a, b in self.errors
                )
            ).rstrip()
        if self.series_from is not None:
            return (
                f"lr · λ_max reaches {self.largest:.3g}: from step {self.series_from} on it is above {series}, where "
                "the series of the modified flow does not converge in the sharpest directions and a higher order need "
                f"not be closer. The limit of stability, {limit}, is not passed."
            )
        return (
            f"lr · λ_max stays below {_up(self.largest)}: the series of a modified flow converges below {series}, and "
            f"the run is stable below {limit}."
        )


def stability(tree: xr.DataTree) -> Stability | None:
    """Of a finished tree; None where the sharpness was not measured."""
    if "curvature" not in tree["discrete"].children:
        return None
    curvature = tree["discrete/curvature"].dataset
    x, steps = curvature["normalised_sharpness"].values, curvature["curvature_step"].values
    times = curvature["curvature_time"].values
    if not len(x):
        return None
    series, limit = float(curvature.attrs["series_limit"]), float(curvature.attrs["stability_limit"])
    above, beyond = np.flatnonzero(x > series), np.flatnonzero(x > limit)
    return Stability(
        largest=float(x.max()),
        series_limit=series,
        stability_limit=limit,
        series_from=int(steps[above[0]]) if above.size else None,
        unstable_from=int(steps[beyond[0]]) if beyond.size else None,
        unstable_time=float(times[beyond[0]]) if beyond.size else None,
        points=len(x),
        errors=_errors(tree, float(times[beyond[0]])) if beyond.size else (),
    )


def _errors(tree: xr.DataTree, time: float) -> tuple[tuple[str, float, float], ...]:
    found = []
    for node in tree["comparison"].children.values() if "comparison" in tree.children else ():
        if "relative_error" in node.dataset and node.dataset.sizes["step"] > 1:
            errors = node.dataset["relative_error"]
            at = int(np.abs(node.dataset["time"].values - time).argmin())
            found.append((str(node.attrs["title"]), float(errors[at]), float(errors[-1])))
    return tuple(sorted(found, key=lambda one: -one[1]))


def _up(value: float) -> str:
    """Two figures, not below the value."""
    scale = 10.0 ** (np.floor(np.log10(value)) - 1) if value > 0 else 1.0
    return f"{np.ceil(value / scale) * scale:.2g}"
