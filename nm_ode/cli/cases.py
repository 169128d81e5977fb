"""nm-ode cases."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from nm_ode.cli.console import out


def cases() -> None:
    """List the cases that come with nm_ode, and those in ./cases."""
    from nm_ode.studies import CaseError, load_case, shipped_cases

    table = Table("case", "title", "compares", box=None, header_style="dim")
    table.add_column("file", overflow="fold")
    here = sorted(path.resolve() for path in Path("cases").glob("*.toml"))
    for path in dict.fromkeys([*shipped_cases(), *here]):
        try:
            case = load_case(path)
        except CaseError as error:
            table.add_row(path.stem, "[red]does not load[/red]", "", escape(str(error)))
            continue
        what = [f"{len(case.flows)} flows"] if case.flows else []
        what += ["orders"] if case.ladder is not None else []
        what += ["sharpness"] if case.stability is not None else []
        what += ["charges"] if case.symmetries is not None else []
        table.add_row(case.name, escape(case.title), ", ".join(what), escape(_short(path)))
    out.print(table)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
