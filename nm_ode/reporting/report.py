"""report.html: what was run, the tables, the plots; one file that needs nothing else."""

from __future__ import annotations

import base64
import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

import jinja2
import xarray as xr
from markupsafe import Markup, escape

from nm_ode.arguments import said
from nm_ode.errors import NmOdeError
from nm_ode.reporting.formats import count
from nm_ode.reporting.sections import sections
from nm_ode.reporting.words import run_sentence
from nm_ode.required import as_path
from nm_ode.results import ResultError, StudyInfo, run_info, study_info
from nm_ode.results.files import write_atomically


class ReportError(NmOdeError, RuntimeError):
    """A tree from which no report can be made."""


def write_report(tree: xr.DataTree, path: Path) -> Path:
    """Render the tree of a study to `path`; an older report there is replaced at once or not at all.

    Raises:
        ResultError: the tree is not of a study.
        ReportError: it is, and what it holds is not what nm_ode writes.
        OSError: the folder cannot be written, or is full.
    """
    path = as_path(path, "path")
    return write_page(report_html(tree), path)


def report_html(tree: xr.DataTree) -> str:
    """The page of a study.

    Raises:
        ResultError: the tree is not of a study.
        ReportError: it is, and what it holds is not what nm_ode writes.
    """
    if not isinstance(tree, xr.DataTree):
        raise ResultError(
            f"a report is made of a study's tree, as open_store gives it; {said(tree)} was given"
        )
    study = study_info(tree)
    with reportable("tree"):
        return _rendered(tree, study)


def write_page(html: str, path: Path) -> Path:
    """Write a page, or replace it at once or not at all.

    Raises:
        OSError: the folder cannot be written, or is full.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "there is a folder of this name", str(path))
    write_atomically(path, html.encode("utf-8", "backslashreplace"))
    return path


@contextlib.contextmanager
def reportable(what: str) -> Iterator[None]:
    """Whatever goes wrong with a tree that is not as nm_ode writes it is a ReportError."""
    try:
        yield
    except (NmOdeError, MemoryError, RecursionError):
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ReportError(
            f"no report can be made of this {what} ({why}); if nm_ode wrote it, and nobody changed it since, this is a "
            "defect of nm_ode: please report it"
        ) from error


def environment() -> jinja2.Environment:
    """Where the templates are, with what they use."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("nm_ode.reporting", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters.update(count=count, image=_image, typeset=_typeset)
    return found


def _rendered(tree: xr.DataTree, study: StudyInfo) -> str:
    if "discrete" not in tree.children:
        raise ResultError("the tree has no group 'discrete', so it is not that of a study")
    run = run_info(tree["discrete"].dataset)
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            title=study.title,
            study=study,
            what_was_run=run_sentence(
                run.optimizer_text,
                count(run.grid.steps),
                run.grid.batch_size,
                warm_start=run.warm_start,
                augmentation=run.grid.augmentation,
                autocast=run.autocast,
            ),
            sections=sections(tree),
        )
    )


def _typeset(text: str) -> Markup:
    """The text as HTML, its subscripts and apostrophes typeset: the terminal has neither."""
    escaped = str(escape(text.replace("'", "’")))
    return Markup(re.sub(r"([λ∂])_(\w+)", r"\1<sub>\2</sub>", escaped))


def _image(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
