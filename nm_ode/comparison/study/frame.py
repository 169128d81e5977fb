"""A study's numbers for other programs: a pandas frame, a CSV file, a NetCDF file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from nm_ode.comparison.study.numbers import AT_END, axes_of, study_numbers
from nm_ode.comparison.study.orders import study_orders
from nm_ode.required import as_path
from nm_ode.results.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

_OF_MEMBER = (
    "state",
    "reason",
    "parameters",
    "steps",
    "end_time",
    "wall_seconds",
    "final_loss",
    "last_batch_loss",
    "final_test_loss",
    "final_test_accuracy",
    "largest_normalised_sharpness",
    "foreseen_step",
    "seen_step",
)


def study_frame(tree: xr.DataTree) -> pd.DataFrame:
    """One row a member, in the order of the grid.

    Args:
        tree: of `nm_ode.open_study`.

    Returns:
        Index: the member's name. Columns: what varies (`lr`, `momentum`, …), `state` ("whole", "diverged", "stopped",
        "failed", "missing") with its `reason`, `parameters`, `steps`, `end_time`, `wall_seconds`, `final_loss` (or
        `last_batch_loss`), `final_test_loss`, `final_test_accuracy`, `largest_normalised_sharpness`,
        `foreseen_step` and `seen_step` of the jump past the stability limit,
        and of each flow, its name behind a dot, `error.gradient`, `relative_error.gradient`, …. What was not measured
        is NaN; what no member has is no column.

    Raises:
        ResultError: the tree is no study's.

    Example:
        After `nm-ode run sweep_lr_momentum`:

        >>> import nm_ode
        >>> frame = nm_ode.study_frame(nm_ode.open_study("results/sweep_lr_momentum"))
        >>> frame.index.name, list(frame.columns[:2])
        ('member', ['lr', 'momentum'])
    """
    import pandas as pd

    numbers = study_numbers(tree)
    axes = axes_of(numbers)
    shape = numbers["state"].shape
    columns: dict[str, object] = {
        name: np.indices(shape)[i].reshape(-1) for i, name in enumerate(axes) if name not in numbers.coords
    }
    others = sorted(str(name) for name in set(numbers.coords) - set(axes))
    for name in [*(name for name in axes if name in numbers.coords), *others]:
        one = numbers[name].reset_coords(drop=True)
        if one.dims and set(one.dims) <= set(axes):
            full = one.broadcast_like(numbers["state"].reset_coords(drop=True))
            columns[name] = full.transpose(*axes).values.reshape(-1)
    for name in _OF_MEMBER:
        if name in numbers:
            columns[name] = numbers[name].transpose(*axes).values.reshape(-1)
    for flow in numbers["flow"].values.tolist() if "flow" in numbers.dims else ():
        for name in AT_END:
            if name in numbers:
                columns[f"{name}.{flow}"] = numbers[name].sel(flow=flow).transpose(*axes).values.reshape(-1)
    index = pd.Index(numbers["member"].values.reshape(-1), name="member") if "member" in numbers else None
    return pd.DataFrame(columns, index=index)


def write_csv(tree: xr.DataTree, path: Path) -> Path:
    """The frame as a CSV file: numbers to all their digits, what is not known left empty.

    Raises:
        ResultError: the tree is no study's.
        OSError: the file cannot be written.
    """
    path = as_path(path, "path")
    text = study_frame(tree).to_csv(lineterminator="\n")
    write_atomically(path, text.encode("utf-8", "backslashreplace"))
    return path


def write_netcdf(tree: xr.DataTree, path: Path) -> Path:
    """The numbers of all members, along the study's axes and `flow`, with the orders over lr, as a NetCDF file.

    It is of the classic format (64-bit offsets), which every NetCDF library reads. Whole runs are in the store.

    Raises:
        ResultError: the tree is no study's.
        OSError: the file cannot be written.
    """
    path = as_path(path, "path")
    numbers = study_numbers(tree)
    orders = study_orders(numbers).drop_vars("used", errors="ignore")
    both = numbers.assign({str(name): one.variable for name, one in orders.data_vars.items()})
    content = io.BytesIO()
    _classic(both).to_netcdf(content, engine="scipy", format="NETCDF3_64BIT")
    write_atomically(path, content.getvalue())
    return path


def _classic(numbers: xr.Dataset) -> xr.Dataset:
    """With types that the classic format has: texts of at least one character, numbers of 64 bits."""
    for name, one in numbers.variables.items():
        if one.dtype.kind in "OU":
            texts = [str(text) or " " for text in one.values.reshape(-1).tolist()]
            numbers[name] = one.copy(data=np.array(texts, dtype=str).reshape(one.shape))
        elif one.dtype.kind in "iu":
            numbers[name] = one.copy(data=one.values.astype(np.float64))
    return numbers
