"""nm-ode doctor: does everything work here? Versions, devices, and each engine tried on a real equation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from nm_ode.cli.console import out


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for a program to read.")] = False,
) -> None:
    """Versions, devices, and each engine tried on a known equation; with a remedy where one does not work."""
    from nm_ode.studies.versions import versions

    found = {"devices": devices(), "engines": engines()}
    if as_json:
        report = {kind: [asdict(finding) for finding in findings] for kind, findings in found.items()}
        print(json.dumps({"versions": versions()} | report, indent=1))
        return
    out.print(", ".join(f"{name} {version}" for name, version in versions().items()), style="dim")
    table = Table(box=None, header_style="dim")
    for column in ("", "name", "works", "what", "remedy"):
        table.add_column(column)
    for kind, findings in found.items():
        for i, finding in enumerate(findings):
            works = "[green]yes[/green]" if finding.works else "[yellow]no[/yellow]"
            table.add_row(
                kind if i == 0 else "", Text(finding.name), works, Text(finding.detail), Text(finding.remedy)
            )
    out.print(table)


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
    from bridges.trials import try_engines

    return [Finding(trial.name, trial.works, trial.detail, trial.remedy) for trial in try_engines()]
