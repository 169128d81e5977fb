"""Each example runs, as a user runs it; its numbers are what theory says, and its figures have names and units."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).resolve().parents[1] / "examples"
MARK = "# +"

Run = Callable[[str], dict[str, Any]]


@pytest.fixture
def run_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs one in an empty folder; what it leaves in its namespace. Its figures are looked at."""
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> dict[str, Any]:
        with matplotlib.rc_context():
            found = runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
            require_readable_figures()
        return found

    yield run
    plt.close("all")


def require_readable_figures() -> None:
    """Every panel says what it shows: the titles are the alternative text of the figure."""
    assert plt.get_fignums()
    for number in plt.get_fignums():
        figure = plt.figure(number)
        figure.draw_without_rendering()
        for axes in figure.axes:
            if axes.axison and axes.get_label() != "<colorbar>":
                assert axes.get_title() or axes.get_title("left") or figure.get_suptitle()
                assert axes.get_xlabel() or len(figure.axes) > 2


def test_own_loop(run_example: Run, tmp_path: Path) -> None:
    found = run_example("own_loop")
    run = found["run"]
    assert run.sizes["step"] == 140
    assert float(run.loss[-14:].mean()) < 0.2 * float(run.loss[0])
    assert float(run.test_accuracy[-1]) > 0.85
    assert found["error"] < 1e-4 * found["motion"]
    for name, values in plain_loop(tmp_path).items():
        np.testing.assert_array_equal(found["model"].state_dict()[name], values)


def plain_loop(folder: Path) -> dict[str, Any]:
    """The parameters to which the loop comes without the lines that are added to it."""
    lines = (FOLDER / "own_loop.py").read_text().splitlines()
    assert sum(line.endswith(MARK) for line in lines) == 5
    start = next(i for i, line in enumerate(lines) if line.startswith("with "))
    loop = [line[4:] if i > start else line for i, line in enumerate(lines)]
    path = folder / "plain.py"
    path.write_text("\n".join(line for line in loop[: loop.index("", start)] if not line.endswith(MARK)))
    return runpy.run_path(str(path))["model"].state_dict()


def test_two_parameters(run_example: Run) -> None:
    drift = run_example("two_parameters")["drift"]
    assert drift.keys() == {"rescale", "scale"}
    for kind, sign in (("rescale", -1), ("scale", 1)):
        descent, gradient, modified = drift[kind].values()
        assert abs(gradient) < 1e-6  # the flow keeps the charge, to the solver's tolerance
        assert 0 < modified / descent < 1  # the modified flow goes the way of descent, most of it
        assert np.sign(descent) == sign
