"""Does everything work here? Versions, devices, and each engine tried on a real equation."""

from __future__ import annotations

from dataclasses import dataclass

from bridges.trials import try_engines


@dataclass(frozen=True)
class Finding:
    """One engine or device: whether it works, what it is, and what to do where it does not."""

    name: str
    works: bool
    detail: str
    remedy: str = ""


def devices() -> list[Finding]:
    """The CPU, and the GPU if torch sees one."""
    import torch

    found = [Finding("cpu", True, f"{torch.get_num_threads()} threads")]
    if torch.cuda.is_available():
        return [*found, Finding("cuda", True, torch.cuda.get_device_name())]
    built = torch.version.cuda
    remedy = "install a CUDA build of torch" if built is None else "check the driver with nvidia-smi"
    return [*found, Finding("cuda", False, "torch sees no GPU", remedy + ", if there is a GPU")]


def engines() -> list[Finding]:
    """Every registered engine, tried on a known equation; one that is not installed is not started."""
    return [Finding(trial.name, trial.works, trial.detail, trial.remedy) for trial in try_engines()]
