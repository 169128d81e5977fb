"""The command nm-ode: its commands, put together."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from nm_ode.cli.bridge import bridge
from nm_ode.cli.cases import cases
from nm_ode.cli.console import all_printed, complain
from nm_ode.cli.doctor import doctor
from nm_ode.cli.report import report
from nm_ode.cli.run import run
from nm_ode.cli.stopping import DONE, FAILED, MISTAKE, stop_sentence
from nm_ode.cli.symmetries import symmetries

COMMANDS = (run, report, symmetries, cases, doctor)
"""In the order of the help text. A new command is a file with a function, and an entry here."""


class Commands(TyperGroup):
    """Ends a command that is interrupted, or that lets an error of nm_ode through, with a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:  # click's context, which newer versions of typer have as their own
        try:
            result = super().invoke(ctx)
        except KeyboardInterrupt as error:
            sentence, code = stop_sentence(error, ctx.invoked_subcommand)
            complain(sentence)
            raise typer.Exit(code) from None
        except typer.Exit as ended:
            if ended.exit_code == DONE and not all_printed():
                raise typer.Exit(FAILED) from None
            raise
        except Exception as error:
            from nm_ode.errors import NmOdeError  # not before: the help text needs no numerical library

            if not isinstance(error, NmOdeError):
                raise
            complain(str(error))
            raise typer.Exit(MISTAKE) from None
        if not all_printed():
            raise typer.Exit(FAILED)
        return result


app = typer.Typer(
    name="nm-ode",
    cls=Commands,
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
        "Exit codes: 0 done, 1 a case failed, 2 a mistake in what was asked, 130 interrupted with Ctrl-C (143 with "
        "SIGTERM): what was complete is kept."
    ),
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(bridge, name="bridge")
