"""What Sphinx does for this site beyond its own extensions."""

from __future__ import annotations

from typing import Any

from nm_site import anchors, citations, docstrings, entries, included, mathml, plots, references, typeset


def setup(app: Any) -> dict[str, bool]:
    for part in (anchors, citations, docstrings, entries, included, mathml, plots, references, typeset):
        part.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
