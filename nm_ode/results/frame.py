"""What a dataset has along its steps, as a tidy pandas frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.results.codec import ResultError

if TYPE_CHECKING:
    import pandas as pd

_SHORT = {"charge": "charge_index"}
_LABELS = {"charge_index": ("charge_symmetry", "channel")}
"""Coordinates that tell the places of a dimension apart which has no labels of its own."""
_SAYS = ("kind",)
"""Coordinates that say more of a place: its first columns."""
_PLACE = "number of the place"


def frame(data: xr.Dataset | xr.DataTree, per: str | None = None) -> pd.DataFrame:
    """A pandas frame of a run, a solution, a comparison or predicted charges: one row a step.

    What was recorded at other steps (saved steps, `Curvature`, `Statistics`, …) is in the same rows: those are all
    steps at which anything was, and what was not recorded at one is missing there. `reset_index()` turns the index into
    columns.

    Args:
        data: a dataset, or the group of a tree that has one (`tree["discrete"]` of `open_store`).
        per: a dimension beside the step, for one row a step and each of its places: "layer", "charge", "symmetry",
            "hessian_eigenpair", "member", …; None for what is one number a step.

    Returns:
        Index: `step`, or `time` of a solution, and with `per` the place: `layer`; `charge_symmetry` and `channel`; ….
        Columns: `time`, and the variables that have these dimensions and no other.

    Raises:
        ArgumentError: neither a dataset nor a group of a tree, or `per` is not among its dimensions.
        ResultError: a study of many members, for which there is `study_frame`, or a tree whose groups have the numbers.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes(samples=20))
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=3)
        >>> nm_ode.frame(run)[["time", "lr"]].round(2).to_dict("index")[2]
        {'time': 0.2, 'lr': 0.1}
        >>> list(nm_ode.frame(run, per="layer").index)
        [(0, 'linear1'), (1, 'linear1'), (2, 'linear1')]
    """
    import pandas as pd

    dataset = _dataset(data)
    dim = None if per is None else _dimension(per, dataset)
    steps = [str(name) for name in dataset.dims if _is_step(str(name))]
    parts = [part for step in steps if (part := _part(dataset, step, dim)) is not None]
    fixed = None if dim is None else _part(dataset, None, dim)
    if not parts:
        return pd.DataFrame() if fixed is None or dim is None else _with_places(fixed, dataset, dim)
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.combine_first(part)
    for name in whole.columns:  # True and False, and missing at the steps that have neither
        if whole[name].dtype == object and dataset[str(name)].dtype == bool:
            whole[name] = whole[name].astype("boolean")
    if fixed is not None:
        whole = whole.join(fixed, on=_PLACE)
    ordered = ["time", *(name for name in _SAYS), *(str(name) for name in dataset.variables)]
    whole = whole[[name for name in dict.fromkeys(ordered) if name in whole.columns]]
    return whole if dim is None else _with_places(whole, dataset, dim)


def _dataset(data: Any) -> xr.Dataset:
    """The dataset; of a group with the curvature that is a group of its own below it.

    Raises:
        ArgumentError, ResultError: as `frame`.
    """
    if isinstance(data, xr.Dataset):
        return data
    if not isinstance(data, xr.DataTree):
        raise ArgumentError(
            f"data must be a run, a solution, a comparison or predicted charges; {said(data)} was given"
        )
    dataset = data.to_dataset()
    if {"whole", "status"} <= set(dataset.data_vars):
        raise ResultError(
            "data is the tree of a study of many members: nm_ode.study_frame(tree) has a row for each, and "
            "nm_ode.open_store('results/<study>/study.zarr/<member>')['discrete'] is the run of one"
        )
    if not dataset.data_vars:
        groups = [node.path for node in data.subtree if node.has_data and node.path != data.path]
        raise ResultError(f"this tree has its numbers in its groups: give one of {', '.join(groups)}")
    if "curvature" in data.children:
        curvature = data.children["curvature"].to_dataset(inherit=False)
        dataset = dataset.merge(curvature, combine_attrs="override")
    return dataset


def _is_step(name: str) -> bool:
    return name in ("step", "time") or name.endswith("_step")


def _dimension(per: Any, dataset: xr.Dataset) -> str:
    """The dimension that `per` names.

    Raises:
        ArgumentError: there is none.
    """
    found = _SHORT.get(per, per) if isinstance(per, str) else per
    dims = [str(name) for name in dataset.dims if not _is_step(str(name))]
    if found in dims:
        return str(found)
    short = {long: name for name, long in _SHORT.items()}
    said_of = ", ".join(repr(short.get(name, name)) for name in dims) or "none"
    raise ArgumentError(f"per must be a dimension beside the steps: {said_of}; {said(per)} was given")


def _part(dataset: xr.Dataset, step: str | None, dim: str | None) -> pd.DataFrame | None:
    """The variables along these dimensions and no other, by step and number of the place; None where there are none."""
    import pandas as pd

    sizes = {name: dataset.sizes[name] for name in (step, dim) if name is not None}
    time = None if step in (None, "time") else f"{str(step).removesuffix('step')}time"
    labels = {step, time, *_labels(dataset, dim)}
    columns = {
        str(name): one
        for name, one in dataset.variables.items()
        if set(one.dims) == set(sizes) and name not in labels
    }
    if not columns:
        return None
    if time in dataset.variables:
        columns["time"] = dataset.variables[time]
    keys = {} if step is None else {"time" if step == "time" else "step": dataset[step].variable}
    if dim is not None:
        keys[_PLACE] = xr.Variable(dim, np.arange(sizes[dim]))
    flat = {name: _flat(one, sizes) for name, one in {**columns, **keys}.items()}
    return pd.DataFrame(flat).set_index(list(keys))


def _flat(variable: xr.Variable, sizes: dict[str, int]) -> NDArray[Any]:
    shape = [size if name in variable.dims else 1 for name, size in sizes.items()]
    present = variable.transpose(*(name for name in sizes if name in variable.dims)).values.reshape(shape)
    return np.broadcast_to(present, tuple(sizes.values())).reshape(-1)


def _labels(dataset: xr.Dataset, dim: str | None) -> tuple[str, ...]:
    """The coordinates that tell the places of a dimension apart."""
    if dim is None:
        return ()
    labels = _LABELS.get(dim, ())
    return labels if labels and set(labels) <= set(dataset.coords) else (dim,)


def _with_places(frame: pd.DataFrame, dataset: xr.Dataset, dim: str) -> pd.DataFrame:
    """With an index that names the places, in place of one that has their numbers."""
    import pandas as pd

    numbers = frame.index.get_level_values(_PLACE)
    found: dict[str, Any] = {
        str(name): frame.index.get_level_values(name) for name in frame.index.names if name != _PLACE
    }
    found |= {name: dataset[name].values[numbers] for name in _labels(dataset, dim)}
    if len(found) == 1:
        ((name, values),) = found.items()
        return frame.set_index(pd.Index(values, name=name))
    return frame.set_index(pd.MultiIndex.from_arrays(list(found.values()), names=list(found)))
