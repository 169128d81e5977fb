"""Batches: members an hour, what store and scheduler cost, memory, opening a large study.

    python benchmarks/batch.py [--save] [part …]

Parts: `rate`, `overhead`, `memory`, `opening`, `together`; all by default, else the others stay as they were. Each
command is `nm-ode run` in a process of its own, as a user calls it, on members of cases/sweep_lr_momentum.toml
(P = 1210, training and two flows).

rate      members an hour with one worker process and with two, one thread each: by the difference between a sweep of
          16 members and one of 4, so without the start (the import of torch, the cluster); and of the whole command.
overhead  what a member takes in a worker, with store, scheduler and its page and without the start as above, beyond
          the same training, flows and comparison by nm_ode's functions in one process: seconds, and as a share of 10 s.
          What the page takes of it, drawn again in this process, is said apart: it is no matter of store and scheduler.
memory    the largest resident size of the command and of its worker at 4, 16 and 48 members.
opening   `open_study` of 1000 members in a fresh process: seconds and megabytes beyond the import.
together  64 members of about 2000 parameters trained as one, against a loop of `train`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

from measuring import report, saved, seconds, stamp

ROOT = Path(__file__).parents[1]
CASE = (ROOT / "cases/sweep_lr_momentum.toml").read_text()
COMMAND = [sys.executable, "-c", "from nm_ode.cli import main; main()", "run"]
OPENED = 1000


def sweep(folder: Path, lrs: list[float], momenta: list[float], samples: int = 256) -> Path:
    """The case with fewer members."""
    head = CASE.partition("[sweep]")[0].replace("samples = 256", f"samples = {samples}")
    path = folder / "small.toml"
    path.write_text(
        f'{head}[sweep]\n"optimizer.lr" = {lrs}\n"optimizer.momentum" = {momenta}\n'
        'constraint = ["lr * steps = 8", "lr * warm_steps = 4"]\n'
    )
    return path


def command(case: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """`nm-ode run`, started."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*COMMAND, str(case), "--out", str(out), *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def run(case: Path, out: Path, *options: str) -> float:
    """Seconds of the whole command."""

    def whole() -> None:
        if command(case, out, *options).wait():
            raise RuntimeError(f"nm-ode run {case} failed")

    return seconds(whole)


