"""Docstrings on their way to Sphinx: spans become code, and examples stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the site's packages are not installed")

EXTENSIONS = Path(__file__).resolve().parents[2] / "docs" / "_ext"


def test_an_example_is_not_touched_and_the_text_around_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    from nm_site.docstrings import convert

    example = [
        "    >>> type(a).__name__, 2 * b, c | d",
        "    'x'",
        "    >>> for x in (1, 2):",
        "    ...     print(f'- {x}_', x**2)",
        "    - 1_ 1",
        "    - 2_ 4",
    ]
    made = convert(["Of `theta` and x_.", "", "Example:", "    After `run a_b`:", "", *example])
    assert made[0] == r"Of ``theta`` and x\_."
    assert made[3] == "    After ``run a_b``:"
    assert made[5:] == example
