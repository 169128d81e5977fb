"""What every benchmark here shares: the environment that its figures belong to, and ratios taken in one run."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nm_ode.studies.versions import git_commit, versions


def environment() -> dict[str, str | int]:
    return {
        **versions(),
        "commit": git_commit(),
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count() or 0,
        "torch_threads": torch.get_num_threads(),
        "processor": _processor(),
        "allocator": "keeps pages" if "MALLOC_TRIM_THRESHOLD_" in os.environ else "default",
    }


def keep_pages() -> None:
    """Start this program again with a C allocator that gives no memory back to the system.

    By default glibc returns and fetches the pages of every large activation anew, or not, as the heap happens to
    lie: ten percent either way, on whichever side of a comparison it falls.
    """
    held = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
    if any(name not in os.environ for name in held):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **held})


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def paired_ratio(one: Callable[[], object], other: Callable[[], object], repeats: int) -> dict[str, float]:
    """Time of `one` over time of `other`, taken in turns so that a noisy machine is noisy for both."""
    one(), other()  # warm
    pairs = []
    for i in range(repeats):
        # The second of a pair finds warmer caches: take turns at being second.
        if i % 2:
            b, a = seconds(other), seconds(one)
        else:
            a, b = seconds(one), seconds(other)
        pairs.append((a, b))
    ratios = sorted(a / b for a, b in pairs)
    return {
        "ratio_median": statistics.median(ratios),
        "ratio_quartiles": [ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]],
        "ms": 1e3 * statistics.median(a for a, _ in pairs),
        "ms_other": 1e3 * statistics.median(b for _, b in pairs),
    }


def saved(name: str) -> dict[str, Any]:
    """What was saved before; nothing, if nothing was."""
    path = Path(__file__).parent / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def stamp() -> dict[str, object]:
    """For a part that is measured apart from the rest of its file."""
    return {name: environment()[name] for name in ("commit", "date")}


def report(
    name: str, compares: str, results: dict[str, object], of: dict[str, str | int] | None = None
) -> None:
    """Print as JSON; with --save, also into benchmarks/results/<name>.json. `of`: where most of it was measured."""
    text = json.dumps(
        {"benchmark": name, "compares": compares, "environment": of or environment(), **results}, indent=1
    )
    print(text)
    if "--save" in sys.argv:
        folder = Path(__file__).parent / "results"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.json").write_text(text + "\n")
