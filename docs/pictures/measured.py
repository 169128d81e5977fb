"""What the pictures of the benchmarks share: the results that they draw, colours and marks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

import nm_ode
from nm_ode.reporting.style import COLOURS, DASHES

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
MARKS = "osD^vPX*"
WIDTH = 6.2  # inches: on a phone the letters are still 7 px high


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def panels(rows: int, height: float) -> list[Axes]:
    """Axes one below the other, `height` inches each."""
    plt.style.use([nm_ode.plots.STYLE, {"font.size": 11, "legend.fontsize": 10}])
    _, axes = plt.subplots(rows, figsize=(WIDTH, rows * height), layout="constrained", squeeze=False)
    return list(axes[:, 0])


def curve(axes: Axes, i: int, x: Sequence[float], y: Sequence[float], label: str, **style: Any) -> None:
    """A line with marks: told apart without colour too."""
    style = {"color": COLOURS[i % len(COLOURS)], "ls": DASHES[i % len(DASHES)], "lw": 1.6, "ms": 5.5, **style}
    axes.plot(x, y, marker=MARKS[i % len(MARKS)], label=label, **style)
