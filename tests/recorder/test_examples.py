"""The example of a loop of one's own runs, and its loop is the plain one but for a few lines."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_loop.py"
MARK = "# +"


def test_the_example_learns_and_its_charges_follow_the_law(capsys) -> None:
    found = runpy.run_path(str(EXAMPLE))
    run = found["run"]
    assert run.sizes["step"] == 140
    assert float(run.loss[-14:].mean()) < 0.2 * float(run.loss[0])
    assert float(run.test_accuracy[-1]) > 0.85
    assert found["error"] < 1e-4 * found["motion"]
    assert "momentum = 0.9" in capsys.readouterr().out


def test_without_the_lines_that_it_adds_the_loop_takes_the_same_steps(tmp_path: Path) -> None:
    lines = EXAMPLE.read_text().splitlines()
    added = [line for line in lines if line.endswith(MARK)]
    assert len(added) == 5
    start = next(i for i, line in enumerate(lines) if line.startswith("with "))
    loop = [line[4:] if i > start else line for i, line in enumerate(lines)]
    end = loop.index("", start) if "" in loop[start:] else len(loop)
    plain = tmp_path / "plain.py"
    plain.write_text("\n".join(line for line in loop[:end] if not line.endswith(MARK)))
    recorded, unrecorded = (runpy.run_path(str(path))["model"].state_dict() for path in (EXAMPLE, plain))
    for name, values in unrecorded.items():
        np.testing.assert_array_equal(recorded[name], values)
