"""nm-ode bridge: DifferentialEquations.jl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from nm_ode.cli.console import bare_table, engines_told, err, out, print_dim, print_line, print_path, stop
from nm_ode.cli.stopping import FAILED

if TYPE_CHECKING:
    from bridges import Engine
    from bridges.julia.installing import PackageStatus

bridge = typer.Typer(
    no_args_is_help=True, help="DifferentialEquations.jl: what is installed, installing it, trying it."
)


@bridge.command("install")
def bridge_install(
    offline: Annotated[
        bool, typer.Option("--offline", help="Fetch nothing: from a Julia and a depot that have all already.")
    ] = False,
) -> None:
    """Install Julia, if there is none, and DifferentialEquations.jl, with juliapkg.

    About 1 GB to download and 10 to 30 minutes to compile. Nothing else here ever downloads.
    """
    from bridges import EngineError
    from bridges.julia.installing import DECLARED, WHAT_TO_EXPECT, install, installation

    print_line("from", str(DECLARED) + (", offline" if offline else f": {WHAT_TO_EXPECT}"))
    try:
        install(
            offline=offline,
            on_line=lambda line: out.print(Text(line, style="dim"), soft_wrap=True),
        )
    except EngineError as error:
        stop(str(error), FAILED)
    print_path("julia  ", Path(str(installation().julia)))
    print_path("project", Path(str(installation().project)))


@bridge.command("status")
def bridge_status() -> None:
    """What there is of Julia, its project and the packages; nothing is started."""
    from bridges import EngineError
    from bridges.julia.installing import REMEDY, installation, package_statuses

    found = installation()
    for label, path in (("julia  ", found.julia), ("project", found.project)):
        print_line(label, str(path or "none"))
    try:
        packages = [] if found.project is None else package_statuses()
    except EngineError:
        packages = []  # what cannot be read is what `lacks` says
    for package in packages:
        print_line("package", _in_words(package))
    if not found.ready:
        stop(f"{found.lacks}; {REMEDY}", FAILED)
    out.print("[green]ready[/green]")
    if any(package.another for package in packages):
        print_dim("not the set of versions that was seen running: `nm-ode bridge test` tries each method")


def _in_words(package: PackageStatus) -> str:
    if not package.version:
        return f"{package.name}: missing" + (
            f" (only {package.needed_by} need it)" if package.needed_by else ""
        )
    words = f"{package.name} {package.version}: there"
    if not package.seen:
        return words
    return f"{words}, {package.seen} was seen running" if package.another else f"{words}, seen running"


@bridge.command("test")
def bridge_test() -> None:
    """Solve known problems with each method: its error, its cost, and whether its random paths are right."""
    from bridges import EngineError, get_engine

    engine = get_engine("diffeq")
    try:
        engine.require_ready()
        with err.status("starting Julia"):
            version = engine.version
        print_dim(version)
        with engines_told(lambda line: err.print(Text(line, style="dim"))):
            wrong = [_try_methods(engine), _try_noise_methods(engine)]
    except EngineError as error_of_engine:
        stop(str(error_of_engine), FAILED)
    if any(wrong):
        stop("; ".join(filter(None, wrong)), FAILED)


def _try_methods(engine: Engine) -> str:
    """Prints a table of three problems with each method; what is wrong in words, "" if nothing is."""
    from bridges.trials import TOLERATED_ERROR, try_methods

    table = bare_table()
    for column in ("method", "problem"):
        table.add_column(column, no_wrap=True)
    for column in ("error", "right-hand sides", "µs each"):
        table.add_column(column, justify="right", no_wrap=True)
    wrong = 0
    with err.status("solving") as status:
        for tried in try_methods(engine):
            status.update(f"{tried.method} on {tried.problem}")
            wrong += not tried.right
            error = f"{tried.error:.1e}" if tried.right else f"[red]{tried.error:.1e}, {tried.status}[/red]"
            count, each = f"{tried.rhs_evaluations}", f"{tried.microseconds:.0f}"
            table.add_row(tried.method, tried.problem, error, count, each)
    out.print(table)
    return (
        f"{wrong} of the solves above are wrong by more than {TOLERATED_ERROR:g}, or gave up" if wrong else ""
    )


def _try_noise_methods(engine: Engine) -> str:
    """Prints a table of a linear diffusion with each stochastic method, or why there is none; as `_try_methods`."""
    from bridges import EngineError
    from bridges.noise_trials import COMPONENTS, PATHS, try_noise_methods

    try:
        engine.require_noise_ready()
    except EngineError as missing:
        print_dim(f"stochastic methods were not tried: {missing}")
        return ""
    table = bare_table()
    for column in ("stochastic method", "noise"):
        table.add_column(column, no_wrap=True)
    for column in ("mean", "variance", "shape"):
        table.add_column(column, justify="right", no_wrap=True)
    wrong: dict[str, str] = {}
    with err.status("solving stochastic paths") as status:
        for tried in try_noise_methods(engine):
            status.update(f"{tried.method} with {tried.noise} noise")
            numbers = [f"{tried.mean_error:.2f}", f"{tried.variance:.2f}", f"{tried.shape:+.1f}"]
            if tried.message:
                numbers = ["none", "", ""]
            if not tried.right:
                wrong.setdefault(tried.method, tried.message)
                numbers = [f"[red]{number}[/red]" for number in numbers]
            table.add_row(tried.method, tried.noise, *numbers)
    out.print(table)
    print_dim(
        f"{PATHS} paths of a linear diffusion of {COMPONENTS} components, whose law is known: error of the mean over "
        "what chance makes, variance over the true one, standard errors of the covariance's shape; right is 1, 1, 0"
    )
    if not wrong:
        return ""
    named = "; ".join(f"{method} ({why})" if why else method for method, why in wrong.items())
    return f"the paths of these stochastic methods are wrong in the installed version: {named}"
