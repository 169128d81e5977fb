"""Charges of a run that have a law, apart from those that have none, and by the optimiser's group that moves them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.charges.driven import beyond_all_laws, info_of_charges
from nm_ode.charges.errors import LawError
from nm_ode.charges.orthogonal import not_orthogonal
from nm_ode.charges.settings import SETTINGS
from nm_ode.results import BeyondLaws, RunInfo, run_info, write_run_info

_CHARGES, _CLASS = "charge_index", "charge_class"


@dataclass(frozen=True)
class Share:
    """Charges that one law may describe together.

    Attributes:
        run: with these charges alone, and the learning rates, times and hyperparameters of their steps.
        where: shape (C,), which of all charges they are.
    """

    run: xr.Dataset
    where: NDArray[np.bool_]

    @property
    def symmetries(self) -> list[str]:
        """Whose charges they are."""
        return list(dict.fromkeys(self.run["charge_symmetry"].values.tolist()))


def shares(run: xr.Dataset, *, with_residual: bool = False) -> tuple[list[Share], dict[str, str]]:
    """The charges that laws may describe, and of every other symmetry why they do not.

    Args:
        run: with charges recorded.
        with_residual: does the law take the recorded ⟨g, ξ⟩, which then need not vanish?

    Raises:
        LawError: none does.
    """
    info = info_of_charges(run)
    names = run["charge_symmetry"].values if "charge_symmetry" in run else np.empty(0, dtype=object)
    why = {name: info.beyond_laws.of(name) for name in dict.fromkeys(names.tolist())}
    why = {name: reason for name, reason in why.items() if reason}
    found = list(_of_classes(run, info, _where(names, why, run["charge"].shape[1])))
    if not found and why:
        name, reason = next(iter(why.items()))
        raise beyond_all_laws(f"{name}: {reason}")
    if not with_residual and not info.foreign_gradient:
        kept = []
        for share in found:
            broken = not_orthogonal(share.run, run_info(share.run))
            why |= broken
            where = share.where & _where(names, broken, len(share.where))
            if where.any():
                inside = where[share.where]
                kept.append(share if inside.all() else Share(share.run.isel({_CHARGES: inside}), where))
        found = kept
        if not found and why:
            raise LawError(next(reversed(why.values())))
    return found, why


def _where(names: NDArray[np.object_], why: Mapping[str, str], count: int) -> NDArray[np.bool_]:
    if not why:
        return np.ones(count, dtype=bool)
    return np.array([name not in why for name in names.tolist()], dtype=bool)


def _of_classes(run: xr.Dataset, info: RunInfo, lawful: NDArray[np.bool_]) -> Iterator[Share]:
    info = replace(info, beyond_laws=BeyondLaws())
    if _CLASS not in run.dims:
        if lawful.all():
            yield Share(run, lawful)
        elif lawful.any():
            yield Share(write_run_info(run.isel({_CHARGES: lawful}), info), lawful)
        return
    for number in range(run.sizes[_CLASS]):
        where = lawful & (run["class_of_charge"].values == number)
        if where.any():
            yield Share(_of_class(run, info, where, number), where)


def _of_class(run: xr.Dataset, info: RunInfo, where: NDArray[np.bool_], number: int) -> xr.Dataset:
    """The run as if the class's group moved all."""
    name = str(run["class_parameter"].values[number])
    lr = run["parameter_lr"].values[:, run["parameter"].values.tolist().index(name)].astype(np.float64)
    chosen = run.isel({_CHARGES: where, _CLASS: number})
    settings = chosen["sgd_settings"].values if "sgd_settings" in chosen else np.empty((0, len(SETTINGS)))
    first = dict(zip(SETTINGS, settings[0].tolist(), strict=True)) if len(settings) else {}
    first = {**dict.fromkeys(SETTINGS, 0.0), **first}
    hyperparameters = {"lr": next((rate for rate in lr.tolist() if rate > 0), 1.0), **first}
    hyperparameters["nesterov"] = bool(first["nesterov"])
    share = 1 - first["dampening"] if first["momentum"] else 1.0
    times = np.append(0.0, np.cumsum(lr * share))
    grid = info.grid
    own = replace(grid, lr=lr, times=times)
    known = replace(
        info,
        optimizer="SGD",
        hyperparameters=hyperparameters,
        time_per_step=hyperparameters["lr"] * share,
        stateful=bool(first["momentum"]),
        grid=own,
    )
    return write_run_info(chosen, known)
