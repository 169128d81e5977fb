"""The documents: what code cites is there, and what they link to too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ("theory", "design", "bridge")
PAGES = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
SOURCES = [
    path
    for folder in ("nm_ode", "bridges", "tests", "benchmarks", "cases", "docs")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".jl", ".toml", ".md") and path.name != Path(__file__).name
]


def sections(document: str) -> set[str]:
    text = (ROOT / "docs" / f"{document}.md").read_text()
    return set(re.findall(r"^##+ ([\d.]*\d)", text, re.MULTILINE))


@pytest.mark.parametrize("document", DOCS)
def test_every_section_that_is_cited_is_there(document: str) -> None:
    known, missing = sections(document), []
    for path in SOURCES:
        for tail in re.findall(rf"\b{document}\.md((?:,? (?:and )?§[\d.]*\d)+)", path.read_text()):
            missing += [f"{path}: §{n}" for n in re.findall(r"§([\d.]*\d)", tail) if n not in known]
    assert not missing


def test_every_rule_that_is_cited_is_there() -> None:
    rules = {int(n) for n in re.findall(r"^(\d+)\. ", (ROOT / "docs/bridge.md").read_text(), re.MULTILINE)}
    cited = {
        int(n)
        for path in SOURCES
        if path.is_relative_to(ROOT / "bridges")
        for n in re.findall(r"\b[Rr]ule (\d+)", path.read_text())
    }
    assert cited
    assert cited <= rules


def test_equations_are_numbered_once() -> None:
    numbers = re.findall(r" \((\d\.\d+)\)$", (ROOT / "docs/theory.md").read_text(), re.MULTILINE)
    assert len(numbers) == len(set(numbers)) > 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)#]+)\)", prose)
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_the_documents_are_cited_by_where_they_are() -> None:
    old = re.compile(r"\b(THEORY|DESIGN|BRIDGE)\.md\b")
    assert [str(path) for path in [*SOURCES, *PAGES] if old.search(path.read_text())] == []
