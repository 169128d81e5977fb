"""A case that runs in a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

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


@pytest.fixture
def tiny_case(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def edited(tmp_path: Path):
    """The tiny case with pieces of its text replaced; every piece must be there."""

    def edit(*pairs: tuple[str, str]) -> Path:
        text = TINY
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "edited.toml"
        path.write_text(text)
        return path

    return edit
