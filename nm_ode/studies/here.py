"""What a case names of this machine: its data, and its device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nm_ode.data import DataSet
from nm_ode.errors import NmOdeError
from nm_ode.studies.entries import CodeTable
from nm_ode.studies.errors import CaseError, NotHereError
from nm_ode.studies.options import takes
from nm_ode.studies.own_code import OwnCode
from nm_ode.studies.progress import Progress
from nm_ode.studies.schema import Case
from nm_ode.studies.sentences import in_brief


def read_data(case: Case, path: Path, code: OwnCode, progress: Progress | None = None) -> Any:
    """A `DataSet` where the data are a pair of tensors or arrays; else what the user's code gives.

    Args:
        progress: told of what takes its time.

    Raises:
        NotHereError: a folder of data is not there, or not whole.
        CaseError: anything else that is wrong with the data.
    """
    if not isinstance(case.data, CodeTable):
        more = (
            _told(case.data.name, progress) if takes(case.data.registry[case.data.name], "progress") else {}
        )
        try:
            return case.data.make(folder=path.parent, **more)
        except (NmOdeError, ValueError) as error:
            kind = CaseError if _folder(case, path) is None else NotHereError
            raise kind(f"{path}: data: {error}") from None
    data = code.call("data", case.data, seed=case.seed)
    if isinstance(data, tuple | list) and len(data) == 2:
        pair = [torch.as_tensor(part) if hasattr(part, "__array__") else part for part in data]
        if all(isinstance(part, torch.Tensor) and part.ndim for part in pair) and len(pair[0]):
            return DataSet(pair[0], pair[1])
    return data


def _told(name: str, progress: Progress | None) -> dict[str, Any]:
    """For a data set that tells how many of how many samples it has read."""
    if progress is None:
        return {}
    bars: dict[int, Any] = {}

    def told(done: int, total: int) -> None:
        if total not in bars:
            bars[total] = progress(f"reading {name}", total)
        bars[total](done)

    return {"progress": told}


def _folder(case: Case, path: Path) -> Path | None:
    """Where the case's data lie, if they lie in a folder."""
    folder = None if isinstance(case.data, CodeTable) else case.data.options.get("folder")
    return path.parent / folder if isinstance(folder, Path) else None


def device_of(case: Case, path: Path, code: OwnCode) -> torch.device:
    """The device that a case names.

    Raises:
        NotHereError: it is not here; the sentence is followed by another if the data are neither.
        CaseError: it is no device.
    """
    try:
        return _device(case, path)
    except NotHereError as error:
        folder = _folder(case, path)
        if folder is None or folder.exists():
            raise
        try:
            read_data(case, path, code)
        except CaseError as other:
            raise NotHereError(f"{error}\n{other}") from None
        raise


def _device(case: Case, path: Path) -> torch.device:
    given = f"{path}: device: {in_brief(case.device)} was given"
    try:
        device = torch.device(case.device)
    except RuntimeError:
        raise CaseError(f"{given}; it must be 'cpu' or 'cuda'") from None
    if device.type not in ("cpu", "cuda"):
        raise CaseError(f"{given}; it must be 'cpu' or 'cuda'")
    if device.type == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise NotHereError(f"{given}, and torch sees no GPU here; use 'cpu'")
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise NotHereError(f"{given}; the GPUs here are cuda:0 … cuda:{count - 1}")
    return device
