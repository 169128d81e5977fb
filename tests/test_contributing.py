"""The how-tos of docs/adding, followed: each example runs by itself, and leaves the registries as they were."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.registries import REGISTRIES, restored

ROOT = Path(__file__).resolve().parents[1]
PAGES = {page.stem: page.read_text() for page in sorted((ROOT / "docs" / "adding").glob("*.md"))}
HOW_TOS = {
    name: found[1]
    for name, page in PAGES.items()
    if (found := re.search(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
}


@pytest.fixture(autouse=True)
def _as_they_were() -> Iterator[None]:
    with restored():
        yield


@pytest.mark.parametrize("how_to", HOW_TOS)
def test_each_how_to_runs_by_itself(how_to: str, tmp_path: Path) -> None:
    example = tmp_path / "how_to.py"
    example.write_text(HOW_TOS[how_to])
    torch.manual_seed(0)  # models that are not seeded are the same, whatever ran before
    runpy.run_path(str(example), run_name="how_to")


def test_every_how_to_has_an_example() -> None:
    assert set(PAGES) - set(HOW_TOS) == {"index"}


def test_contributing_has_a_link_to_each() -> None:
    links = re.findall(r"\(docs/adding/(\w+)\.md\)", (ROOT / "CONTRIBUTING.md").read_text())
    assert sorted(links) == sorted({*PAGES, *HOW_TOS})


@pytest.mark.parametrize("name", REGISTRIES)
def test_there_is_a_how_to_for_each_registry(name: str) -> None:
    assert any(f"\n{name}.register(" in example for example in HOW_TOS.values())
