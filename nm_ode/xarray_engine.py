"""xarray's own door to what nm_ode wrote: `xr.open_datatree(path, engine="nm_ode", chunks={})`.

xarray imports the engines of all packages whenever it has to guess one, so nothing slow is imported before this one is
used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Literal

import xarray as xr
from xarray.backends import BackendEntrypoint


class StudyEngine(BackendEntrypoint):
    """Studies of many members, verified when they are read; `align` as of `nm_ode.open_study`."""

    description = "Studies of many members that nm_ode wrote"
    url = "https://pypi.org/project/nm-ode"
    supports_groups = True
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "group", "align")

    def open_datatree(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        align: Literal["time"] | None = None,
        **unknown: Any,
    ) -> xr.DataTree:
        from nm_ode.results import open_study

        _refuse(unknown)
        tree = open_study(_place(filename_or_obj), align)
        if drop_variables is None:
            return tree
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables)
        return xr.DataTree.from_dict(
            {
                node.path: node.to_dataset(inherit=False).drop_vars(dropped, errors="ignore")
                for node in tree.subtree
            },
            name=tree.name,
        )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        align: Literal["time"] | None = None,
        **unknown: Any,
    ) -> xr.Dataset:
        """One group, "discrete" say; by default the root, which says how each member ended."""
        from nm_ode.results import StoreError

        _refuse(unknown)
        tree = self.open_datatree(filename_or_obj, drop_variables=drop_variables, align=align)
        try:
            return tree[group or "/"].to_dataset()
        except KeyError:
            there = ", ".join(node.path for node in tree.subtree)
            raise StoreError(f"{filename_or_obj} has no group {group!r}; it has {there}") from None

    def open_groups_as_dict(self, filename_or_obj: Any, **options: Any) -> dict[str, xr.Dataset]:
        tree = self.open_datatree(filename_or_obj, **options)
        return {node.path: node.to_dataset(inherit=False) for node in tree.subtree}

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        return False  # Zarr's engine opens a member; which of both is meant, the user says


def _place(given: Any) -> Any:
    return os.fspath(given) if isinstance(given, os.PathLike) else given


def _refuse(unknown: dict[str, Any]) -> None:
    """Options of xarray's that decode what other engines read say nothing here."""
    wrong = sorted(name for name in unknown if name not in _DECODERS)
    if wrong:
        raise TypeError(f"the engine nm_ode takes align, group and drop_variables, not {', '.join(wrong)}")


_DECODERS = {
    "mask_and_scale",
    "decode_times",
    "decode_timedelta",
    "concat_characters",
    "use_cftime",
    "decode_coords",
    "create_default_indexes",
}
