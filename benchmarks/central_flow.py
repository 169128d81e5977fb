"""Past the edge of stability: nm_ode's central flow beside the paper's own scheme, and the table of five seeds.

    python benchmarks/central_flow.py [--save] [rival] [seeds] [seeds=2] [case …]

`rival`: plain descent on 64-32-10 tanh (256 digits, mean squared error, lr 1.0, 600 steps). The same flow by the
paper's scheme (`paper_central_flow`: Euler, one and four substeps, exact third derivatives, float64) and by
`nm_ode.solve`, and gradient flow for scale. `cost` is in gradients a step of the run: a Hessian product counts 3, a
third derivative 5.7, for either side.

`seeds`: `cases/central_*.toml` as they are but for the seed, five of them: each flow's figures with their mean and
their spread (standard deviation) over the seeds.

Distances are those to the run's own time average (θ_{k−1} + 2θ_k + θ_{k+1})/4, over how far that has moved; `after the
jump` is from the first step on of which the next undoes more than half (‖θ_{k+1} − 2θ_k + θ_{k−1}‖ above half of the
lengths of the two), once it has not been so. `own`: the run's distance to its average. `trace`: of Σ, the mean from the
jump on, as measured (‖θ_k − θ̄_k‖²) and as predicted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import report
from networks import tanh_squares
from paper_central_flow import central_path

import nm_ode
from nm_ode.studies import find_case, load_case, run_case

PRICES = {"gradients": 1.0, "hvps": 3.0, "third_derivatives": 5.7}
LR, STEPS, AT = 1.0, 600, (119, 299, 599)
CASES = ("central_digits", "central_diabetes", "central_cnn", "central_rmsprop")


class Reference:
    """A run with all its steps, and its time average at the steps in between."""

    def __init__(self, theta: np.ndarray) -> None:
        self.theta = theta
        self.average = (theta[:-2] + 2 * theta[1:-1] + theta[2:]) / 4
        moved = np.linalg.norm(self.average - theta[0], axis=1)
        self.moved = np.where(moved > 0, moved, np.nan)
        away = theta[1:-1] - self.average
        self.square = (away**2).sum(axis=1)
        lengths = np.linalg.norm(np.diff(theta, axis=0), axis=1)
        undone = 4 * np.sqrt(self.square) > 0.5 * (lengths[1:] + lengths[:-1])
        quiet = int((~undone).argmax())  # a start near the edge swings, and comes to rest
        undone[:quiet] = False
        self.jump = int(undone.argmax()) if undone.any() else None  # of the average: step − 1

    def figures(self, w: np.ndarray) -> dict[str, Any]:
        """Of a path at all steps."""
        distance = np.linalg.norm(w[1:-1] - self.average, axis=1) / self.moved
        found: dict[str, Any] = {"end": float(distance[-1])}
        if self.jump is not None:
            found["mean_after_the_jump"] = float(distance[self.jump :].mean())
            found["before_the_jump"] = float(distance[max(self.jump - 1, 0)])
        at = {str(k): float(distance[k - 1]) for k in AT if k <= len(distance)}
        return found | {"at_step": at, "mean_from_31": float(distance[30:].mean())}

    def traces(self, predicted: np.ndarray) -> dict[str, float | None]:
        """Predicted and measured tr Σ from the jump on, and how they go together."""
        if self.jump is None:
            return {}
        one, other = predicted[1:-1][self.jump :], self.square[self.jump :]
        alike = np.corrcoef(one, other)[0, 1] if one.std() and other.std() else np.nan
        return {
            "predicted": float(one.mean()),
            "measured": float(other.mean()),
            "correlation": float(alike) if np.isfinite(alike) else None,
        }


def priced(counts: dict[str, float], steps: int) -> dict[str, float]:
    """Derivatives a step, and all of them in gradients."""
    each = {name: counts.get(name, 0) / steps for name in PRICES}
    return {**each, "cost": sum(PRICES[name] * number for name, number in each.items())}


def counted(solution: Any) -> dict[str, float]:
    """Of a solve of nm_ode, its probes included, its check left out."""
    info = nm_ode.solve_info(solution)
    return {
        "gradients": info.gradient_evaluations,
        "hvps": info.hvp_evaluations,
        "third_derivatives": info.third_derivative_evaluations,
    }


def rival() -> dict[str, Any]:
    problem, sgd = tanh_squares(), nm_ode.SGD(lr=LR)
    run = nm_ode.train(problem, sgd, STEPS)
    reference = Reference(run["theta"].values)
    found: dict[str, Any] = {
        "problem": tanh_squares.__doc__,
        "jump": None if reference.jump is None else reference.jump + 1,
        "own": reference.figures(reference.theta),
    }

    def timed(name: str, work: Callable[[], dict[str, Any]]) -> None:
        start = time.perf_counter()
        found[name] = work()
        found[name]["seconds"] = time.perf_counter() - start
        print(name, found[name], file=sys.stderr, flush=True)

    def paper(substeps: int, every_substep: bool) -> dict[str, Any]:
        path = central_path(problem, LR, STEPS, substeps, every_substep=every_substep)
        return {
            **priced(path.counts, STEPS),
            **reference.figures(path.w),
            "trace": reference.traces(path.trace),
        }

    def ours(flow: Any, **options: Any) -> dict[str, Any]:
        solution = nm_ode.solve(flow, run, check=False, **options)
        figures = reference.figures(solution["theta"].values)
        figures["method"] = nm_ode.solve_info(solution).method
        if "oscillation_trace" in solution:
            figures["trace"] = reference.traces(solution["oscillation_trace"].values)
            figures["largest_kkt_residual"] = float(solution["kkt_residual"].max())
        return {**priced(counted(solution), STEPS), **figures}

    timed("gradient_flow", lambda: ours(nm_ode.GradientFlow(problem), rtol=1e-4))
    timed("paper_one_substep", lambda: paper(1, True))
    timed("paper_four_substeps", lambda: paper(4, False))
    timed("paper_four_substeps_eigenvectors_at_each", lambda: paper(4, True))
    if hasattr(nm_ode, "CentralFlow"):
        timed("nm_ode", lambda: ours(nm_ode.CentralFlow(problem, sgd)))
        mine, theirs = found["nm_ode"], found["paper_four_substeps"]
        found["cost_over_four_substeps"] = mine["cost"] / theirs["cost"]
        found["distance_over_four_substeps"] = mine["mean_after_the_jump"] / theirs["mean_after_the_jump"]
    return found


def one_seed(name: str, seed: int, folder: Path) -> dict[str, dict[str, Any]]:
    """A shipped case with another seed: its run, and each of its flows."""
    path = find_case(name)
    given = load_case(path)
    case = given.model_copy(update={"seed": seed, "name": f"{name}_{seed}"})
    outcome = run_case(case, path, folder)
    theta = outcome.tree["discrete"]["theta"].values
    reference = Reference(theta)
    found: dict[str, dict[str, Any]] = {
        "run": {
            "own": reference.figures(theta),
            "jump": None if reference.jump is None else reference.jump + 1,
        }
    }
    for flow, node in outcome.tree["flows"].children.items():
        solution = node.to_dataset()
        if len(solution["time"]) < len(theta):
            found[flow] = {"stopped": nm_ode.solve_info(solution).message}
            continue
        found[flow] = reference.figures(solution["theta"].values) | priced(counted(solution), len(theta) - 1)
        if "oscillation_trace" in solution:
            found[flow]["trace"] = reference.traces(solution["oscillation_trace"].values)
    return found


def spread(values: list[float | None]) -> dict[str, float | int]:
    known = np.array([value for value in values if value is not None])
    if not len(known):
        return {"seeds": 0}
    deviation = float(known.std(ddof=1)) if len(known) > 1 else float("nan")
    return {"mean": float(known.mean()), "spread": deviation, "seeds": len(known)}


def seeds(names: list[str], count: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            each = []
            for seed in range(count):
                start = time.perf_counter()
                each.append(one_seed(name, seed, Path(folder)))
                print(
                    name, seed, round(time.perf_counter() - start, 1), each[-1], file=sys.stderr, flush=True
                )
            flows = [flow for flow in each[0] if flow != "run"]
            table[name] = {
                "jump": [one["run"]["jump"] for one in each],
                "own_mean_after_the_jump": spread(
                    [one["run"]["own"].get("mean_after_the_jump") for one in each]
                ),
                **{
                    flow: {
                        key: spread([one[flow].get(key) for one in each])
                        for key in ("end", "mean_after_the_jump", "before_the_jump", "cost")
                    }
                    | {
                        f"trace_{key}": spread([one[flow].get("trace", {}).get(key) for one in each])
                        for key in ("predicted", "measured", "correlation")
                        if "trace" in each[0][flow]
                    }
                    for flow in flows
                },
                "of_each_seed": each,
            }
    return table


def main() -> None:
    torch.set_num_threads(1)
    asked = [one for one in sys.argv[1:] if not one.startswith("--")]
    counts = [int(one.partition("=")[2]) for one in asked if one.startswith("seeds=")]
    names = [one for one in asked if one in CASES] or [one for one in CASES if _shipped(one)]
    parts = {one.partition("=")[0] for one in asked} & {"rival", "seeds"} or {"rival", "seeds"}
    results: dict[str, Any] = {}
    if "rival" in parts:
        results["rival"] = rival()
    if "seeds" in parts:
        results["seeds"] = seeds(names, counts[0] if counts else 5)
    compares = (
        "nm_ode's central flow with the paper's own scheme on one run, and with other flows over five seeds"
    )
    report("central_flow", compares, results)


def _shipped(name: str) -> bool:
    return (Path(__file__).parents[1] / "cases" / f"{name}.toml").exists()


if __name__ == "__main__":
    main()
