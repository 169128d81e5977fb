"""The command nm-ode."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

DONE, FAILED, MISTAKE = 0, 1, 2

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
out_console, error_console = Console(), Console(stderr=True)


@app.command()
def run(
    cases: Annotated[
        list[str], typer.Argument(metavar="CASE…", help="Case files, or names of shipped cases.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the results; each case gets a folder of its name.")
    ] = Path("results"),
    engine: Annotated[
        str | None,
        typer.Option(help="Solve with this engine, whatever the case says: auto, sundials, scipy, diffeq."),
    ] = None,
) -> None:
    """Run cases: train, solve the flows, compare, write store and report.

    A case that is done already is shown again at once; one that was cut off goes on from what was complete.
    Results of another case are never written over.

      nm-ode run cases/digits_mlp.toml
      nm-ode run digits_mlp diabetes_linear --out /tmp/results
    """
    from nm_ode.reporting import write_report
    from nm_ode.studies import CaseError, StoreError, find_case, load_case, run_case

    worst = DONE
    try:
        # Every mistake is told before anything is computed.
        loaded = [(load_case(path, engine=engine), path) for path in map(find_case, cases)]
        names = [case.name for case, _ in loaded]
        for name in names:
            if names.count(name) > 1:
                raise CaseError(f"two cases are called {name!r}: their results would go to one folder")
    except CaseError as error:
        _stop(str(error), MISTAKE)
    for case, path in loaded:
        try:
            with _bars() as progress:
                outcome = run_case(case, path, out, progress)
        except (CaseError, StoreError) as error:
            _complain(str(error))
            worst = max(worst, MISTAKE)
            continue
        except OSError as error:
            _complain(
                f"{case.name}: {error.filename or out}: {error.strerror or error}; what was complete is kept, run "
                "the same command again when there is room and access"
            )
            worst = max(worst, FAILED)
            continue
        except KeyboardInterrupt:
            _stop(
                f"{case.name}: interrupted; what was complete is kept, run the same command to go on", FAILED
            )
        report = write_report(outcome.tree, outcome.store.parent / "report.html")
        _print_tables(outcome.tree)
        if outcome.reused:
            out_console.print("Done before; nothing was computed again.", style="dim")
        for failure in outcome.failures:
            _complain(f"{case.name}: {failure}")
            worst = max(worst, FAILED)
        _print_path("store ", outcome.store)
        _print_path("report", report)
    raise typer.Exit(worst)


@app.command()
def report(store: Annotated[Path, typer.Argument(help="A run.zarr, or the folder that holds it.")]) -> None:
    """Write report.html beside a store, and print the error table."""
    from nm_ode.reporting import write_report
    from nm_ode.studies import StoreError, open_store

    path = store / "run.zarr" if store.is_dir() and store.suffix != ".zarr" else store
    try:
        tree = open_store(path)
        written = write_report(tree, path.parent / "report.html")
    except StoreError as error:
        _stop(str(error), MISTAKE)
    except OSError as error:
        _stop(f"{path.parent} cannot be written ({error.strerror})", MISTAKE)
    _print_tables(tree)
    _print_path("report", written)


@app.command()
def symmetries(
    case: Annotated[str, typer.Argument(metavar="CASE", help="A case file, or the name of a shipped case.")],
    scan: Annotated[
        bool,
        typer.Option(
            "--scan",
            help="For small models: look for conserved directions by numbers alone, and say which the graph's rules "
            "did not explain.",
        ),
    ] = False,
) -> None:
    """The symmetries of a case's model, proved from its graph and verified; nothing is trained.

    Each symmetry has the number of its charges, and the worst residual of its gradient constraint ⟨g, ξ⟩ = 0 and its
    Hessian constraint Hξ = −∂_ξ g at random parameters and batches, relative. A normalisation's ε breaks a scale
    symmetry a little: `of ε` is what it accounts for, `left` what remains.

      nm-ode symmetries digits_vit
    """
    from nm_ode.studies import CaseError, find_case, load_case
    from nm_ode.studies.build import prepare
    from nm_ode.symmetries import KINDS, SymmetryError, scan_of, symmetries_of

    try:
        path = find_case(case)
        loaded = load_case(path)
        problem = prepare(loaded, path).problem
        with error_console.status("finding and verifying"):
            found = symmetries_of(problem)
        scanned = None
        if scan:
            with error_console.status("scanning"):
                scanned = scan_of(problem, found)
    except (CaseError, SymmetryError) as error:
        _stop(str(error), MISTAKE)
    table = _symmetry_table()
    for column in ("gradient", "of ε", "left", "Hessian"):
        table.add_column(column, justify="right", no_wrap=True)
    for symmetry in found:
        check = found.checks[symmetry.name]
        epsilon = f"{check.epsilon_share:.0e}" if symmetry.epsilon else ""
        table.add_row(
            *_kind_and_name(symmetry.kind, symmetry.name),
            f"({symmetry.count})" if symmetry.within else f"{symmetry.count}",
            f"{check.gradient:.0e}",
            epsilon,
            f"{check.unexplained:.0e}",
            f"{check.hessian:.0e}",
        )
    out_console.print(f"[bold]{escape(loaded.title or loaded.name)}[/bold]")
    out_console.print(table)
    kinds = ", ".join(f"{found.n_charges(kind)} {kind}" for kind in KINDS if found.n_charges(kind))
    out_console.print(f"{found.n_charges()} charges: {kinds or 'none'}", highlight=False)
    if any(symmetry.within for symmetry in found):
        out_console.print("(in brackets: the diagonal of a matrix symmetry, counted with it)", style="dim")
    if scanned is not None:
        out_console.print(
            f"scan of {scanned.blocks} sums at {scanned.draws} random parameters: {scanned.conserved} conserved "
            f"directions, {scanned.explained} explained by the symmetries above",
            highlight=False,
        )
        for unexplained in scanned.unexplained:
            out_console.print(f"[yellow]not explained:[/yellow] {escape(str(unexplained))}", soft_wrap=True)
    for defect in found.defects:
        _complain(defect)
    raise typer.Exit(FAILED if found.defects else DONE)


@app.command()
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
            table.add_row(path.stem, "[red]does not load[/red]", "", str(error))
            continue
        what = [f"{len(case.flows)} flows"] if case.flows else []
        what += ["orders"] if case.ladder is not None else []
        what += ["sharpness"] if case.stability is not None else []
        what += ["charges"] if case.symmetries is not None else []
        table.add_row(case.name, case.title, ", ".join(what), _short(path))
    out_console.print(table)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False) -> None:
    """Versions, devices, and each engine tried on a known equation; with a remedy where one does not work."""
    from nm_ode.cli.doctor import devices, engines
    from nm_ode.studies.versions import versions

    found = {"devices": devices(), "engines": engines()}
    if as_json:
        print(
            json.dumps(
                {"versions": versions()} | {k: [asdict(f) for f in v] for k, v in found.items()}, indent=1
            )
        )
        return
    out_console.print(", ".join(f"{name} {version}" for name, version in versions().items()), style="dim")
    table = Table(box=None, header_style="dim")
    for column in ("", "name", "works", "what", "remedy"):
        table.add_column(column)
    for kind, findings in found.items():
        for i, finding in enumerate(findings):
            works = "[green]yes[/green]" if finding.works else "[yellow]no[/yellow]"
            table.add_row(kind if i == 0 else "", finding.name, works, finding.detail, finding.remedy)
    out_console.print(table)


bridge = typer.Typer(
    no_args_is_help=True, help="DifferentialEquations.jl: what is installed, installing it, trying it."
)
app.add_typer(bridge, name="bridge")


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

    out_console.print(
        f"from {DECLARED}" + (", offline" if offline else f": {WHAT_TO_EXPECT}"), style="dim", soft_wrap=True
    )
    try:
        install(
            offline=offline,
            on_line=lambda line: out_console.print(
                line, style="dim", highlight=False, markup=False, soft_wrap=True
            ),
        )
    except EngineError as error:
        _stop(str(error), FAILED)
    _print_path("julia  ", Path(str(installation().julia)))
    _print_path("project", Path(str(installation().project)))


@bridge.command("status")
def bridge_status() -> None:
    """What there is of Julia, its project and the packages; nothing is started."""
    from bridges.julia.installing import REMEDY, declared, installation

    found = installation()
    for label, path in (("julia  ", found.julia), ("project", found.project)):
        out_console.print(f"[dim]{label}[/dim] {path or 'none'}", soft_wrap=True, highlight=False)
    for package in declared():
        there = found.project is not None and package not in found.missing
        out_console.print(f"[dim]package[/dim] {package}: {'there' if there else 'missing'}", highlight=False)
    if not found.ready:
        _stop(f"{found.lacks}; {REMEDY}", FAILED)
    out_console.print("[green]ready[/green]")


@bridge.command("test")
def bridge_test() -> None:
    """Solve three known problems with each method: its error, and what a right-hand side costs."""
    from bridges import EngineError, get_engine
    from bridges.trials import try_methods

    engine = get_engine("diffeq")
    table = _bare_table()
    for column in ("method", "problem"):
        table.add_column(column, no_wrap=True)
    for column in ("error", "right-hand sides", "µs each"):
        table.add_column(column, justify="right", no_wrap=True)
    wrong = 0
    try:
        engine.require_ready()
        with error_console.status("starting Julia"):
            version = engine.version
        out_console.print(version, style="dim", highlight=False)
        with error_console.status("solving") as status:
            for tried in try_methods(engine):
                status.update(f"{tried.method} on {tried.problem}")
                wrong += not tried.right
                error = (
                    f"{tried.error:.1e}" if tried.right else f"[red]{tried.error:.1e}, {tried.status}[/red]"
                )
                count, each = f"{tried.rhs_evaluations}", f"{tried.microseconds:.0f}"
                table.add_row(tried.method, tried.problem, error, count, each)
    except EngineError as error_of_engine:
        _stop(str(error_of_engine), FAILED)
    out_console.print(table)
    if wrong:
        _stop(f"{wrong} of the solves above are wrong by more than 1e-3, or gave up", FAILED)


def main() -> None:
    """Entry point of the command."""
    app()


def _print_tables(tree: xr.DataTree) -> None:
    out_console.print(f"\n[bold]{escape(tree.attrs['title'])}[/bold]")
    if not {"flows", "symmetries"} & set(tree.children):
        out_console.print("No flow was solved, and no symmetry looked for.", style="dim")
    _print_flows(tree)
    _print_orders(tree)
    _print_stability(tree)
    _print_charges(tree)


def _print_orders(tree: xr.DataTree) -> None:
    if "convergence" not in tree.children:
        return
    convergence = tree["convergence"].dataset
    lrs = convergence["lr"].values
    table = _bare_table()
    table.add_column("flow", no_wrap=True)
    for column in ("order", "theory", f"error at {lrs[0]:g}", f"{lrs[-1]:g}", "fit"):
        table.add_column(column, justify="right", no_wrap=True)
    for i, name in enumerate(convergence["flow"].values.tolist()):
        one = convergence.isel(flow=i)
        order, error = float(one["observed_order"]), float(one["order_standard_error"])
        seen = "–" if math.isnan(order) else f"{order:.2f}" + ("" if math.isnan(error) else f" ± {error:.2f}")
        used = int((one["left_out"].values == "").sum())
        errors = [_exponent(float(one["error"].values[place])) for place in (0, -1)]
        table.add_row(_label(name), seen, f"{int(one['expected_order'])}", *errors, f"{used}/{len(lrs)}")
    out_console.print(table)
    out_console.print(
        "order in lr of the error at the final time, by least squares over the ladder; fit: points that are in it",
        style="dim",
    )
    for i, name in enumerate(convergence["flow"].values.tolist()):
        words = str(convergence["verdict"].values[i])
        if "as theory has it" not in words:
            out_console.print(f"[yellow]{_label(name)}:[/yellow] {escape(words)}", highlight=False)


def _print_stability(tree: xr.DataTree) -> None:
    from nm_ode.comparison import stability

    seen = stability(tree)
    if seen is not None:
        colour = "yellow" if seen.unstable_from is not None else "dim"
        out_console.print(f"[{colour}]{escape(seen.words)}[/{colour}]", highlight=False)


def _print_charges(tree: xr.DataTree) -> None:
    from nm_ode.comparison import law_titles, symmetry_summary

    if "symmetries" not in tree.children:
        return
    rows, laws = symmetry_summary(tree), law_titles(tree)
    if not rows:
        out_console.print("No symmetry was found.", style="dim")
        return
    table = _symmetry_table()
    for law in laws:
        table.add_column(law.replace("_epsilon", " + ε").replace("_", " "), justify="right", no_wrap=True)
    for row in rows:
        errors = [_exponent(row.laws[law].family) for law in laws]
        table.add_row(*_kind_and_name(row.kind, row.name), f"{row.n_charges}", *errors)
    out_console.print(table)
    if laws:
        out_console.print(
            "largest error of each law over the run, relative to the motion of the symmetry's charges; –: they do not "
            "move",
            style="dim",
        )


def _bare_table() -> Table:
    return Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))


def _symmetry_table() -> Table:
    table = _bare_table()
    table.add_column("kind", no_wrap=True)
    table.add_column("symmetry", overflow="fold")
    table.add_column("charges", justify="right", no_wrap=True)
    return table


def _kind_and_name(kind: str, name: str) -> tuple[str, str]:
    return kind, escape(name.removeprefix(f"{kind} "))


def _label(flow: str) -> str:
    """A flow's name for a narrow table; the iterated-map form, which every optimiser has, goes without saying."""
    return flow.removesuffix("_iterated_map").replace("_", " ")


