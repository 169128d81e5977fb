"""report.html: what was run, the tables, the plots; one file that needs nothing else."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import jinja2
import xarray as xr
from markupsafe import Markup, escape

from nm_ode.reporting.formats import count
from nm_ode.reporting.sections import sections
from nm_ode.reporting.words import run_sentence
from nm_ode.results import run_info, study_info


def write_report(tree: xr.DataTree, path: Path) -> Path:
    """Render the tree of a study to `path`; an older report there is replaced at once or not at all.

    Raises:
        ResultError: the tree is not of a study.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nm_ode.reporting", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(count=count, image=_image, typeset=_typeset)
    run = run_info(tree["discrete"].dataset)
    html = environment.get_template("report.html.jinja").render(
        study=study_info(tree),
        what_was_run=run_sentence(
            run.optimizer_text, count(run.grid.steps), run.grid.batch_size, warm_start=run.warm_start
        ),
        sections=sections(tree),
    )
    writing = path.with_name(f".{path.name}-{os.getpid()}")
    writing.write_text(html, encoding="utf-8")
    writing.replace(path)
    return path


def _typeset(text: str) -> Markup:
    """The text as HTML, its subscripts and apostrophes typeset: the terminal has neither."""
    escaped = str(escape(text.replace("'", "’")))
    return Markup(re.sub(r"([λ∂])_(\w+)", r"\1<sub>\2</sub>", escaped))


def _image(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
