"""Evaluations that DOP853, BDF and RKC2 need, those that `bridges.choosing` predicts, and what a wrong choice costs.

The predictions were fitted to a run of this file (three networks, horizons 2 to 300, rtol 1e-3 to 1e-10). A row's
`regret` is the evaluations of the chosen method over those of the better one: 1 where the choice was right;
`regret_on_gpu` the same of DOP853 and RKC2.
"""

from __future__ import annotations

import statistics

import torch
from measuring import report
from networks import progressive, tanh
from torch.nn import functional as F

from bridges import choose
from bridges.choosing import bdf_evaluations, dop853_evaluations, rkc2_evaluations
from nm_ode import GradientFlow, Problem, solve
from nm_ode.data import digits
from nm_ode.models import mlp
from nm_ode.solving.field import Field
from nm_ode.solving.stiffness import spectral_radius


def gelu() -> Problem:
    data = digits(512)
    return Problem(mlp([64, 32, 10], "gelu"), F.mse_loss, (data.x, F.one_hot(data.y, 10).double()))


PROBLEMS = {"tanh, cross-entropy": tanh, "gelu, squared error": gelu, "tanh, squared error": progressive}


def main() -> None:
    torch.manual_seed(0)
    rows = []
    for name, make in PROBLEMS.items():
        problem = make()
        flow = GradientFlow(problem)
        sharpness = spectral_radius(Field(flow), 0.0, problem.theta0.numpy())
        for horizon in (2.0, 8.0, 32.0, 100.0, 300.0):
            for rtol in (1e-3, 1e-4, 1e-6, 1e-8, 1e-10):
                counts = {}
                for engine, method in (("scipy", "DOP853"), ("sundials", "BDF"), ("torch", "RKC2")):
                    solution = solve(
                        flow, [0.0, horizon], engine=engine, method=method, rtol=rtol, record=(), check=False
                    )
                    counts[method] = solution.attrs["rhs_evaluations"]
                stiffness = sharpness * horizon
                chosen = choose(kinks=(), stiffness=stiffness, rtol=rtol).method
                on_gpu = choose(kinks=(), stiffness=stiffness, rtol=rtol, on_gpu=True).method
                rows.append(
                    {
                        "problem": name,
                        "stiffness": round(stiffness, 2),
                        "rtol": rtol,
                        "DOP853": counts["DOP853"],
                        "DOP853_predicted": round(dop853_evaluations(stiffness, rtol)),
                        "BDF": counts["BDF"],
                        "BDF_predicted": round(bdf_evaluations(stiffness, rtol)),
                        "RKC2": counts["RKC2"],
                        "RKC2_predicted": round(rkc2_evaluations(stiffness, rtol)),
                        "chosen": chosen,
                        "regret": round(counts[chosen] / min(counts["DOP853"], counts["BDF"]), 2),
                        "regret_on_gpu": round(counts[on_gpu] / min(counts["DOP853"], counts["RKC2"]), 2),
                    }
                )
    regrets = [row["regret"] for row in rows]
    report(
        "method_choice",
        "right-hand sides of DOP853, CVODE BDF and RKC2 on the same gradient flows",
        {
            "regret_median": statistics.median(regrets),
            "regret_worst": max(regrets),
            "regret_on_gpu_median": statistics.median(row["regret_on_gpu"] for row in rows),
            "regret_on_gpu_worst": max(row["regret_on_gpu"] for row in rows),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
