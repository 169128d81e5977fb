"""The pages whose numbers are measured, from benchmarks/results: README.md and those of docs/.

    python benchmarks/pages.py            write them (make pages)
    python benchmarks/pages.py --check    say which are not what would be written

README.md and docs/benchmarks.md are written by hand, and their numbers are filled in (written/marks.py has how a number
is marked, written/readme.py and written/benchmarks.py the values); docs/central_flow.md and docs/zoo.md are made whole.
A new number is a line in one of these files, which reads it from a result; a test fails for a number without one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from written import benchmarks, central, marks, readme, results
from zoo.table import document

ROOT = Path(__file__).resolve().parents[1]

FILLED: dict[str, marks.Values] = {
    "README.md": readme.VALUES,
    "docs/batch.md": benchmarks.VALUES,
    "docs/benchmarks.md": benchmarks.VALUES,
}
MADE: dict[str, Callable[[], str]] = {
    "docs/central_flow.md": lambda: central.document(results.read("central_flow")),
    "docs/zoo.md": lambda: document(results.read("model_zoo")["networks"]),
}
PAGES = (*FILLED, *MADE)


def written(page: str) -> str:
    """A page as it should be."""
    if page in MADE:
        return MADE[page]()
    return marks.filled((ROOT / page).read_text(encoding="utf-8"), FILLED[page])


def main(arguments: list[str]) -> int:
    stale = [page for page in PAGES if (ROOT / page).read_text(encoding="utf-8") != written(page)]
    for page in stale:
        if "--check" not in arguments:
            (ROOT / page).write_text(written(page), encoding="utf-8")
        print(page)
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
