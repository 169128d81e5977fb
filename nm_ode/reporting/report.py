"""report.html: what was run, the error table, the plots; one file that needs nothing else."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import xarray as xr

from nm_ode.comparison import law_titles, stability, summary, symmetry_summary
from nm_ode.reporting.charge_plots import family_panels, kind_panels
from nm_ode.reporting.order_plots import order_plot, sharpness_plot
from nm_ode.reporting.plots import error_plot, layer_plot, loss_plot


def write_report(tree: xr.DataTree, path: Path) -> Path:
    """Render the tree of a run to `path`; an older report there is replaced at once or not at all."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nm_ode.reporting", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(number=_number, count=_count, image=_image, power=_power, order=_order)
    environment.tests["match"] = lambda text, start: text.startswith(start)
    rows, stable = summary(tree), stability(tree)
    compared = [row for row in rows if row.step > 0]
    figures = []
    if tree["discrete"].sizes.get("saved_step", 0) > 1:
        figures.append(
            ("Loss of the discrete run" + (" and of each flow." if rows else "."), loss_plot(tree, rows))
        )
    if compared:
        figures.append(
            (
                "Distance between each flow and the discrete run at the same time; thin lines: the solver's "
                "own error, which must lie well below.",
                error_plot(tree, compared, stable.unstable_time if stable is not None else None),
            )
        )
        figures.append(
            ("Each layer's distance, relative to how far the layer has moved.", layer_plot(tree, compared))
        )
    symmetries = symmetry_summary(tree)
    charge_figures = []
    for caption, drawn in (
        (
            "Charges of one symmetry of each kind, channel by channel, and what their law of motion predicts from the "
            "recorded driver (as Kunin et al. 2021 draw them).",
            kind_panels(tree, symmetries),
        ),
        (
            "Every symmetry whose charges move: the channels that move farthest, and their law. In the corner: the "
            "law's largest error over the run, relative to the motion.",
            family_panels(tree, symmetries),
        ),
    ):
        if drawn is not None:
            charge_figures.append((caption, drawn))
    html = environment.get_template("report.html.jinja").render(
        attrs=tree.attrs,
        run=tree["discrete"].attrs,
        optimizer=optimizer_text(tree["discrete"].attrs),
        stability=stable,
        sharpness_figure=sharpness_plot(tree, stable) if stable is not None else None,
        convergence=tree["convergence"].dataset if "convergence" in tree.children else None,
        order_figure=order_plot(tree["convergence"].dataset) if "convergence" in tree.children else None,
        steps=tree["discrete"].sizes["step"],
        rows=rows,
        figures=figures,
        symmetries=symmetries,
        symmetries_sought="symmetries" in tree.children,
        laws=law_titles(tree),
        charge_figures=charge_figures,
        versions=json.loads(tree.attrs["versions"]),
    )
    writing = path.with_name(f".{path.name}-{os.getpid()}")
    writing.write_text(html, encoding="utf-8")
    writing.replace(path)
    return path


def optimizer_text(run: Mapping[Any, Any]) -> str:
    """The optimiser and its hyper-parameters; stores of earlier versions know only some."""
    return str(run.get("optimizer_text", f"{run['optimizer']}, lr = {run['lr']}"))


def _number(value: float) -> str:
    """Three figures, with a real minus and exponent; a dash for what was not measured."""
    if math.isnan(value):
        return "–"
    return _typeset(f"{value:.3g}")


def _order(value: float) -> str:
    """Two decimals; a dash for what was not measured."""
    return "–" if math.isnan(value) else f"{value:.2f}"


def _power(value: float) -> str:
    """Two figures and a power of ten; a dash for what was not measured."""
    if math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    return _typeset(f"{value:.1e}")


def _typeset(number: str) -> str:
    return number.replace("e-0", "e-").replace("e+0", "e+").replace("-", "−")


def _count(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def _image(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
