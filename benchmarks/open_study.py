"""What opening a study of a thousand members costs: seconds, and memory of a process of its own; and reading of it.

    python benchmarks/open_study.py [members]

Four members are computed, at four learning rates with the same final time, and copied as if they had other seeds.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import report
from nm_ode.results import Identity
from nm_ode.results.study import Axis, Place, StudyRecord, StudyStore
from nm_ode.studies import find_case, load_case, run_case

FACTORS = (1, 2, 4, 8)
OPEN = """
import json, sys, time
from pathlib import Path
import nm_ode.results
import xarray as xr
xr.open_dataset  # xarray's own imports are not the study's
def peak():  # in KiB; getrusage's would be that of the process that started this one, if that was larger
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0])

before = peak()
start, busy = time.perf_counter(), time.process_time()
tree = nm_ode.results.open_study(sys.argv[1], **json.loads(sys.argv[2]))
opened, busy = time.perf_counter() - start, time.process_time() - busy
after = peak()
start = time.perf_counter()
loss = tree["discrete/loss"].isel({tree["discrete/loss"].dims[2]: -1}).load()
series = time.perf_counter() - start
start = time.perf_counter()
one = tree["discrete/theta"].isel(lr=0, seed=0).load()
member = time.perf_counter() - start
print(json.dumps({
    "members": int(tree["whole"].sum()), "variables": sum(len(node.data_vars) for node in tree.subtree),
    "open_s": opened, "open_cpu_s": busy, "open_mib": (after - before) / 1024, "process_mib": after / 1024,
    "loss_of_all_s": series, "theta_of_one_s": member,
}))
"""


def make(folder: Path, members: int) -> Path:
    """A study of so many members, in a folder."""
    seeds = tuple(range(members // len(FACTORS)))
    text = find_case("diabetes_linear").read_text()
    case = folder / "study.toml"
    case.write_text(text.replace('name = "diabetes_linear"', 'name = "study"'))
    loaded = load_case(case)
    lrs = tuple(loaded.optimizer.lr / factor for factor in FACTORS)
    record = StudyRecord(
        name="study",
        title="A study to be opened",
        case=loaded.model_dump(mode="json"),
        case_file=case.name,
        case_text=text,
        axes=(Axis("lr", {"optimizer.lr": lrs}), Axis("seed", {"seed": seeds})),
        members=tuple(
            Place(f"lr={lr},seed={seed}", (i, seed), {"optimizer.lr": lr, "seed": seed})
            for i, lr in enumerate(lrs)
            for seed in seeds
        ),
    )
    store = StudyStore.at(folder, "study")
    store.begin(record)
    for factor, lr in zip(FACTORS, lrs, strict=True):
        out = folder / f"at{factor}"
        changed = loaded.model_dump(mode="json")
        changed["optimizer"]["lr"] = lr
        changed["training"]["steps"] *= factor
        changed["training"]["save_every"] = (changed["training"]["save_every"] or 1) * factor
        member = type(loaded).model_validate(changed)
        made = run_case(member, case, out)
        for place in record.members:
            if place.values["optimizer.lr"] == lr:
                working = store.working(place.name)
                working.parent.mkdir(parents=True)
                subprocess.run(["cp", "-r", str(made.store), str(working)], check=True)
                assert store.is_ready(place.name, Identity(member.model_dump(mode="json")))
                store.commit(place.name)
    return Path(store.place(""))


def main() -> None:
    members = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 1000
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        study = make(Path(folder), members)
        results["making_s"] = time.perf_counter() - start
        for name, options in (("open_study", {}), ('align="time"', {"align": "time"})):
            done = subprocess.run(
                [sys.executable, "-c", OPEN, str(study), json.dumps(options)],
                capture_output=True,
                text=True,
                check=True,
            )
            results[name] = json.loads(done.stdout)
        results["files"] = sum(len(names) for _, _, names in os.walk(study))
    results["peak_mib_of_the_making"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report("open_study", "a study of many members, opened by a process of its own", results)


if __name__ == "__main__":
    main()
