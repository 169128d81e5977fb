"""Charges and their drivers, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nm_ode.symmetries import ChargeMeter, Symmetry

CHARGES = "charge_index"
"""The dimension along which charges lie: not "charge", for xarray takes a variable of its own dimension's name for a
coordinate."""

_BEFORE = ("charge", "generator_norm", "constraint_residual")


class ChargeRecord:
    """Sums over the symmetries' slices at each step; nothing of theta's size is kept, and nothing leaves the device.

    Args:
        meter: of the symmetries.
        steps: the most steps that will be recorded.
        like: a tensor of theta's dtype and device.
        nesterov: record [w, v] too, which Nesterov's laws need.
    """

    def __init__(self, meter: ChargeMeter, steps: int, like: Tensor, *, nesterov: bool) -> None:
        self._meter, self._step = meter, 0
        names = [*_BEFORE, "charge_driver", *(["charge_cross_driver"] if nesterov else [])]
        self._values = {name: like.new_empty(steps, meter.count) for name in names}
        self._saved: list[Tensor] = []

    def before(self, theta: Tensor, gradient: Tensor) -> None:
        """The state before a step: Q, ‖ξ‖ and ⟨g, ξ⟩; shapes (P,)."""
        for name, values in zip(_BEFORE, self._meter.state(theta, gradient), strict=True):
            self._values[name][self._step] = values

    def after(self, update: Tensor, lr: float, velocity: Tensor | None) -> None:
        """What the step did: θ_{k+1} − θ_k = −lr·w, and v_{k+1}."""
        self._values["charge_driver"][self._step] = self._meter.bracket(update, update) / lr**2
        if "charge_cross_driver" in self._values:
            assert velocity is not None
            self._values["charge_cross_driver"][self._step] = self._meter.bracket(update, velocity) / -lr
        self._step += 1

    def save(self, theta: Tensor) -> None:
        """Q of a state that is kept."""
        self._saved.append(self._meter.charge(theta))

    def dataset(self) -> xr.Dataset:
        """Dimensions `step`, `saved_step`, `charge_index`; coordinates `symmetry`, `kind`, `channel` along it."""
        recorded = {name: ("step", values[: self._step]) for name, values in self._values.items()}
        saved = torch.stack(self._saved) if self._saved else next(iter(self._values.values()))[:0]
        recorded["saved_charge"] = ("saved_step", saved)
        return xr.Dataset(
            {
                name: ((dim, CHARGES), values.cpu().numpy().astype(np.float64))
                for name, (dim, values) in recorded.items()
            },
            coords=charge_coordinates(self._meter.symmetries),
        )


def charge_coordinates(symmetries: Sequence[Symmetry]) -> dict[str, tuple[str, np.ndarray]]:
    """Which symmetry, kind and channel each charge belongs to."""
    counts = [symmetry.count for symmetry in symmetries]

    def each(values: list[str]) -> np.ndarray:
        return np.repeat(
            np.array(values, dtype=object), counts
        )  # Zarr v3 has a type for strings, none for '<U'

    return {
        "symmetry": (CHARGES, each([symmetry.name for symmetry in symmetries])),
        "kind": (CHARGES, each([symmetry.kind for symmetry in symmetries])),
        "channel": (CHARGES, np.concatenate([np.arange(count) for count in counts])),
    }
