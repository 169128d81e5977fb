"""cases/sweep_lr_momentum.toml as a user writes it without `nm-ode run`: nm_ode's functions in a loop of joblib's.

    python benchmarks/own_script.py [workers] [csv file]

For comparison (docs/batch.md): how long such a script is, and what is left of it after kill -9. This is the plain
form, which most scripts have: results are gathered in memory, and written at the end. Each step towards what the
command does (a file a member, written as a whole; what is whole is not repeated; a training that goes on from its
checkpoint; a failed member that does not end the loop; other machines; a page) is code of its own.
"""

from __future__ import annotations

import itertools
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import torch
from joblib import Parallel, delayed
from torch import nn

import nm_ode
from nm_ode.data import digits
from nm_ode.flows import SlowManifoldFlow
from nm_ode.models import mlp

LRS = [2.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625]
MOMENTA = [0.0, 0.3, 0.5, 0.7, 0.8, 0.9]


def member(lr: float, momentum: float) -> dict[str, float]:
    """One member: train, solve both flows, compare."""
    torch.set_num_threads(1)
    data = digits(256)
    problem = nm_ode.Problem(mlp([64, 16, 10], "tanh", seed=0), nn.functional.cross_entropy, (data.x, data.y))
    sgd = nm_ode.SGD(lr=lr, momentum=momentum)
    warm = nm_ode.train(problem, sgd, round(4 / lr), save_every=round(4 / lr))
    run = nm_ode.train(
        problem, sgd, round(8 / lr), state0=nm_ode.final_state(warm), observe=[nm_ode.Curvature(6)]
    )
    row = {
        "lr": lr,
        "momentum": momentum,
        "final_loss": float(run.full_loss[-1]),
        "sharpness": float(run.normalised_sharpness.max()),
    }
    for flow in (SlowManifoldFlow(problem, sgd, 1), nm_ode.modified_flow(problem, sgd, 2)):
        solution = nm_ode.solve(flow, run, rtol=1e-8)
        last, name = nm_ode.compare(run, solution).isel(saved_step=-1), nm_ode.solve_info(solution).flow
        row |= {f"{key}.{name}": float(last[key]) for key in ("error", "relative_error", "solver_error")}
    return row


if __name__ == "__main__":
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    rows = Parallel(n_jobs=workers)(delayed(member)(*pair) for pair in itertools.product(LRS, MOMENTA))
    frame = pd.DataFrame(rows)
    frame.to_csv(sys.argv[2] if len(sys.argv) > 2 else "sweep.csv", index=False)
    print(frame)
