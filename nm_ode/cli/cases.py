"""nm-ode cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from nm_ode.cli.console import complain, out
from nm_ode.cli.stopping import heed

if TYPE_CHECKING:
    from nm_ode.studies import Case


def cases() -> None:
    """List the cases that come with nm_ode, and those in ./cases."""
    from nm_ode.studies import CaseError, load_case, shipped_cases
    from nm_ode.studies.find import absolute, cases_in

    heed()
    table = Table("case", "title", "compares", box=None, header_style="dim")
    table.add_column("file", overflow="fold")
    try:
        here = cases_in(Path("cases"))
    except CaseError as error:
        complain(str(error))
        here = []
    for path in dict.fromkeys(map(absolute, [*shipped_cases(), *here])):
        try:
            case = load_case(path)
        except CaseError as error:
            table.add_row(Text(path.stem), Text("does not load", style="red"), "", Text(str(error)))
        else:
            table.add_row(Text(case.name), Text(case.title), ", ".join(_compares(case)), Text(_short(path)))
    out.print(table)


def _compares(case: Case) -> list[str]:
    swept = case.sweep
    return [
        *([] if swept is None else [f"{swept.size} members"]),
        *([_flows(len(case.flows))] if case.flows else []),
        *(["orders"] if swept is not None and "order" in swept.reduce else []),
        *(["sharpness"] if case.stability is not None else []),
        *(["charges"] if case.symmetries is not None else []),
    ]


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _flows(n: int) -> str:
    return f"{n} flow{'' if n == 1 else 's'}"
