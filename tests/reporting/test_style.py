"""A figure as SVG: what matplotlib saves, drawn once."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from nm_ode.reporting.style import styled, svg


def drawn(layout: str | None) -> Figure:
    with styled():
        figure = Figure(figsize=(6, 5), layout=layout)
        above, below = figure.subplots(2, 1, sharex=True)
        x = np.linspace(0.1, 3, 40)
        for k in range(3):
            above.plot(x, np.exp(-k * x), label=f"$\\lambda_{k}$")
            below.loglog(x, x**k)
        above.set_title("A title that is at the left")
        below.set_xlabel("time\nin two lines")
        bar = figure.colorbar(below.scatter(x, x, c=x), ax=below)
        bar.set_label("colour")
        figure.legend(loc="outside lower center" if layout else "lower center", ncols=3)
        return figure


@pytest.mark.parametrize("layout", ["constrained", None])
def test_it_is_what_matplotlib_saves(layout: str | None) -> None:
    expected = io.StringIO()
    with styled():
        drawn(layout).savefig(expected, format="svg", metadata={"Date": None})
    assert svg(drawn(layout)) == expected.getvalue()


def test_it_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times, real = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda self, renderer: times.append(1) or real(self, renderer))
    svg(drawn("constrained"))
    assert len(times) == 1
