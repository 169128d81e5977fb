"""The command nm-ode: its commands, put together."""

from __future__ import annotations

import typer

from nm_ode.cli.bridge import bridge
from nm_ode.cli.cases import cases
from nm_ode.cli.console import MISTAKE, complain
from nm_ode.cli.doctor import doctor
from nm_ode.cli.report import report
from nm_ode.cli.run import run
from nm_ode.cli.symmetries import symmetries

COMMANDS = (run, report, symmetries, cases, doctor)
"""In the order of the help text. A new command is a file with a function, and an entry here."""

app = typer.Typer(
    name="nm-ode",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help=(
        "The differential equations that SGD follows, solved beside SGD itself.\n\n"
        "A case is a TOML file: model, data, optimiser, and the flows to compare the run with. Start with\n\n"
        "  [bold]nm-ode cases[/bold]                   what there is to run\n\n"
        "  [bold]nm-ode run digits_mlp[/bold]          train, solve, compare, report\n\n"
        "  [bold]nm-ode symmetries digits_vit[/bold]   what is conserved, and how well it verifies\n\n"
        "  [bold]nm-ode doctor[/bold]                  what works on this machine\n\n"
        "  [bold]nm-ode bridge install[/bold]          DifferentialEquations.jl, as one more engine\n\n"
        "Exit codes: 0 done, 1 a case failed, 2 a mistake in what was asked."
    ),
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(bridge, name="bridge")


def main() -> None:
    """Entry point of the command; an error of nm_ode that a command let through ends it with its sentence."""
    try:
        app()
    except Exception as error:
        from nm_ode.errors import NmOdeError  # not before: the help text needs no numerical library

        if not isinstance(error, NmOdeError):
            raise
        complain(str(error))
        raise SystemExit(MISTAKE) from None
