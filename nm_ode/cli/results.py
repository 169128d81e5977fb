"""A finished study for its reader: the report that `run` and `report` write, and what they print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from nm_ode.cli.console import complain, out, print_dim, print_path, print_sentence, print_table
from nm_ode.cli.stopping import heed

if TYPE_CHECKING:
    import xarray as xr

REPORT = "report.html"


def present(tree: xr.DataTree, store: Path, page: Path | None = None) -> bool:
    """Write the report beside a store and print the tables; what stands in the way is a sentence.

    Args:
        page: where else the report goes.

    Returns:
        Did both work? The store is as it was in any case.
    """
    from nm_ode.errors import NmOdeError
    from nm_ode.reporting import write_report

    heed()
    path, kept = (
        page or store.parent / REPORT,
        f"the results in {store} are kept, `nm-ode report {store}` tries again",
    )
    written = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = write_report(tree, path)
    except OSError as error:
        complain(f"{path} cannot be written ({error.strerror or error}); {kept}")
    except NmOdeError as error:
        complain(f"{store}: {error}")
        return False
    try:
        print_results(tree)
    except OSError:
        raise
    except Exception as error:
        complain(f"{store}: its tables cannot be printed ({type(error).__name__}: {error}); {kept}")
        return False
    if written is not None:
        print_path("report", written)
    return written is not None


def print_results(tree: xr.DataTree) -> None:
    """The tables of the report in brief, with its sentences."""
    from nm_ode.results import study_info

    out.print(Text(f"\n{study_info(tree).title}", style="bold"))
    if not {"flows", "symmetries"} & set(tree.children):
        print_dim("No flow was solved, and no symmetry looked for.")
    _print_flows(tree)
    if "convergence" in tree.children:
        print_orders(tree["convergence"].dataset)
    _print_stability(tree)
    _print_edge(tree)
    _print_charges(tree)


def _print_flows(tree: xr.DataTree) -> None:
    from nm_ode.comparison import stability, summary
    from nm_ode.reporting.tables import flow_table
    from nm_ode.reporting.words import farther_sentences, flow_sentences

    rows = summary(tree)
    if rows:
        print_table(flow_table(rows))
        for sentence in (*flow_sentences(rows), *farther_sentences(rows, stability(tree))):
            print_sentence(sentence)


def print_orders(convergence: xr.Dataset) -> None:
    """The order of each flow over the learning rates, with the diagnosis of one that is not as expected."""
    from nm_ode.reporting.tables import order_table, unexpected

    print_table(order_table(convergence))
    for label, sentence in unexpected(convergence):
        out.print(Text.assemble((f"{label}:", "yellow"), " ", sentence))


def _print_stability(tree: xr.DataTree) -> None:
    from nm_ode.comparison import stability
    from nm_ode.reporting.tables import stability_table
    from nm_ode.reporting.words import stability_sentence

    seen = stability(tree)
    if seen is not None:
        table = stability_table(seen)
        if table is not None:
            print_table(table)
        sentence = stability_sentence(seen)
        out.print(Text(sentence.text, style="yellow" if sentence.warns else "dim"))


def _print_edge(tree: xr.DataTree) -> None:
    from nm_ode.comparison import edge
    from nm_ode.reporting.edge_words import edge_sentences
    from nm_ode.reporting.tables import edge_table

    seen = edge(tree)
    if seen is None:
        return
    if seen.rows:
        print_table(edge_table(seen))
    for sentence in edge_sentences(seen):
        print_sentence(sentence)


def _print_charges(tree: xr.DataTree) -> None:
    from nm_ode.comparison import law_infos, symmetry_summary
    from nm_ode.reporting.tables import law_table
    from nm_ode.reporting.words import remark_sentences
    from nm_ode.results import symmetries_info

    if "symmetries" not in tree.children:
        return
    rows = symmetry_summary(tree)
    if rows:
        print_table(law_table(rows, law_infos(tree)))
    else:
        print_dim("No symmetry was found.")
    for sentence in remark_sentences(symmetries_info(tree["symmetries"].to_dataset())):
        print_sentence(sentence)
