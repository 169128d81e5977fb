"""The results that docstrings read, of smaller cases: the same files with fewer members, samples and steps."""

from __future__ import annotations

import os
from pathlib import Path

import nm_ode
from nm_ode.studies import find_case

SMALLER = {
    "diabetes_linear": {"steps = 400": "steps = 8", "rtol = 1e-10": "rtol = 1e-6"},
    "sweep_lr_momentum": {
        "[2.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625]": "[0.5, 0.25]",
        "[0.0, 0.3, 0.5, 0.7, 0.8, 0.9]": "[0.0, 0.5]",
        "lr * steps = 8": "lr * steps = 1",
        "lr * warm_steps = 4": "lr * warm_steps = 0.5",
        "samples = 256": "samples = 16",
        "points = 6": "points = 2",
        "[64, 16, 10]": "[64, 2, 10]",
        "rtol = 1e-8": "rtol = 1e-6",
    },
    "orders_tanh": {
        '  { kind = "modified", order = 2, form = "hessian" },\n': "",
        '  { kind = "modified", order = 3, form = "hessian" },\n': "",
        '  { kind = "modified", order = 3 },\n': "",
        '  { kind = "modified", order = 4 },\n': "",
        '  { kind = "modified", order = 5 },\n': "",
        "[0.2, 0.1, 0.05, 0.025]": "[0.2, 0.1]",
        "lr * steps = 8": "lr * steps = 1",
        "lr * save_every = 0.4": "lr * save_every = 0.2",
        "samples = 512": "samples = 16",
        "points = 10": "points = 2",
        "[64, 32, 10]": "[64, 2, 10]",
        "rtol = 1e-12": "rtol = 1e-9",
    },
}


def make_results(folder: Path) -> Path:
    """`results` in this folder, as `nm-ode run` leaves it, without pages."""
    for name, changes in SMALLER.items():
        text = find_case(name).read_text(encoding="utf-8")
        for before, after in changes.items():
            assert before in text, f"{name}.toml has no {before!r} any more"
            text = text.replace(before, after)
        path = folder / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        nm_ode.run_study(path, folder / "results")
    return folder / "results"


def lend(results: Path, folder: Path) -> None:
    """The results under their name in another folder."""
    os.symlink(results, folder / results.name, target_is_directory=True)
