"""Figures of the gallery: matplotlib's, with an alternative text of their titles without formulas."""

from __future__ import annotations

import re
from typing import Any


def scrape(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any], **options: Any) -> str:
    """The figures of a block, as reStructuredText."""
    from sphinx_gallery.scrapers import matplotlib_scraper

    found = matplotlib_scraper(block, block_vars, gallery_conf, **options)
    return re.sub(r"^( +:alt: )(.*)$", lambda line: line[1] + spoken(line[2]), found, flags=re.MULTILINE)


def spoken(titles: str) -> str:
    """Titles without their formulas, and without what is left of the commas beside these."""
    words = re.sub(r"\$[^$]*\$", "", titles.replace(r"\n", " "))
    return re.sub(r"\s*,(\s*,)*\s*", ", ", " ".join(words.split())).strip(" ,")
