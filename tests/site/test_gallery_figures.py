"""The alternative text of the gallery's figures."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "docs" / "_ext" / "nm_site" / "gallery_figures.py"
spec = importlib.util.spec_from_file_location("gallery_figures", FILE)
assert spec is not None
assert spec.loader is not None
gallery_figures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gallery_figures)


@pytest.mark.parametrize(
    ("titles", "said"),
    [
        (
            "Gradient flow to t = 4, Gradient flow to t = 200",
            "Gradient flow to t = 4, Gradient flow to t = 200",
        ),
        (
            r"Charges, translation,  $\langle\theta_A, 1\rangle$\n, scale,  $\|\theta\|^2$",
            "Charges, translation, scale",
        ),
        (r"Two\nlines", "Two lines"),
    ],
)
def test_a_figures_titles_are_read_without_formulas(titles: str, said: str) -> None:
    assert gallery_figures.spoken(titles) == said
