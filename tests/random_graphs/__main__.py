"""How many charges are found in random networks, and what of them is wrong; or what is missed.

python -m tests.random_graphs --seeds 0 2000               soundness: about a second a network
python -m tests.random_graphs --seeds 0 100 --complete     what a numerical search finds beside: some seconds each
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from nm_ode.symmetries import SymmetryError
from tests.random_graphs.completeness import scanned
from tests.random_graphs.losses import draw
from tests.random_graphs.minimise import minimised
from tests.random_graphs.program import Program
from tests.random_graphs.soundness import judged


def _smallest(program: Program, seed: int) -> str:
    small = minimised(program, lambda candidate: bool(judged(candidate, seed=seed).unsound))
    seen = judged(small, seed=seed)
    lines = [str(small), *(f"# {s}" for s in seen.symmetries), *(f"# unsound: {u}" for u in seen.unsound)]
    return "\n".join(lines) + "\n"


def _soundness(seed: int, counts: Counter[str], failures: Path | None) -> dict[str, Any]:
    program = draw(seed)
    seen = judged(program, seed=seed)
    counts["undecided"] += not seen.decided
    counts["with symmetries"] += bool(seen.symmetries)
    for s in seen.symmetries:
        counts[f"charges of {s.kind}"] += s.count
    if not seen.unsound:
        return {}
    counts["unsound"] += 1
    if failures is not None:
        failures.mkdir(parents=True, exist_ok=True)
        (failures / f"seed{seed}.txt").write_text(_smallest(program, seed))
    return {"unsound": [str(one) for one in seen.unsound]}


def _completeness(seed: int, counts: Counter[str]) -> dict[str, Any]:
    scan = scanned(draw(seed), seed=seed)
    if scan is None:
        counts["too large"] += 1
        return {}
    for kind, (conserved, explained) in scan.kinds.items():
        counts[kind] += conserved
        counts[f"{kind} explained"] += explained
    return {"unexplained": [str(one) for one in scan.unexplained]} if scan.unexplained else {}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.random_graphs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 2000), metavar=("FIRST", "END"))
    parser.add_argument("--complete", action="store_true", help="a numerical search in the small ones")
    parser.add_argument("--failures", type=Path, help="a folder for what is unsound, made smaller")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of torch, about what a user would not write
    started, counts = time.monotonic(), Counter[str]()

    def tell(**what: Any) -> None:
        print(json.dumps(what), flush=True)

    for seed in range(*arguments.seeds):
        try:
            told = (
                _completeness(seed, counts)
                if arguments.complete
                else _soundness(seed, counts, arguments.failures)
            )
            counts["graphs"] += 1
        except SymmetryError as error:
            counts["refused"] += 1
            told = {"refused": str(error)[:300]}
        except Exception as error:
            counts["crashed"] += 1
            told = {"crashed": f"{type(error).__name__}: {error}"[:300]}
        if told:
            tell(seed=seed, **told)
        if seed % 50 == 49:
            tell(seed=seed, seconds=round(time.monotonic() - started), **counts)
    tell(seconds=round(time.monotonic() - started), **counts)


if __name__ == "__main__":
    main()