def rate() -> dict[str, object]:
    """One worker and two: what four members take, and sixteen; the difference is that of twelve without any start."""
    momenta, few, many = [0.0, 0.3, 0.6, 0.9], [0.2], [0.2, 0.25, 0.16, 0.125]
    took: dict[int, dict[int, float]] = {1: {}, 2: {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for lrs in (few, many):
            case = sweep(folder, lrs, momenta, samples=1797)
            for workers in took:
                out = folder / f"{len(lrs)} with {workers}"
                took[workers][len(lrs) * len(momenta)] = run(
                    case, out, "--workers", str(workers), "--threads", "1"
                )
    each = {workers: (found[16] - found[4]) / 12 for workers, found in took.items()}
    return {
        "whole_command_seconds": {str(workers): found for workers, found in took.items()},
        "seconds_a_member": {str(workers): value for workers, value in each.items()},
        "members_an_hour": {str(workers): 3600 / value for workers, value in each.items()},
        "two_over_one": each[1] / each[2],
        "two_over_one_with_start_of_16": took[1][16] / took[2][16],
    }


def overhead() -> dict[str, object]:
    """In a worker, without the start: 16 members less 4; and the same twelve, bare."""
    momenta, few, others = [0.0, 0.3, 0.6, 0.9], [0.2], [0.25, 0.16, 0.125]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        took = [
            run(sweep(folder, lrs, momenta), folder / f"{len(lrs)}", "--workers", "1", "--threads", "1")
            for lrs in (few, few + others)
        ]
        case = sweep(folder, others, momenta)
        bare = [seconds(work) for work in bare_members(case)]
        page = page_seconds(folder / f"{len(few + others)}/sweep_lr_momentum")
    n = len(bare)
    each = (took[1] - took[0] - sum(bare)) / n
    return {
        "members": n,
        "seconds": (took[1] - took[0]) / n,
        "bare_seconds": sum(bare) / n,
        "overhead": each,
        "of_10_s": each / 10,
        "page_seconds": page,
        "of_10_s_without_page": (each - page) / 10,
    }


def page_seconds(study: Path) -> float:
    """What it takes to draw the page of a member, on average, without the first."""
    from nm_ode.reporting.study.members import draw_page, pages_of
    from nm_ode.results.folders import LocalFolder

    folder = LocalFolder(study)
    first, *members = pages_of(folder)
    draw_page(folder, first)
    return sum(seconds(lambda member=member: draw_page(folder, member)) for member in members) / len(members)


def bare_members(case: Path) -> list[Callable[[], object]]:
    """Each member by nm_ode's functions, without store or scheduler."""
    import nm_ode
    from nm_ode.studies import build_study, load_sweep

    def work(member: object) -> Callable[[], object]:
        def whole() -> None:
            study = build_study(member.case, case)
            training, problem, optimizer = member.case.training, study.problem, study.optimizer
            warm = nm_ode.train(problem, optimizer, training.warm_steps, save_every=training.warm_steps)
            run = nm_ode.train(
                problem,
                optimizer,
                training.steps,
                state0=nm_ode.final_state(warm),
                observe=study.curvature(),
            )
            for flow in study.flows_beside(run, optimizer):
                nm_ode.compare(run, nm_ode.solve(flow, run, rtol=1e-8))

        return whole

    found = [work(member) for member in load_sweep(case).members]
    found[0]()  # what is imported at first use
    return found


def memory() -> dict[str, object]:
    """Megabytes at their largest, of the command and of all that it started."""
    found = {}
    for members in (4, 16, 48):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            momenta = [round(k / members, 4) for k in range(members)]
            case = sweep(folder, [1.0], momenta)
            process = command(case, folder / "out", "--workers", "1")
            own, others = watched(process)
            if process.returncode:
                raise RuntimeError(f"nm-ode run failed with {members} members")
        found[str(members)] = {"command_mb": own, "largest_other_mb": others}
    return found


def watched(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Largest resident megabytes of a process, and of the largest of those below it."""
    own, others = 0.0, 0.0
    stop = threading.Event()
    while not stop.wait(0.2) and process.poll() is None:
        own = max(own, peak(process.pid))
        others = max([others, *(peak(child) for child in below(process.pid))])
    return own, others


def below(pid: int) -> list[int]:
    """All processes that a process has started."""
    try:
        threads = Path(f"/proc/{pid}/task").iterdir()
        own = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []
    return own + [deeper for child in own for deeper in below(child)]


def peak(pid: int) -> float:
    """Megabytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


_OPEN = """
import json, sys, time
from pathlib import Path
import nm_ode
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
nm_ode.open_study, nm_ode.study_frame
before, start, cpu = resident(), time.perf_counter(), time.process_time()
tree = nm_ode.open_study(sys.argv[1])
took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu, "mb": resident() - before}
start, cpu = time.perf_counter(), time.process_time()
frame = nm_ode.study_frame(tree)
took |= {"frame_seconds": time.perf_counter() - start, "frame_cpu_seconds": time.process_time() - cpu}
print(json.dumps({**took, "members": len(frame)}))
"""


def opening() -> dict[str, object]:
    """A thousand small members, made by copies of one."""
    # In memory, where there is such a folder: what is measured is the reading.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)
        many_members(folder)
        answer = subprocess.run(
            [sys.executable, "-c", _OPEN, str(folder / "out/many/study.zarr")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
    return dict(json.loads(answer))


def many_members(folder: Path) -> None:
    """A study of OPENED members: one is run, and each has its results under its own name and case."""
    from nm_ode.results import Identity, study_info
    from nm_ode.results.store import StoreWriter
    from nm_ode.results.study import StudyStore
    from nm_ode.studies import load_sweep, run_case

    case = folder / "many.toml"
    head = CASE.partition("[sweep]")[0].replace('name = "sweep_lr_momentum"', 'name = "many"')
    head = head.replace('name = "sgd"', 'name = "sgd"\nlr = 0.5')
    case.write_text(f"{head}[sweep]\nseed = {{ range = {OPENED} }}\n".replace("save_every = 1", "steps = 16"))
    study = load_sweep(case)
    tree = run_case(study.members[0].case, case, folder / "one").tree
    groups = {
        node.path.strip("/"): node.to_dataset()
        for node in tree.subtree
        if node.path != "/" and node.data_vars
    }
    info = study_info(tree)
    store = StudyStore.at(folder / "out", "many")
    store.begin(study.record)
    for member in study.members:
        own = member.case.model_dump(mode="json")
        writer = StoreWriter(store.working(member.name), Identity(own))
        for group, dataset in groups.items():
            writer.write(group, dataset)
        writer.finish(replace(info, case=own, seed=member.case.seed))
        store.commit(member.name)


def together() -> dict[str, object]:
    """64 members of 1 930 parameters, 200 steps of minibatches."""
    from torch import nn

    import nm_ode
    from nm_ode.data import digits
    from nm_ode.models import mlp

    data = digits(512)
    problem = nm_ode.Problem(mlp([64, 25, 12], "tanh", seed=0), nn.functional.cross_entropy, (data.x, data.y))
    sgd, n = nm_ode.SGD(lr=0.1), 64
    options = {"steps": 200, "batch_size": 32, "save_every": 50}

    def one() -> object:
        return nm_ode.train(problem, sgd, members=nm_ode.Members(seed=range(n)), **options)

    def loop() -> None:
        for seed in range(n):
            nm_ode.train(problem, sgd, seed=seed, **options)

    one(), loop()  # of one thread, so the processor's time, which a loaded machine adds little to
    looped, vectorised = (min(processor_seconds(work) for _ in range(3)) for work in (loop, one))
    return {
        "parameters": problem.layout.size,
        "members": n,
        "looped_seconds": looped,
        "vectorised_seconds": vectorised,
        "looped_over_vectorised": looped / vectorised,
    }


def processor_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


PARTS: dict[str, Callable[[], dict[str, object]]] = {
    "rate": rate,
    "overhead": overhead,
    "memory": memory,
    "opening": opening,
    "together": together,
}


if __name__ == "__main__":
    wanted = [name for name in sys.argv[1:] if name in PARTS] or list(PARTS)
    before = saved("batch") if len(wanted) < len(PARTS) else {}
    results: dict[str, object] = {name: before[name] for name in PARTS if name in before}
    for part in wanted:
        start = time.perf_counter()
        results[part] = PARTS[part]() | (stamp() if before else {})
        print(f"{part}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    report(
        "batch",
        "members of a sweep by nm-ode run; see benchmarks/batch.py",
        results,
        before.get("environment"),
    )