def _exponent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1e}"


def _print_flows(tree: xr.DataTree) -> None:
    from nm_ode.comparison import summary

    rows = summary(tree)
    if not rows:
        return
    table = _bare_table()
    table.add_column("flow", no_wrap=True)
    for column in ("error", "relative", "loss gap", "solver", "gradients"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("method", no_wrap=True)
    for row in rows:
        products = f"+{row.hvp_evaluations}" if row.hvp_evaluations else ""
        table.add_row(
            _label(row.name) + ("" if row.status == "success" else " [red]stopped[/red]"),
            f"{row.error:.1e}",
            f"{row.relative_error:.1e}",
            f"{row.loss_gap:+.1e}",
            f"{row.solver_error_ratio:.0e}" + ("[red]![/red]" if row.solver_limited else ""),
            f"{row.gradient_evaluations}{products}",
            row.method,
        )
    out_console.print(table)
    out_console.print(
        f"at step {max(row.step for row in rows)}; relative: to the motion; solver: its own error over the "
        "flow's; gradients + Hessian products",
        style="dim",
    )
    for row in rows:
        if row.holds_from is not None and row.holds_from != 0:
            where = f"before step {row.holds_from}" if row.holds_from > 0 else "to the end"
            out_console.print(
                f"{row.title}: one-step defects above a thousandth of an update {where}",
                style="dim",
                highlight=False,
            )
        for method, distance in row.engine_distances:
            out_console.print(
                f"{row.title}, by {escape(method)} too: at most {distance:.1e} apart",
                style="dim",
                highlight=False,
            )
        if row.solver_limited and row.rtol <= 1e-12:
            out_console.print(
                f"[red]![/red] {row.title}: as close to the run as the solver gets; what is left is rounding"
            )
        elif row.solver_limited:
            out_console.print(
                f"[red]![/red] {row.title}: the solver's own error is above a tenth of what is measured; "
                "tighten solver.rtol (or, with kinks, use method = 'Midpoint' and a smaller step)"
            )


@contextmanager
def _bars() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    columns = (TextColumn("{task.description:45}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=error_console, transient=True) as bars:

        def start(what: str, total: int) -> Callable[[int], None]:
            task = bars.add_task(what, total=total)
            return lambda done: bars.update(task, completed=done)

        yield start


def _print_path(label: str, path: Path) -> None:
    # soft_wrap: a path is for copying, so it stays on one line.
    out_console.print(f"[dim]{label}[/dim] {path}", soft_wrap=True, highlight=False)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _complain(message: str) -> None:
    error_console.print(f"[red]error:[/red] {escape(message)}", soft_wrap=True, highlight=False)


def _stop(message: str, code: int) -> NoReturn:
    _complain(message)
    raise typer.Exit(code)
