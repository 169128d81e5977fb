"""Peak memory of what is done with a network of P parameters, as a multiple of the parameters' own bytes.

    python benchmarks/large_memory.py P [--dtype float32] [--rows "train SGD" ...] [--piece 65536]

All rows in one process, one after the other; each peak is the system's own (VmHWM), from before the network was made.
So 1 of each is the caller's network, and 1 the problem's theta0. The network is four wide linear layers with tanh: a
quarter of P is the largest parameter, of which a gradient takes so much beside itself. Linux only. Prints JSON.
`large.py memory` runs each row in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

LAYERS, SAMPLES = 4, 8
OURS = "network, theta0, "
ROWS = {
    "problem": OURS + "another theta at which it is looked at",
    "gradient": OURS + "gradient",
    "first look at the gradient": OURS + "a line's point and direction, gradient",
    "train SGD": OURS + "theta, gradient, update",
    "train SGD momentum": OURS + "theta, gradient, update, velocity, the start of the state",
    "train Adam": OURS + "theta, gradient, update, two moments, the start of the state",
    "train SGD theta": OURS + "theta, gradient, update; theta at two saved steps",
    "train Adam theta": OURS + "as with a sketch; theta at two saved steps",
}
"""Of the trainings all but the last two record a sketch in theta's place."""
SOLVES = {
    "solve torch DOP853": "what the method states",
    "solve torch RK45": "what the method states",
    "solve torch RK23": "what the method states",
    "solve torch RKC2": "what the method states",
    "solve scipy DOP853": "16 slopes in float64, state, and what SciPy makes of them in a step",
    "solve scipy RK23": "4 slopes in float64, state, and what SciPy makes of them in a step",
    "solve sundials BDF": "CVODE: 6 vectors of history in float64, its own 6; GMRES: 6 and more",
    "solve torchdiffeq dopri5": "7 slopes in float64, and copies",
}


def measured(size: int, dtype_name: str, rows: list[str]) -> dict[str, float]:
    """Peaks above what was held before the network was made, over the bytes of P numbers."""
    import torch
    from torch import nn

    import nm_ode

    dtype = getattr(torch, dtype_name)
    torch.set_num_threads(1)

    def network(width: int) -> nn.Module:
        square = [[nn.Linear(width, width, dtype=dtype), nn.Tanh()] for _ in range(LAYERS)]
        return nn.Sequential(*(part for pair in square for part in pair), nn.Linear(width, 1, dtype=dtype))

    def problem(model: nn.Module, width: int) -> nm_ode.Problem:
        x, y = torch.randn(SAMPLES, width, dtype=dtype), torch.randn(SAMPLES, 1, dtype=dtype)
        return nm_ode.Problem(model, nn.functional.mse_loss, (x, y), dtype=dtype)

    work(problem(network(3), 3), rows)  # libraries are loaded, as torch.optim's when a first one is made
    gc.collect()
    width = round((size / LAYERS) ** 0.5)
    before, found = _bytes("VmRSS"), dict[str, float]()
    model = network(width)
    made: list[nm_ode.Problem] = []
    count = sum(parameter.numel() for parameter in model.parameters())

    def peak(name: str, do: Callable[[], object]) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        do()
        found[name] = round((_bytes("VmHWM") - before) / (count * dtype.itemsize), 2)

    peak("problem", lambda: made.append(problem(model, width)))
    for row in rows:
        if row != "problem":
            peak(row, lambda row=row: work(made[0], [row]))
    return {row: found[row] for row in rows}


def work(problem: Any, rows: list[str]) -> None:
    """What each row does."""
    import torch

    import nm_ode

    for row in rows:
        what, *which = row.split()
        if row == "gradient":
            problem.grad(problem.theta0)
        elif row == "first look at the gradient":
            assert problem.foreign_gradient == ""
        elif what == "train":
            adam, momentum = "Adam" in which, 0.9 if "momentum" in which else 0.0
            optimizer = nm_ode.Adam(lr=1e-4) if adam else nm_ode.SGD(lr=1e-4, momentum=momentum)
            sketch = [] if "theta" in which else [nm_ode.Sketch()]
            nm_ode.train(problem, optimizer, 3, save_every=3, observe=sketch)
        elif row == "solve torchdiffeq dopri5":
            from torchdiffeq import odeint

            def rhs(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return problem.grad(y.to(problem.dtype)).neg_().double()

            start, times = problem.theta0.double(), torch.tensor([0.0, 1e-2], dtype=torch.float64)
            odeint(rhs, start, times, method="dopri5", rtol=1e-3, atol=1e-6)
        elif what == "solve":
            engine, method = which
            nm_ode.solve(
                nm_ode.GradientFlow(problem),
                [0.0, 1e-2],
                engine=engine,
                method=method,
                rtol=1e-3,
                record=(),
                check=False,
            )


def shorten_pieces(size: int) -> None:
    """What is done some entries at a time is done so few at a time that a small P shows what a large one takes."""
    from nm_ode.loss import directions, evaluation, sums
    from nm_ode.optimizers import steppers

    directions._DRAWN = directions.PIECE = sums.PIECE = evaluation.IN_PLACE = steppers._PIECE = size


def _bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        # As vectors of 32 MB and more always are: given back to the system as soon as they are freed.
        os.execve(
            sys.executable, [sys.executable, *sys.argv], {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        )
    arguments = argparse.ArgumentParser()
    arguments.add_argument("size", type=float)
    arguments.add_argument("--dtype", default="float32")
    arguments.add_argument("--rows", nargs="+", default=list(ROWS))
    arguments.add_argument("--piece", type=int)
    asked = arguments.parse_args()
    if asked.piece:
        shorten_pieces(asked.piece)
    print(json.dumps(measured(int(asked.size), asked.dtype, asked.rows)))
