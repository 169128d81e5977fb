"""Engine "torch" holds the vectors that its methods state, and no more: the peak memory of a process that solves."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bridges import get_engine

METHODS = get_engine("torch").methods
SIZE = 2_000_000

SCRIPT = """
import json, sys
import numpy as np, torch
from bridges import OdeProblem, get_engine

torch.set_num_threads(1)
size = int(sys.argv[1])
engine, y0, found = get_engine("torch"), torch.ones(size, dtype=torch.float64), {}

def rhs(t, y, dy):
    torch.mul(y, -1.5, out=dy)

def memory(of):
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(of))

def solve(start, dtype, name):
    step = 0.5 if engine.methods[name].step == "required" else None
    times = np.array([0.0, 1.0] if step is None else [0.0, 0.3, 1.0])
    problem = OdeProblem(rhs, start, times, rtol=1e-2, atol=1e-5, step=step, field_dtype=dtype)
    assert engine.solve(problem, name, lambda i, t, y: None).status == "success"

for dtype in ("float64", "float32"):
    for name in engine.methods:
        solve(y0[:100_000], dtype, name)
        open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
        before = memory("VmRSS")
        solve(y0, dtype, name)
        found[f"{name} {dtype}"] = (memory("VmHWM") - before) / size
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def bytes_an_entry() -> dict[str, float]:
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not say a process's peak memory anew")
    # Freed vectors go back to the system at once: what is measured is what is held.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(SIZE)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("method", METHODS)
def test_a_solve_holds_the_vectors_that_are_stated(bytes_an_entry, method: str, dtype: str) -> None:
    of_state, of_field = METHODS[method].vectors
    stated = 8 * of_state + (8 if dtype == "float64" else 4) * of_field
    assert stated - 2.5 < bytes_an_entry[f"{method} {dtype}"] < stated + 3.5  # one vector more is 4 or 8
