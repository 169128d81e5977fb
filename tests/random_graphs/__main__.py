"""python -m tests.random_graphs --seeds 0 2000: how many charges were found, and what of them is wrong."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import torch

from nm_ode.symmetries import SymmetryError
from tests.random_graphs.losses import draw
from tests.random_graphs.minimise import minimised
from tests.random_graphs.program import Program
from tests.random_graphs.soundness import judged


def _smallest(program: Program, seed: int) -> str:
    small = minimised(program, lambda candidate: bool(judged(candidate, seed=seed).unsound))
    seen = judged(small, seed=seed)
    lines = [str(small), *(f"# {s}" for s in seen.symmetries), *(f"# unsound: {u}" for u in seen.unsound)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.random_graphs", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 2000), metavar=("FIRST", "END"))
    parser.add_argument(
        "--failures", type=Path, help="a folder for the scripts of what is unsound, minimised"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    counts: Counter[str] = Counter()
    for seed in range(*arguments.seeds):
        program = draw(seed)
        try:
            seen = judged(program, seed=seed)
        except SymmetryError as error:
            counts["refused"] += 1
            print(json.dumps({"seed": seed, "refused": str(error)[:300]}), flush=True)
            continue
        except Exception as error:
            counts["crashed"] += 1
            print(json.dumps({"seed": seed, "crashed": f"{type(error).__name__}: {error}"[:300]}), flush=True)
            continue
        counts["graphs"] += 1
        counts["undecided"] += not seen.decided
        counts["with symmetries"] += bool(seen.symmetries)
        for s in seen.symmetries:
            counts[f"charges of {s.kind}"] += s.count
        if seen.unsound:
            counts["unsound"] += 1
            print(json.dumps({"seed": seed, "unsound": [str(one) for one in seen.unsound]}), flush=True)
            if arguments.failures:
                arguments.failures.mkdir(parents=True, exist_ok=True)
                (arguments.failures / f"seed{seed}.txt").write_text(_smallest(program, seed))
        if seed % 50 == 49:
            print(
                json.dumps({"seed": seed, "seconds": round(time.monotonic() - started), **counts}), flush=True
            )
    print(json.dumps({"seconds": round(time.monotonic() - started), **counts}), flush=True)


if __name__ == "__main__":
    main()
