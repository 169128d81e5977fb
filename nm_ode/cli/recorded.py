"""A recorded run for its reader: its report, and what is printed of it."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from nm_ode.cli.console import complain, out, print_dim, print_path, print_sentence, print_table, stop
from nm_ode.cli.stopping import MISTAKE


def present_run(store: Path) -> bool:
    """Write the report beside a recorded run, `run.html` of `run.zarr`, and print its tables.

    Returns:
        Was it written? The store is as it was in any case.
    """
    from nm_ode.comparison import law_infos, symmetry_summary
    from nm_ode.errors import NmOdeError
    from nm_ode.reporting.recorded import run_tree, warnings_of, what_was_recorded, write_run_report
    from nm_ode.reporting.tables import law_table
    from nm_ode.results import StoreError, open_run, run_info

    try:
        run = open_run(store)
    except StoreError as error:
        stop(str(error), MISTAKE)
    path = store.with_suffix(".html")
    try:
        info = run_info(run)
        tree, said = run_tree(run)
        out.print(Text(f"\n{store.name}", style="bold"))
        print_dim(what_was_recorded(info))
        for warning in warnings_of(info):
            out.print(Text(warning, style="yellow"))
        if "laws" in tree.children:
            print_table(law_table(symmetry_summary(tree), law_infos(tree)))
        for sentence in said:
            print_sentence(sentence)
        print_path("report", write_run_report(tree, said, path, store.name))
    except OSError as error:
        complain(f"{path} cannot be written ({error.strerror or error})")
        return False
    except NmOdeError as error:
        complain(f"{store}: {error}")
        return False
    return True
