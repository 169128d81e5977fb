"""`open_run`: a recorded run as `train` gives one, read when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nm_ode.required import as_path
from nm_ode.results.identity import StoreError
from nm_ode.results.root import ROOT_FILE
from nm_ode.results.schema import annotate
from nm_ode.results.stream.journal import JOURNAL, VERSION, Ledger, read_ledger
from nm_ode.results.verified import DamageError, VerifiedStore, sha256

_STEP = "step"
_GROUP = b'{"zarr_format": 3, "node_type": "group", "attributes": {}}'


def is_recorded(path: Path) -> bool:
    """Is there what a recorder wrote?"""
    return (path / JOURNAL).is_file()


def open_run(path: Path | str) -> xr.Dataset:
    """A run that a `Recorder` wrote, as `train` gives one; each variable is read when it is used.

    Every file is verified when it is read: one that is not what was written raises a StoreError. Of a run that was cut
    off, what was written is there: `run_info(run).status` is "unfinished", and `message` says what is missing.

    Args:
        path: the recorder's `store`.

    Returns:
        A run, as `train` gives one.

    Raises:
        StoreError: nothing there, or no recorded run.

    Example:
        >>> import torch
        >>> import nm_ode
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with nm_ode.Recorder(model, optimizer, "run.zarr"):
        ...     model(torch.ones(8, 3)).square().mean().backward()
        ...     optimizer.step()
        >>> nm_ode.open_run("run.zarr").update_norm.sizes
        Frozen({'step': 1})
    """
    path = as_path(path, "path", error=StoreError)
    ledger = read_whole(path)
    return _described(_cut(stored_dataset(path, ledger)), ledger)


def read_whole(path: Path) -> Ledger:
    """What is there, without chunks that are not what was written.

    Raises:
        StoreError: no recorded run, one of another version, or one that cannot be read.
    """
    try:
        if not is_recorded(path):
            raise StoreError(_what_is_there(path))
        ledger = read_ledger(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror})") from None
    if ledger.version is None and not ledger.begun:
        raise StoreError(f"{path}: the recording was stopped before its first step was written")
    if ledger.version is None:
        raise DamageError(f"{path} is damaged: the first line of {JOURNAL} is not what was written")
    if ledger.version != VERSION:
        raise StoreError(
            f"{path} is a recorded run of version {ledger.version}, and this nm_ode reads version {VERSION}: open it "
            "with the version of nm_ode that wrote it"
        )
    _drop_torn_chunks(path, ledger)
    return ledger


def keep_until(path: Path, ledger: Ledger, steps: int) -> None:
    """Cut what is there to what was observed before a step.

    Raises:
        StoreError: there are fewer steps.
    """
    dataset = stored_dataset(path, ledger)
    there = dataset.sizes.get(_STEP, 0)
    if there < steps:
        raise StoreError(
            f"{path} has the first {there} steps alone, so it cannot be gone on with after step {steps}: start the "
            "loop from an earlier checkpoint, or record to another path"
        )
    whole, partial = {}, {}
    for name, array in ledger.arrays.items():
        kept = int((dataset[array.dim].values < steps).sum())
        whole[name] = kept // array.chunk
        rest = dataset[name].isel({array.dim: slice(whole[name] * array.chunk, kept)})
        partial[name] = np.array(rest.values, dtype=array.dtype)
    ledger.cut(whole)
    ledger.partial = partial


class RunFiles(VerifiedStore):
    """The files of a store that grows, for Zarr to read.

    Args:
        made: files that are not on the disk, or not so: metadata with the shapes of the moment, and chunks of the tail.
    """

    def __init__(self, folder: Path, digests: Mapping[str, str], made: Mapping[str, bytes]) -> None:
        super().__init__(folder, {**digests, **{key: sha256(content) for key, content in made.items()}})
        self._made = dict(made)

    def read(self, key: str) -> bytes:
        """See `VerifiedStore`."""
        made = self._made.get(key)
        return super().read(key) if made is None else made


def stored_dataset(path: Path, ledger: Ledger) -> xr.Dataset:
    """What all arrays of a dimension have."""
    sizes: dict[str, int] = {}
    for name, array in ledger.arrays.items():
        sizes[array.dim] = min(sizes.get(array.dim, ledger.rows(name)), ledger.rows(name))
    digests = {key: found for key, found in ledger.digests.items() if _is_there(key, ledger)}
    made = {ROOT_FILE: _GROUP}
    for name, array in ledger.arrays.items():
        made[f"{name}/{ROOT_FILE}"] = array.metadata(sizes[array.dim])
        if len(ledger.partial.get(name, ())):
            made |= array.files(ledger.whole[name], ledger.partial[name])
    files = RunFiles(path, digests, made)
    return xr.open_dataset(files, engine="zarr", zarr_format=3, consolidated=False)  # type: ignore[arg-type]


def _is_there(key: str, ledger: Ledger) -> bool:
    name = key.split("/")[0]
    return name not in ledger.arrays or int(key.split("/")[2]) < ledger.whole[name]


def _cut(dataset: xr.Dataset) -> xr.Dataset:
    """Without what was observed after the last step that is there."""
    steps = dataset.sizes.get(_STEP, 0)
    for dim in dataset.sizes:
        if str(dim).endswith("_step") and dim in dataset.variables:
            here = int((dataset[dim].values <= steps).sum())
            dataset = dataset.isel({dim: slice(0, here)})
    return dataset


def _drop_torn_chunks(path: Path, ledger: Ledger) -> None:
    """The last chunk of each array is looked at now: it is what a failing disk loses first."""
    last: dict[str, dict[str, str]] = {name: {} for name in ledger.arrays}
    for key, digest in ledger.digests.items():
        name = key.split("/")[0]
        if name in last and int(key.split("/")[2]) == ledger.whole[name] - 1:
            last[name][key] = digest
    for name, digests in last.items():
        store = VerifiedStore(path, digests)
        try:
            for key in digests:
                store.read(key)
        except DamageError as error:
            ledger.torn.append(str(error).removeprefix(f"{path} is damaged: "))
            ledger.whole[name] -= 1
            ledger.partial.pop(name, None)


def _described(dataset: xr.Dataset, ledger: Ledger) -> xr.Dataset:
    facts = ledger.facts
    for name in ("step", "time", "lr"):
        if name not in dataset.variables:  # stopped before the first rows
            dataset[name] = ("step", np.empty(0, int if name == "step" else float))
    steps = dataset.sizes.get(_STEP, 0)
    end = float(dataset["time"][-1]) + float(dataset["lr"][-1]) * facts["share"] if steps else 0.0
    attributes: dict[str, Any] = {**facts["attributes"], "end_time": end}
    if not facts.get("finished") or ledger.torn or steps < facts["steps"]:
        attributes |= {"status": "unfinished", "message": _what_is_missing(steps, ledger)}
    if not facts.get("finished") and "final_state" in dataset.variables:
        dataset = dataset.drop_vars(
            "final_state"
        )  # of an end that the run has gone on from, killed before that was said
    constants = {name: ((), value) for name, value in facts.get("constants", {}).items()}
    coordinates = [name for name in facts["coordinates"] if name in dataset.variables]
    made = dataset.assign(constants).set_coords(coordinates).assign_attrs(attributes)
    texts = {name: one.astype(object) for name, one in made.coords.items() if one.dtype.kind == "T"}
    return annotate(made.assign_coords(texts))  # texts as `train` has them, not NumPy's own kind


def _what_is_missing(steps: int, ledger: Ledger) -> str:
    """Why a run is "unfinished", in one sentence."""
    known = ledger.facts["steps"]
    if not ledger.facts.get("finished"):
        what = f"the recording was not closed, and has {steps} steps: its process was stopped, or is still at work"
    else:
        what = f"{steps} of {known} steps are there"
    return f"{what} ({'; '.join(ledger.torn)})" if ledger.torn else what


def _what_is_there(path: Path) -> str:
    if not path.exists():
        return f"no recorded run at {path}: a Recorder makes one"
    if (path / ROOT_FILE).is_file() and (path / "discrete").is_dir():
        return f"{path} is the store of a study: nm_ode.open_store(…)['discrete'].to_dataset() is its run"
    return f"{path} is no recorded run: it has no {JOURNAL}"
