"""Members beside runs of `train`, one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import nm_ode
from nm_ode import Members, Optimizer, Problem

RTOL = 1e-10
ROUNDING = 1e-14
"""Of what is zero but for rounding, in problems whose numbers are of the size of 1."""


class Travelled(nm_ode.Observer):
    """Remembers what it saw of earlier steps."""

    variables: ClassVar = {"travelled": nm_ode.Variable((), "length of the path")}

    def __init__(self) -> None:
        self.length = torch.zeros((), dtype=torch.float64)

    def observe(self, view: nm_ode.View) -> dict[str, Tensor]:
        return {"travelled": self.length.clone()}

    def follow_update(self, view: nm_ode.View) -> None:
        self.length = self.length + view.update.norm()


def small_problem(chunk_size: int | None = None) -> Problem:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    data = (torch.randn(23, 4), torch.randint(3, (23,)))
    return Problem(model, nn.functional.cross_entropy, data, chunk_size=chunk_size)


def alone(problem: Problem, optimizer: Optimizer, steps: int, **arguments: Any) -> xr.Dataset:
    """`train`, whether or not it diverges."""
    try:
        return nm_ode.train(problem, optimizer, steps, **arguments)
    except nm_ode.TrainingDiverged as diverged:
        return diverged.run


def each_alone(
    problem: Problem, optimizer: Optimizer, steps: int, values: Mapping[str, Sequence[Any]], **common: Any
) -> list[xr.Dataset]:
    """A run of `train` for each member."""
    runs = []
    for one in zip(*values.values(), strict=True):
        own = dict(zip(values, one, strict=True))
        arguments = {
            **common,
            **{name: own.pop(name) for name in ("seed", "theta0", "state0") if name in own},
        }
        changed: Any = replace(optimizer, **own)  # type: ignore[type-var]
        runs.append(alone(problem, changed, steps, **arguments))
    return runs


def assert_same_run(found: xr.Dataset, expected: xr.Dataset, rtol: float = RTOL) -> None:
    """Equal to rounding, and in all else exactly."""
    assert set(found.variables) == set(expected.variables)
    assert set(found.coords) == set(expected.coords)
    assert found.attrs == expected.attrs
    assert dict(found.sizes) == dict(expected.sizes)
    for name, one in expected.variables.items():
        other = found.variables[name]
        assert (other.dims, other.dtype, other.attrs) == (one.dims, one.dtype, one.attrs), name
        if one.dtype.kind == "f":
            np.testing.assert_allclose(other.values, one.values, rtol=rtol, atol=ROUNDING, err_msg=str(name))
        else:
            np.testing.assert_array_equal(other.values, one.values, err_msg=str(name))


def assert_as_alone(
    problem: Problem,
    optimizer: Optimizer,
    steps: int,
    values: Mapping[str, Sequence[Any]],
    rtol: float = RTOL,
    **common: Any,
) -> xr.Dataset:
    """Members at once are what `train` gives of each."""
    found = nm_ode.train(problem, optimizer, steps, members=Members(**values), **common)
    for i, expected in enumerate(each_alone(problem, optimizer, steps, values, **common)):
        assert_same_run(nm_ode.member_run(found, i), expected, rtol)
    return found
