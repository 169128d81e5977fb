"""The report of a recorded run: its numbers over the steps, by layer, its charges with their laws, its spectra."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from nm_ode.charges import LawError, predict_charges
from nm_ode.comparison import compare, law_infos, symmetry_summary
from nm_ode.observers import CHARGES
from nm_ode.reporting.formats import count
from nm_ode.reporting.plots.given import symmetries_of_run
from nm_ode.reporting.report import environment, write_page
from nm_ode.reporting.sections import Section, drawings
from nm_ode.reporting.tables import law_table
from nm_ode.reporting.words import Sentence, run_sentence
from nm_ode.results import BeyondLaws, RunInfo, law_info, run_info

_LAWS = ("exact", "second_order", "first_order")
_NUMBERS = 2**24
"""Of charges that are read for a report; of more charges some are shown."""


def run_tree(run: xr.Dataset) -> tuple[xr.DataTree, list[Sentence]]:
    """A recorded run with the laws of its charges beside it, and what is to be said of them."""
    said: list[Sentence] = []
    groups = {"discrete": run}
    if "charge" in run and run["charge"].size:
        shown, remark = _some_charges(run)
        said += remark
        why_not, beyond, unseen = "", BeyondLaws(), dict[str, None]()
        for law in _LAWS:
            try:
                predicted = predict_charges(shown, law)
            except LawError as error:
                why_not = why_not or str(error)
                continue
            groups |= {f"laws/{law}": predicted, f"comparison/{law}": compare(shown, predicted)}
            about = law_info(predicted)
            beyond = BeyondLaws(symmetries=about.beyond) if law == "exact" else beyond
            unseen |= dict.fromkeys(about.remarks)
        groups |= {"discrete": shown, "symmetries": symmetries_of_run(shown)}
        if "laws/exact" not in groups and why_not:
            said.append(Sentence(f"No law is shown: {why_not}"))
        if beyond:
            said.append(Sentence(f"No law describes {beyond}."))
        said += [Sentence(f"{one[:1].upper()}{one[1:]}.") for one in unseen]
    return xr.DataTree.from_dict(groups), said


def run_sections(tree: xr.DataTree, said: list[Sentence]) -> Iterator[Section]:
    """All sections, in order; what was not recorded is left out."""
    yield Section("The run", drawings(tree, "run"))
    for title, place in (("By layer", "layers"), ("Spectra", "spectra")):
        drawn = drawings(tree, place)  # type: ignore[arg-type]
        if drawn:
            yield Section(title, drawn)
    if "symmetries" in tree.children:
        rows, laws = symmetry_summary(tree), law_infos(tree)
        table = law_table(rows, laws) if laws else None
        yield Section("Charges and their laws of motion", drawings(tree, "symmetries"), table, said)


def write_run_report(tree: xr.DataTree, said: list[Sentence], path: Path, title: str) -> Path:
    """Render what `run_tree` gives to `path`; an older report there is replaced at once or not at all.

    Raises:
        OSError: the folder cannot be written, or is full.
    """
    info = run_info(tree["discrete"].dataset)
    html = (
        environment()
        .get_template("run.html.jinja")
        .render(
            title=title,
            what_was_run=what_was_recorded(info),
            warnings=warnings_of(info),
            sections=list(run_sections(tree, said)),
        )
    )
    return write_page(html, path)


def what_was_recorded(info: RunInfo) -> str:
    """One line: "1 000 parameters · 400 steps of SGD, lr = 0.1, batches that are not known"."""
    batches = "full" if info.grid.is_full_batch else info.grid.batch_size
    text = run_sentence(
        info.optimizer_text, count(info.grid.steps), batches, warm_start=info.warm_start
    ).removesuffix(", batches of unknown")
    return f"{count(info.layout.size)} parameters · {text}"


def warnings_of(info: RunInfo) -> list[str]:
    """What a reader must know of the run before its numbers."""
    ended = [f"{info.status}: {info.message}"] if info.message else []
    everything = info.beyond_laws.everything  # of some symmetries it is said beside their laws
    beyond = [f"no law describes the charges: {everything}"] if everything else []
    return [*ended, *beyond, *info.remarks]


def _some_charges(run: xr.Dataset) -> tuple[xr.Dataset, list[Sentence]]:
    """The run with as many charges as a report can read."""
    steps, charges = run["charge"].shape
    most = max(1, _NUMBERS // max(1, steps))
    if charges <= most:
        return run, []
    chosen = np.unique(np.linspace(0, charges - 1, most).round().astype(int))
    sentence = Sentence(f"{count(len(chosen))} of {count(charges)} charges are shown, evenly spread.")
    return run.isel({CHARGES: chosen}), [sentence]
