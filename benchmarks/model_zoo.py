"""Symmetries of named architectures: what is found, in what time, and whether it is right and all.

    python benchmarks/model_zoo.py [NAME …]       these networks, or all; one line each
    python benchmarks/model_zoo.py --save         and into benchmarks/results/model_zoo.json

`make pages` writes docs/zoo.md from that file.

Needs an environment of its own: that of nm_ode and, beside it, transformers, timm and torch_geometric without what they
would install (docs/zoo.md says how). Each network is small, of random weights, and runs in a process of its own.

Time and memory are of `symmetries_of`, verification included. Two judges that share nothing with the rules look at what
was found (zoo/judge.py): every generator is carried a finite way, and a numerical search says what else is conserved.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from measuring import environment
from zoo import convolutions, fields, generating, graphs, language, recommending, seeing, sequences  # noqa: F401
from zoo.expected import EXPECTED
from zoo.judge import Conserved, Judged, conserved_of, search, unsound
from zoo.registry import ZOO, built

from nm_ode import Problem
from nm_ode.studies.versions import git_commit
from nm_ode.symmetries import KINDS, symmetries_of

MOST_SECONDS = 300.0
RESULTS = Path(__file__).parent / "results" / "model_zoo.json"


def found_of(name: str, judge: bool = True) -> dict[str, Any]:
    """One network's row."""
    entry, net = ZOO[name], built(name)
    row: dict[str, Any] = {
        "name": name,
        "family": entry.family,
        "source": entry.source,
        "loss": entry.loss,
        "commit": git_commit(),
        "parameters": sum(p.numel() for p in net.model.parameters() if p.requires_grad),
    }
    before, start = _peak(), time.perf_counter()
    try:
        dtype = torch.float32 if net.single else torch.float64
        problem = Problem.from_objective(net.model, net.objective, net.batch, dtype=dtype)
        row["seconds_problem"] = time.perf_counter() - start
        start = time.perf_counter()
        found = symmetries_of(problem)
    except Exception as error:
        row["refused"] = f"{type(error).__name__}: {error}"
        row["trace"] = traceback.format_exc()[-1500:]
        symmetries: Any = ()
    else:
        row["charges"] = {kind: found.n_charges(kind) for kind in KINDS}
        row["symmetries"] = [str(s) for s in found]
        row["defects"], row["left_out"] = list(found.defects), list(found.left_out)
        symmetries = found
    row["seconds"] = time.perf_counter() - start
    row["peak_mb"] = (_peak() - before) / 2**10
    if judge:
        start = time.perf_counter()
        try:
            judged = Judged(net)
            row["unsound"] = unsound(judged, symmetries)
            space = _space(name, judged)
            row["search"] = None if space is None else vars(search(judged, space, symmetries))
        except Exception as error:
            row["judge"] = f"{type(error).__name__}: {error}"
            row["judge_trace"] = traceback.format_exc()[-1500:]
        row["seconds_judge"] = time.perf_counter() - start
    return row


def _space(name: str, judged: Judged) -> Conserved | None:
    """What is conserved does not depend on what is found: kept from run to run where NM_ODE_ZOO_CACHE is a folder."""
    folder = os.environ.get("NM_ODE_ZOO_CACHE")
    path = Path(folder or ".") / f"{name.replace(' ', '_').replace('/', '_')}.pt"
    if folder and path.exists():
        return torch.load(path, weights_only=False)  # type: ignore[no-any-return]
    if folder and "--no-search" in sys.argv:
        return None
    space = conserved_of(judged)
    if folder:
        torch.save(space, path)
    return space


def _peak() -> float:
    """The most memory of this process so far, KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def _child(name: str, judge: bool, end: Connection) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    end.send(found_of(name, judge))


def apart(name: str, judge: bool = True) -> dict[str, Any]:
    """In a process of its own, for its memory and against hanging."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(name, judge, there))
    process.start()
    there.close()
    row: dict[str, Any] = {
        "name": name,
        "refused": f"no answer in {MOST_SECONDS:.0f} s",
        "seconds": MOST_SECONDS,
    }
    try:
        if here.poll(MOST_SECONDS):
            row = here.recv()
    except EOFError:
        row["refused"] = "the process died"
    process.kill()
    process.join()
    return row


def line(row: dict[str, Any]) -> str:
    """For the terminal."""
    charges = row.get("charges", {})
    text = f"{row['name']:42s} P={row.get('parameters', 0):5d} " + " ".join(
        f"{k[:4]} {v}" for k, v in charges.items()
    )
    text += f" | {row['seconds']:.1f} s {row.get('peak_mb', 0):.0f} MB"
    text += f" | judge {row.get('seconds_judge', 0):.0f} s"
    expected = EXPECTED.get(row["name"])
    if expected is not None and charges:
        text += " | hand: " + ("right" if expected.counts == charges else f"{expected.counts}")
    for name in ("refused", "judge"):
        if name in row:
            text += f"\n    {name}: {row[name]}"
    for name in ("defects", "left_out"):
        for sentence in row.get(name, ()):
            text += f"\n    {name}: {sentence}"
    if row.get("unsound"):
        text += f"\n    UNSOUND {row['unsound']}"
    seen = row.get("search")
    if seen:
        text += f" | conserved {seen['conserved']}, explained {seen['explained']}, beyond {seen['beyond']}"
        if seen["unexplained"]:
            text += f"\n    MISSED {seen['conserved'] - seen['explained']}: {'; '.join(seen['unexplained'])}"
    return text


def main(arguments: list[str]) -> None:
    names = [a for a in arguments if not a.startswith("-")] or list(ZOO)
    kept = json.loads(RESULTS.read_text())["networks"] if RESULTS.exists() else []
    rows = {row["name"]: row for row in kept if row["name"] in ZOO}
    for name in names:
        rows[name] = apart(name, "--fast" not in arguments)
        print(line(rows[name]), flush=True)
        if "-v" in arguments:
            print("\n".join(rows[name].get("symmetries", ())))
        if "--save" in arguments:  # those of other networks stay
            ordered = [rows[one] for one in ZOO if one in rows]
            text = json.dumps({"environment": environment(), "networks": ordered}, indent=1)
            RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
