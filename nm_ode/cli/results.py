"""A finished study on the terminal: what `run` and `report` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from nm_ode.cli.console import out, print_dim, print_sentence, print_table

if TYPE_CHECKING:
    import xarray as xr


def print_results(tree: xr.DataTree) -> None:
    """The tables of the report in brief, with its sentences."""
    from nm_ode.results import study_info

    out.print(f"\n[bold]{escape(study_info(tree).title)}[/bold]")
    if not {"flows", "symmetries"} & set(tree.children):
        print_dim("No flow was solved, and no symmetry looked for.")
    _print_flows(tree)
    _print_orders(tree)
    _print_stability(tree)
    _print_charges(tree)


def _print_flows(tree: xr.DataTree) -> None:
    from nm_ode.comparison import summary
    from nm_ode.reporting.tables import flow_table
    from nm_ode.reporting.words import flow_sentences

    rows = summary(tree)
    if rows:
        print_table(flow_table(rows))
        for sentence in flow_sentences(rows):
            print_sentence(sentence)


def _print_orders(tree: xr.DataTree) -> None:
    from nm_ode.reporting.tables import order_table, unexpected

    if "convergence" in tree.children:
        convergence = tree["convergence"].dataset
        print_table(order_table(convergence))
        for label, sentence in unexpected(convergence):
            out.print(f"[yellow]{escape(label)}:[/yellow] {escape(sentence)}", highlight=False)


def _print_stability(tree: xr.DataTree) -> None:
    from nm_ode.comparison import stability
    from nm_ode.reporting.words import stability_sentence

    seen = stability(tree)
    if seen is not None:
        sentence = stability_sentence(seen)
        out.print(escape(sentence.text), style="yellow" if sentence.warns else "dim", highlight=False)


def _print_charges(tree: xr.DataTree) -> None:
    from nm_ode.comparison import law_infos, symmetry_summary
    from nm_ode.reporting.tables import law_table

    if "symmetries" not in tree.children:
        return
    rows = symmetry_summary(tree)
    if rows:
        print_table(law_table(rows, law_infos(tree)))
    else:
        print_dim("No symmetry was found.")
