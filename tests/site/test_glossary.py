"""The glossary has every name and no other, and texts say its words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from bridges.engines import ENGINES
from nm_ode.charges import LAWS
from nm_ode.comparison.study.numbers import DESCRIBED as OF_MEMBERS
from nm_ode.data import DATA
from nm_ode.flows import FLOWS
from nm_ode.models import MODELS
from nm_ode.models.activations import ACTIVATIONS
from nm_ode.observers import OBSERVERS
from nm_ode.optimizers import OPTIMIZERS, SCHEDULES
from nm_ode.registry import Registry
from nm_ode.results.schema import DESCRIBED
from nm_ode.studies.losses import LOSSES
from nm_ode.studies.reductions import REDUCTIONS
from nm_ode.symmetries import KINDS
from tests.site.measured import AXES, OWN, datasets

ROOT = Path(__file__).resolve().parents[2]
REGISTRIES: dict[str, Registry] = {
    "Optimisers": OPTIMIZERS,
    "Schedules": SCHEDULES,
    "Flows": FLOWS,
    "Engines": ENGINES,
    "Kinds of symmetry": KINDS,
    "Laws": LAWS,
    "Observers": OBSERVERS,
    "Reductions": REDUCTIONS,
    "Losses": LOSSES,
    "Models": MODELS,
    "Activations": ACTIVATIONS,
    "Data sets": DATA,
}
_CELLS = re.compile(r"(?<!\\)\|")
_CODE = re.compile(r"^ *>>> .*?(?=\n *\n|\Z)|`+[^`]*`+", re.DOTALL | re.MULTILINE)


@cache
def glossary() -> str:
    return (ROOT / "docs/glossary.md").read_text()


def section(title: str, level: str = "##") -> str:
    """What is below a title, up to the next of its level."""
    found = re.search(
        rf"^{level} {re.escape(title)}\n(.*?)(?=^{level} |\Z)", glossary(), re.DOTALL | re.MULTILINE
    )
    assert found, title
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of a section's tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    cells = [[cell.strip().replace("\\|", "|") for cell in _CELLS.split(line)[1:-1]] for line in lines]
    return [row for row in cells if row[0] not in ("name", "said")]


@cache
def variables() -> dict[str, tuple[str, str, str]]:
    """Name → along, unit, what it is."""
    names = section("Names in the tree")
    return {row[0].strip("`"): (row[1], row[2], row[3]) for row in rows(names) if len(row) == 4}


def line_of(name: str) -> str | None:
    """The name's line, which may be that of a pattern: `<law>_response`."""
    if name in variables():
        return name
    patterns = [one for one in variables() if "<" in one]
    return next((one for one in patterns if re.fullmatch(re.sub("<.*?>", ".+", one), name)), None)


@pytest.mark.parametrize("title", REGISTRIES)
def test_each_registry_has_a_table_of_all_its_names(title: str) -> None:
    named = [row[0].strip("`") for row in rows(section(title, "###").partition("\n#")[0])]
    assert sorted(named) == sorted(REGISTRIES[title])


def test_every_name_in_a_result_has_a_line_that_is_right_of_it(tmp_path: Path) -> None:
    dimensions = {row[0].strip("`") for row in rows(section("Names in the tree")) if len(row) == 2}
    patterns = "|".join(re.sub("<.*?>", "[a-z_]+", one) for one in dimensions)
    wrong, seen, along_seen = [], set(), set()
    for dataset in datasets(tmp_path):
        along_seen |= set(map(str, dataset.dims)) - AXES
        wrong += [
            f"no dimension `{dim}`"
            for dim in dataset.dims
            if dim not in AXES and not re.fullmatch(patterns, str(dim))
        ]
        for name, found in dataset.variables.items():
            if name in OWN | AXES:
                continue
            unit, what = found.attrs["units"] or "–", found.attrs["long_name"]
            line = line_of(str(name))
            seen.add(line)
            if line is None:
                along = ", ".join(f"`{dim}`" for dim in found.dims) or "–"
                wrong.append(f"no line | `{name}` | {along} | {unit} | {what} |")
                continue
            along, said_unit, said = variables()[line]
            missing = [dim for dim in found.dims if dim not in AXES | {"member", "charge_class"}]
            missing = [dim for dim in missing if "<" not in line and f"`{dim}`" not in along]
            same = "<" in line or _plain(said) == _plain(what) or name in AXES
            if missing or said_unit != unit or not same:
                wrong.append(
                    f"`{name}`: along {found.dims}, unit {unit}, {what}; the glossary says {variables()[line]}"
                )
    assert not wrong, "\n".join(dict.fromkeys(wrong))
    beyond = set(variables()) - seen - set(DESCRIBED) - set(OF_MEMBERS)
    assert not beyond, f"lines of no name: {beyond}"
    unused = {
        one
        for one in dimensions
        if not any(re.fullmatch(re.sub("<.*?>", ".+", one), dim) for dim in along_seen)
    }
    assert unused <= AXES, f"dimensions of nothing: {unused}"


def _plain(text: str) -> str:
    """Without what depends on the run: numbers of samples, and what is said in brackets of them."""
    return re.sub(r"\b(\d+|n) (?=held-out)", "", re.sub(r" \(BatchNorm.*\)", "", text))


def test_every_described_name_has_a_line_that_is_right_of_it() -> None:
    described = {name: (one.long_name, one.units) for name, one in OF_MEMBERS.items()} | DESCRIBED
    wrong = [
        f"| `{name}` | … | {unit or '–'} | {what} |"
        for name, (what, unit) in described.items()
        if variables().get(name, ("", "", ""))[1:] != (unit or "–", what)
    ]
    assert not wrong, "the glossary's lines should be\n" + "\n".join(wrong)


def texts() -> Iterator[tuple[str, str]]:
    """Where, and what a reader is told: messages, help, docstrings, templates, pages and cases; without code."""
    for package in ("nm_ode", "bridges"):
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix == ".jinja":
                yield str(path), path.read_text()
            if path.suffix == ".py":
                for node in ast.walk(ast.parse(path.read_text())):
                    if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                        yield f"{path}:{node.lineno}", _CODE.sub("`", node.value)
    pages = [page for page in (ROOT / "docs").rglob("*.md") if page.name != "changelog.md"]
    for page in [*pages, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        prose = re.sub(r"^ *```\w*\n.*?^ *```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        yield str(page), re.sub("`[^`]*`", "`", prose).partition("## One word for one thing")[0]
    for case in (ROOT / "cases").glob("*.toml"):
        yield str(case), "\n".join(re.findall(r"#.*|^title = .*", case.read_text(), re.MULTILINE))


def _as_written(word: str) -> str:
    """A pattern for it, over lines' ends too; capitals are heeded, for `hvps` is an argument and HVPs are a word."""
    pattern = re.escape(word).replace(r"\ ", r"\s+")
    return pattern if word == word.lower() else f"(?-i:{pattern})"


def test_the_glossarys_word_is_said_and_not_another() -> None:
    pairs = [
        (other, said)
        for said, others in rows(section("One word for one thing"))
        for other in others.split(", ")
    ]
    words = [_as_written(other) for other, _ in pairs]
    any_word = re.compile(rf"(?<![\w.'-])(?:{'|'.join(words)})(?![\w.(=-])", re.IGNORECASE)
    instead = {other.lower(): said for other, said in pairs}
    found = [
        f"{place}: {' '.join(one[0].split())!r}, where the glossary says {instead[' '.join(one[0].lower().split())]!r}"
        for place, text in texts()
        for one in any_word.finditer(text)
    ]
    assert len(pairs) > 40
    assert not found, "\n".join(found)
