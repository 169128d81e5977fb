"""nm-ode symmetries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from nm_ode.cli.console import complain, err, out, print_own_code, print_table, stop
from nm_ode.cli.stopping import DONE, FAILED, MISTAKE, heed

if TYPE_CHECKING:
    from nm_ode.symmetries import Symmetries
    from nm_ode.symmetries.scan import Scan


def symmetries(
    case: Annotated[str, typer.Argument(metavar="CASE", help="A case file, or the name of a shipped case.")],
    scan: Annotated[
        bool,
        typer.Option(
            "--scan",
            help="For small models: search for conserved directions numerically, and say which the graph's rules "
            "did not explain.",
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Say of each parameter without a symmetry of a kind which operation ended it, and where it is.",
        ),
    ] = False,
) -> None:
    """The symmetries of a case's model, proved from its graph and verified; nothing is trained.

    Each symmetry has the number of its charges, and the worst residual of its gradient constraint ⟨g, ξ⟩ = 0 and its
    Hessian constraint Hξ = −∂_ξ g at random parameters and batches, relative. A normalisation's ε breaks a scale
    symmetry a little: `of ε` is what it accounts for, `left` what remains. What trains by another gradient than the
    loss's (a backward of its own, a hook) is left out, and said.

      nm-ode symmetries digits_vit
    """
    from nm_ode.studies import CaseError, build_study, code_files, find_case, load_case
    from nm_ode.symmetries import SymmetryError, scan_of, symmetries_of

    heed()
    scanned = None
    try:
        path = find_case(case)
        loaded = load_case(path)
        print_own_code(code_files(loaded, path))
        problem = build_study(loaded, path).problem
        with err.status("finding and verifying"):
            found = symmetries_of(problem)
        if scan:
            with err.status("scanning"):
                scanned = scan_of(problem, found)
    except (CaseError, SymmetryError) as error:
        stop(str(error), MISTAKE)
    out.print(Text(loaded.title or loaded.name, style="bold"))
    _print_found(found)
    if scanned is not None:
        _print_scan(scanned)
    if explain:
        _print_ended(found)
    for remark in (*found.left_out, *found.notes):
        out.print(Text.assemble(("note:", "yellow"), " ", remark), soft_wrap=True)
    for defect in found.defects:
        complain(defect)
    raise typer.Exit(FAILED if found.defects else DONE)


def _print_found(found: Symmetries) -> None:
    from nm_ode.comparison import symmetry_rows
    from nm_ode.reporting.tables import constraint_table
    from nm_ode.symmetries import KINDS

    print_table(constraint_table(symmetry_rows(found)))
    kinds = ", ".join(f"{found.n_charges(kind)} {kind}" for kind in KINDS if found.n_charges(kind))
    out.print(f"{found.n_charges()} charges: {kinds or 'none'}", highlight=False)


def _print_ended(found: Symmetries) -> None:
    from nm_ode.reporting.tables import ended_table
    from nm_ode.symmetries.ended import rows_of

    print_table(ended_table(rows_of(found.ended)))


def _print_scan(scanned: Scan) -> None:
    out.print(
        f"scan of {scanned.blocks} sums at {scanned.draws} random parameters: {scanned.conserved} conserved "
        f"directions, {scanned.explained} explained by the symmetries above",
        highlight=False,
    )
    for unexplained in scanned.unexplained:
        out.print(Text.assemble(("not explained:", "yellow"), " ", str(unexplained)), soft_wrap=True)
