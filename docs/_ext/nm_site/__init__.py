"""What Sphinx does for this site beyond its own extensions."""

from __future__ import annotations

from importlib import import_module
from typing import Any

PARTS = (
    "anchors",
    "case_file",
    "citations",
    "command_line",
    "docstrings",
    "entries",
    "gallery",
    "included",
    "mathml",
    "plots",
    "references",
    "typeset",
)


def setup(app: Any) -> dict[str, bool]:
    for part in PARTS:
        import_module(f"nm_site.{part}").setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
