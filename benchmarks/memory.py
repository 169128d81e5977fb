"""How much memory a training or a solve takes at its peak, in vectors of P float64.

    python benchmarks/memory.py [P]

Each row is measured in a process of its own, from what is held when the problem is made and the libraries are loaded,
which a tiny training and solve has done. What the first call of a session takes beside this are those libraries:
torch.optim alone imports torch._dynamo, 70 MB. Linux only. Prints JSON.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

ROWS = {
    "train SGD": "theta, gradient, update; theta at two saved steps",
    "train Adam": "the same, two moments, theta as the state before; below 2**20 parameters 3 P as that after",
    "solve scipy RK23": "4 slopes, state, and what SciPy makes of them in a step",
    "solve scipy DOP853": "16 slopes, state, and what SciPy makes of them in a step",
    "solve scipy RK8": "12 slopes, two states, stages",
    "solve sundials BDF": "CVODE: 6 vectors of history, its own 6; GMRES: 6 and more",
}


def main(size: int) -> None:
    """Measure each row."""
    found = {
        row: json.loads(
            subprocess.run(
                [sys.executable, __file__, str(size), row], check=True, stdout=subprocess.PIPE, text=True
            ).stdout
        )
        for row in ROWS
    }
    print(json.dumps({row: {"vectors": value, "of": ROWS[row]} for row, value in found.items()}, indent=1))


def measured(size: int, row: str) -> float:
    """Peak above what was held before, over 8 P bytes."""
    import torch
    from torch import nn

    import nm_ode

    torch.set_num_threads(1)

    def problem(width: int) -> nm_ode.Problem:
        x, y = torch.randn(8, width, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64)
        model = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
        return nm_ode.Problem(model, nn.functional.mse_loss, (x, y))

    what, *which = row.split()

    def work(problem: nm_ode.Problem) -> None:
        if what == "train":
            optimizer = nm_ode.Adam(lr=1e-3) if which == ["Adam"] else nm_ode.SGD(lr=1e-3)
            nm_ode.train(problem, optimizer, 10, save_every=10)
        else:
            engine, method = which
            step = 1e-3 if method == "RK8" else None
            nm_ode.solve(
                nm_ode.GradientFlow(problem), [0.0, 0.01], engine=engine, method=method, step=step, rtol=1e-3
            )

    work(problem(3))
    large = problem(round(size**0.5) - 1)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _kilobytes("VmRSS")
    work(large)
    return round((_kilobytes("VmHWM") - before) * 1024 / (8 * large.layout.size), 1)


def _kilobytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    if len(sys.argv) > 2:
        print(measured(count, sys.argv[2]))
    else:
        main(count)
