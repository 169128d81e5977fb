"""Cases that run in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from nm_ode.studies import REDUCTIONS, load_sweep, run_case

TINY = """
name = "tiny"
seed = 1
loss = "cross_entropy"
flows = ["gradient", { kind = "modified", order = 2, form = "hessian" }]

[model]
name = "mlp"
widths = [64, 4, 10]

[data]
name = "digits"
samples = 40

[optimizer]
lr = 0.1

[training]
steps = 10
save_every = 5

[solver]
rtol = 1e-5
"""

CHARGES = """
name = "charges"
loss = "cross_entropy"

[model]
name = "mlp"
widths = [64, 6, 10]
activation = "relu"
norm = "batch"

[data]
name = "digits"
samples = 60

[optimizer]
lr = 0.05
momentum = 0.9
weight_decay = 1e-3
schedule = { name = "drop", at = [15], factor = 0.5 }

[training]
steps = 30
batch_size = 20
save_every = 10

[symmetries]
"""


@pytest.fixture
def tiny_case(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def _editor(text: str, path: Path) -> Callable[..., Path]:
    """Writes the case with pieces of its text replaced; every piece must be there."""

    def edit(*pairs: tuple[str, str]) -> Path:
        edited = text
        for old, new in pairs:
            assert old in edited
            edited = edited.replace(old, new)
        path.write_text(edited)
        return path

    return edit


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    return _editor(TINY, tmp_path / "edited.toml")


@pytest.fixture
def charges_case(tmp_path: Path) -> Callable[..., Path]:
    return _editor(CHARGES, tmp_path / "charges.toml")


def reduced(
    path: Path, out: Path, left_out: str = ""
) -> tuple[dict[str, xr.DataTree], dict[str, xr.Dataset]]:
    """The members of a sweep, each run alone, and what its reductions make of them.

    Args:
        left_out: name of a member that is not run.
    """
    sweep = load_sweep(path)
    assert sweep is not None
    trees = {
        member.name: run_case(member.case, path, out / member.name).tree
        for member in sweep.members
        if member.name != left_out
    }
    made: dict[str, xr.Dataset] = {}
    for name in sweep.table.reduce:
        made |= REDUCTIONS[name].reduce(sweep.record, trees.get, path)
    return trees, made
