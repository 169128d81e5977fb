"""The numbers of README and of the benchmarks' page: each is read from a result, and is what that says now."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pages() -> Iterator[ModuleType]:
    """benchmarks/pages.py, which finds its own modules beside it."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import pages

        yield pages
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md", "docs/central_flow.md", "docs/zoo.md"])
def test_a_page_says_what_the_results_say(pages: ModuleType, page: str) -> None:
    assert page in pages.PAGES
    assert text(page) == pages.written(page), "say make pages"


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md"])
def test_every_number_has_a_source(pages: ModuleType, page: str) -> None:
    assert pages.marks.unsourced(text(page)) == []


@pytest.mark.parametrize(
    "sentence",
    ["It is 3 times faster.", "It takes 1.14 of it.", "within 10⁻² of it", "some 40 %, or so", "(~5e-3)"],
)
def test_a_number_without_a_source_is_seen(pages: ModuleType, sentence: str) -> None:
    assert pages.marks.unsourced(f"# Page\n\nSome words. {sentence}\n")


def test_names_code_and_addresses_have_no_numbers(pages: ModuleType) -> None:
    page = "VGG-16, DOP853 and `rtol=1e-3` in [x](https://a.b/12) on Python 3.11.\n```\n1.5 s\n```\n"
    assert pages.marks.unsourced(page) == []


def test_a_number_that_is_not_the_results_is_written_over(pages: ModuleType) -> None:
    stated = text("README.md")
    wrong = re.sub(r"(<!--=recorder.most-->)[\d.]+", r"\g<1>0.1", stated)
    assert wrong != stated
    assert pages.marks.filled(wrong, pages.FILLED["README.md"]) == stated


def test_mistakes_in_a_page_are_told(pages: ModuleType) -> None:
    with pytest.raises(KeyError, match="moost"):
        pages.marks.filled("It takes <!--=recorder.moost--><!--/-->.", pages.FILLED["README.md"])
    with pytest.raises(ValueError, match="begins a line"):
        pages.marks.filled("It takes\n<!--=recorder.most--><!--/-->.", pages.FILLED["README.md"])


def test_a_value_is_the_one_in_the_file(pages: ModuleType) -> None:
    """Read here by hand, of one file."""
    saved = json.loads(text("benchmarks/results/recorder.json"))["networks"]
    most = max(one["beside_the_bare_loop"]["everything"]["share_of_a_step"] for one in saved)
    assert pages.FILLED["README.md"]["recorder.most"]() == f"{100 * most:.1f}\u202f%"


@pytest.mark.parametrize(
    ("value", "digits", "written"),
    [
        (0.0424, 2, "0.042"),
        (1.137, 3, "1.14"),
        (95.6, 2, "96"),
        (17234.0, 2, "17\u202f234"),
        (3.1e-5, 2, "3.1e−5"),
    ],
)
def test_numbers_are_written_to_their_digits(
    pages: ModuleType, value: float, digits: int, written: str
) -> None:
    assert pages.results.number(value, digits) == written


def test_the_readmes_python_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ((code, printed),) = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text("README.md"), re.DOTALL)
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "README.md", "exec"), {})
    assert out.getvalue() == printed
