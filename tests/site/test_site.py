"""The site as a reader has it: built once, without running the examples or drawing the pictures."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from typer.main import get_command

from nm_ode.cli import app
from nm_ode.studies import entries, schema
from tests.site.built import Page, Site

ROOT = Path(__file__).resolve().parents[2]
_WITHOUT = {"NM_ODE_GALLERY": "0", "NM_ODE_PICTURES": "0", "OMP_NUM_THREADS": "1"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    for module in ("sphinx", "myst_parser", "furo", "sphinx_gallery", "sphinx_design", "latex2mathml"):
        pytest.importorskip(module)
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent  # one build for all workers
    built, said = shared / "site", shared / "site.txt"
    with FileLock(shared / "site.lock"):
        if not said.exists():
            command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
            done = subprocess.run(
                [*command, str(ROOT / "docs"), str(built)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **_WITHOUT},
                capture_output=True,
                text=True,
            )
            said.write_text(f"{done.returncode}\n{done.stderr}")
    code, _, warnings = said.read_text().partition("\n")
    assert code == "0", warnings
    return Site.read(built)


def test_every_link_within_the_site_leads_somewhere(site: Site) -> None:
    dead = []
    for name, page in site.pages.items():
        for link in page.links:
            found = site.target(name, link)
            if found is None:
                continue
            path, anchor = found
            if not (site.root / path).is_file() or (
                anchor and path in site.pages and anchor not in site.pages[path].ids
            ):
                dead.append(f"{name}: {link}")
    assert not dead


def test_every_page_can_be_reached_from_the_first(site: Site) -> None:
    reached, todo = set(), ["index.html"]
    while todo:
        name = todo.pop()
        if name in site.pages and name not in reached:
            reached.add(name)
            todo += [found[0] for link in site.pages[name].links if (found := site.target(name, link))]
    assert set(site.pages) - reached <= {"search.html", "genindex.html"}


def test_every_picture_has_a_text_that_stands_for_it(site: Site) -> None:
    bare = [
        f"{name}: {image.get('src')}"
        for name, page in site.pages.items()
        for image in page.images
        if not (image.get("alt") or "").strip() or image["alt"] == image.get("src")
    ]
    assert not bare


def test_nothing_is_fetched(site: Site) -> None:
    fetched = [
        f"{name}: {place}" for name, page in site.pages.items() for place in page.loaded if "//" in place
    ]
    for style in site.root.rglob("*.css"):
        fetched += re.findall(r"url\(\s*['\"]?((?:https?:)?//[^)]*)", style.read_text())
    assert not fetched


@pytest.mark.parametrize("module", ["nm_ode", "nm_ode.plots", "nm_ode.data", "nm_ode.models"])
def test_every_public_name_is_in_the_reference(site: Site, module: str) -> None:
    loaded = importlib.import_module(module)
    names = {f"{module}.{name}" for name in loaded.__all__ if not hasattr(getattr(loaded, name), "__path__")}
    assert names - site.names <= {"nm_ode.plots"}


@pytest.mark.parametrize("document", ["theory", "design", "bridge"])
def test_numbered_sections_and_equations_have_anchors(site: Site, document: str) -> None:
    text = (ROOT / "docs" / f"{document}.md").read_text()
    sections = re.findall(r"^##+ (\d+(?:\.\d+)?)\.? ", text, re.MULTILINE)
    wanted = {f"s{number.replace('.', '-')}" for number in sections}
    if document == "theory":
        equations = re.findall(r" \((\d\.\d+)\)$", text, re.MULTILINE)
        wanted |= {f"eq-{number.replace('.', '-')}" for number in equations}
    assert wanted
    assert wanted <= site.pages[f"{document}.html"].ids


def test_no_markup_of_docstrings_is_left(site: Site) -> None:
    left = []
    for name, page in site.pages.items():
        if name.startswith("reference/"):
            text = "".join(page.said)
            left += [
                f"{name}: …{text[max(0, at.start() - 40) : at.end() + 20]}…" for at in _MARKUP.finditer(text)
            ]
    assert not left


_MARKUP = re.compile(r"`|:py:|\*\*\w[^*\n()]*\*\*|docs/\w+\.md §|Annotated\[|~\w|\\")


def _rows(page: Path) -> list[list[str]]:
    """The cells of a page's tables, as texts."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page.read_text(), re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]
    return [
        ["".join(Page(f"<p>{cell}</p>".replace("<code", "<b").replace("</code", "</b")).said) for cell in row]
        for row in cells
        if row
    ]


def test_every_key_of_a_case_is_there_and_says_what_it_is(site: Site) -> None:
    rows = _rows(site.root / "reference" / "case_file.html")
    keys = {row[0].strip(): row[-1].strip() for row in rows}
    wanted = set(schema.Case.model_fields)
    for table in (schema.Training, schema.Solver, schema.SymmetriesTable, schema.StabilityTable):
        wanted |= set(table.model_fields)
    for kind in (
        entries.ModelTable,
        entries.DataTable,
        entries.OptimizerTable,
        entries.FlowTable,
        entries.ObserverTable,
    ):
        for name in kind.registry:
            wanted |= set(kind.options_of(kind.registry[name]))
    assert wanted - set(keys) == set()
    assert [row for row in rows if not row[-1].strip()] == []


def test_every_command_and_option_is_there(site: Site) -> None:
    page = site.root / "reference" / "command_line.html"
    options = {name.strip() for row in _rows(page) for name in row[0].split(",")}
    for name, command in get_command(app).commands.items():
        assert f"nm-ode-{name}" in site.pages["reference/command_line.html"].ids or hasattr(
            command, "commands"
        )
        for parameter in command.params:
            wanted = {option for option in parameter.opts if option.startswith("--")}
            assert wanted - {"--help"} <= options
