"""The pages' own code: each page's Python runs from top to bottom, and its case files are case files."""

from __future__ import annotations

import re
import runpy
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.registries import restored

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(page for folder in ("start", "concepts", "howto") for page in (DOCS / folder).glob("*.md"))
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)
_NUMBER = re.compile(r"[-−]?\b\d+(?:\.\d*)?(?:e[-+]?\d+)?")
_END = "end of block"


def blocks(page: Path, language: str) -> list[str]:
    return [found["text"] for found in _FENCE.finditer(page.read_text()) if found["language"] == language]


def script(page: Path) -> str:
    """The page's Python, each line where it is in the page, so that a traceback points there."""
    lines: list[str] = []
    text = page.read_text()
    for found in _FENCE.finditer(text):
        if found["language"] == "python":
            lines += [""] * (text.count("\n", 0, found.start("text")) - len(lines))
            lines += [*found["text"].splitlines(), f"print({_END!r})"]
    return "\n".join(lines)


def outputs(page: Path) -> list[str | None]:
    """What the page says that each Python block prints: a text block right after it; None where there is none."""
    said, last = [], None
    for found in _FENCE.finditer(page.read_text()):
        if found["language"] == "python":
            said.append(None)
            last = found
        elif (
            found["language"] == "text" and last and not page.read_text()[last.end() : found.start()].strip()
        ):
            said[-1] = found["text"]
    return said


def same(printed: str, said: str) -> bool:
    """The same words, and numbers as near as they are on another machine: rounding is anything that is as small."""
    if _NUMBER.sub("#", printed).split() != _NUMBER.sub("#", said).split():
        return False
    pairs = zip(map(float, _NUMBER.findall(printed)), map(float, _NUMBER.findall(said)), strict=True)
    return all(
        abs(a - b) <= 0.3 * abs(b) + 0.01 * (abs(b) > 1e-2) or max(abs(a), abs(b)) < 1e-5 for a, b in pairs
    )


def with_blocks(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


def named(page: Path) -> str:
    return str(page.relative_to(DOCS))


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings(), restored():
        yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.parametrize("page", with_blocks("python"), ids=named)
def test_the_python_of_a_page_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    torch.manual_seed(0)
    copy = tmp_path / page.with_suffix(".py").name
    copy.write_text(script(page))
    runpy.run_path(str(copy), run_name="page")
    printed = capsys.readouterr().out.split(f"{_END}\n")
    for found, said in zip(printed[:-1], outputs(page), strict=True):
        assert said is None or same(found, said), f"printed:\n{found}\nthe page says:\n{said}"


@pytest.mark.parametrize("page", with_blocks("toml"), ids=named)
def test_the_toml_of_a_page_is_toml_and_whole_cases_are_cases(page: Path, tmp_path: Path) -> None:
    from nm_ode.studies import load

    for number, text in enumerate(blocks(page, "toml")):
        tables = tomllib.loads(text)
        if {"model", "data", "optimizer"} <= set(tables):
            case = tmp_path / f"case_{number}.toml"
            case.write_text(text)
            load(case)
