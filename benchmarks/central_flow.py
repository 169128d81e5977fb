"""Past the edge of stability: nm_ode's central flow beside the paper's own scheme, and the table of five seeds.

    python benchmarks/central_flow.py [--save] [rival] [seeds] [seeds=2] [case …]     # of those named, or all

An hour of one core. With --save all figures are kept in results/central_flow_kept.json as they come, each with the
commit that it is of, and the same command goes on from there; without that file it computes all anew.
`make pages` writes docs/central_flow.md from the results.

`rival`: plain descent on 64-32-10 tanh (256 digits, mean squared error, lr 1.0, 600 steps). The same flow by the
paper's scheme (`paper_central_flow`: Euler, one and four substeps, exact third derivatives, float64) and by
`nm_ode.solve`, and gradient flow for scale. `cost` is in gradients a step of the run: a Hessian product counts 3, a
third derivative 5.7, for either side; that of nm_ode has the record of each step in it, but for
`cost_without_the_record`.

`seeds`: run and flows of `cases/central_*.toml`, solved as the files say but unchecked, with five seeds: each flow's
figures at the steps that the case records, their mean and their spread (standard deviation) over the seeds.

Distances are those to the run's own time average (θ_{k−1} + 2θ_k + θ_{k+1})/4, over how far that has moved; `after the
jump` is from the first step on of which the next undoes more than half (‖θ_{k+1} − 2θ_k + θ_{k−1}‖ above half of the
lengths of the two), once it has not been so. `wide`: the same with a Gaussian window of 12 steps for the average, where
it fits (48 steps from either end); `averages_apart`: how far the two averages are from one another. `own`: the run's
distance to its average. `nearer`: mean after the jump of a case's first flow over that of this one, seed by seed.
`trace`: of Σ, the mean from the jump on, as measured (‖θ_k − θ̄_k‖²) and as predicted.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import environment, report
from networks import tanh_squares
from paper_central_flow import central_path

import nm_ode
from nm_ode.comparison.windows import time_average
from nm_ode.studies import Study, build_study, find_case, load_case
from nm_ode.studies.member import at_some_of
from nm_ode.studies.schema import Solver

PRICES = {"gradients": 1.0, "hvps": 3.0, "third_derivatives": 5.7}
LR, STEPS = 1.0, 600
EACH = np.arange(STEPS + 1)
KEPT_IN = Path(__file__).parent / "results" / "central_flow_kept.json"
KEPT: dict[str, dict[str, Any]] = json.loads(KEPT_IN.read_text()) if KEPT_IN.exists() else {}
WIDE = nm_ode.gaussian_window(12)
SPREAD = ("jump", "before_the_jump", "mean_after_the_jump", "wide_mean_after_the_jump", "averages_apart")
SPREAD += ("nearer", "wide_nearer", "mean_from_31", "end", "cost")
CASES = ("central_digits", "central_diabetes", "central_cnn", "central_rmsprop")


class Reference:
    """A run with all its steps, and its time average at the steps in between."""

    def __init__(self, theta: np.ndarray) -> None:
        self.theta = theta
        self.average = (theta[:-2] + 2 * theta[1:-1] + theta[2:]) / 4
        moved = np.linalg.norm(self.average - theta[0], axis=1)
        self.moved = np.where(moved > 0, moved, np.nan)
        self.wide = time_average(theta, WIDE)  # NaN where the window does not fit
        self.moved_wide = np.linalg.norm(self.wide - theta[0], axis=1)
        away = theta[1:-1] - self.average
        self.square = (away**2).sum(axis=1)
        lengths = np.linalg.norm(np.diff(theta, axis=0), axis=1)
        undone = 4 * np.sqrt(self.square) > 0.5 * (lengths[1:] + lengths[:-1])
        quiet = int((~undone).argmax())  # a start near the edge swings, and comes to rest
        undone[:quiet] = False
        self.jump = int(undone.argmax()) if undone.any() else None  # of the average: step − 1

    def figures(self, w: np.ndarray, steps: np.ndarray) -> dict[str, Any]:
        """Of a path at these steps."""
        inside = (steps > 0) & (steps < len(self.theta) - 1)
        w, steps = w[inside], steps[inside]
        distance = np.linalg.norm(w - self.average[steps - 1], axis=1) / self.moved[steps - 1]
        found: dict[str, Any] = {
            "end": float(distance[-1]),
            "mean_from_31": float(distance[steps > 30].mean()),
        }
        if self.jump is not None:
            found["mean_after_the_jump"] = float(distance[steps > self.jump].mean())
            found["before_the_jump"] = float(distance[steps <= self.jump][-1])
            after = steps > self.jump
            off = np.linalg.norm(w - self.wide[steps], axis=1) / self.moved_wide[steps]
            found["wide_mean_after_the_jump"] = float(np.nanmean(off[after]))
        return found

    def averages_apart(self) -> float | None:
        """Of the short average from the wide one, the mean after the jump."""
        if self.jump is None:
            return None
        inner = self.figures(np.pad(self.average, ((1, 1), (0, 0))), np.arange(len(self.theta)))
        return float(inner["wide_mean_after_the_jump"])

    def traces(self, predicted: np.ndarray, steps: np.ndarray) -> dict[str, float | None]:
        """Predicted and measured tr Σ from the jump on, and how they go together."""
        if self.jump is None:
            return {}
        inside = (steps > self.jump) & (steps < len(self.theta) - 1)
        one, other = predicted[inside], self.square[steps[inside] - 1]
        alike = np.corrcoef(one, other)[0, 1] if one.std() and other.std() else np.nan
        return {
            "predicted": float(one.mean()),
            "measured": float(other.mean()),
            "correlation": float(alike) if np.isfinite(alike) else None,
        }


def priced(counts: Sequence[float], steps: int) -> dict[str, float]:
    """Gradients, Hessian products and third derivatives a step, and all of them in gradients."""
    each = {name: count / steps for name, count in zip(PRICES, counts, strict=True)}
    return {**each, "cost": sum(PRICES[name] * number for name, number in each.items())}


def solved(flow: Any, run: Any, **options: Any) -> tuple[Any, dict[str, float]]:
    """A flow unchecked, and what was taken of the problem for it: the record of each sample and all probes too."""
    before = flow.problem.spent.counts
    solution = nm_ode.solve(flow, run, check=False, **options)
    spent = [now - then for now, then in zip(flow.problem.spent.counts, before, strict=True)]
    info, steps = nm_ode.solve_info(solution), run.sizes["step"]
    alone = (info.gradient_evaluations, info.hvp_evaluations, info.third_derivative_evaluations)
    return solution, {**priced(spent, steps), "cost_without_the_record": priced(alone, steps)["cost"]}


def rival() -> dict[str, Any]:
    problem, sgd = tanh_squares(), nm_ode.SGD(lr=LR)
    run = nm_ode.train(problem, sgd, STEPS)
    reference = Reference(run["theta"].values)
    found: dict[str, Any] = {
        "problem": tanh_squares.__doc__,
        "jump": None if reference.jump is None else reference.jump + 1,
        "own": reference.figures(reference.theta, EACH),
    }

    def timed(name: str, work: Callable[[], dict[str, Any]]) -> None:
        found[name] = kept(f"rival {name}", work, {"flow": name})

    def paper(substeps: int, every_substep: bool) -> dict[str, Any]:
        path = central_path(problem, LR, STEPS, substeps, every_substep=every_substep)
        return {
            **priced([path.counts.get(name, 0) for name in PRICES], STEPS),
            **reference.figures(path.w, EACH),
            "trace": reference.traces(path.trace, EACH),
        }

    def ours(flow: Any, **options: Any) -> dict[str, Any]:
        solution, cost = solved(flow, run, **options)
        figures = reference.figures(solution["theta"].values, EACH)
        figures["method"] = nm_ode.solve_info(solution).method
        if "oscillation_trace" in solution:
            figures["trace"] = reference.traces(solution["oscillation_trace"].values, EACH)
            figures["largest_kkt_residual"] = float(solution["kkt_residual"].max())
        return {**cost, **figures}

    timed("gradient_flow", lambda: ours(nm_ode.GradientFlow(problem), rtol=1e-4))
    timed("paper_one_substep", lambda: paper(1, True))
    timed("paper_four_substeps", lambda: paper(4, False))
    timed("paper_four_substeps_eigenvectors_at_each", lambda: paper(4, True))
    timed("nm_ode", lambda: ours(nm_ode.CentralFlow(problem, sgd), rtol=1e-3))
    mine, theirs = found["nm_ode"], found["paper_four_substeps"]
    found["cost_over_four_substeps"] = mine["cost"] / theirs["cost"]
    found["distance_over_four_substeps"] = mine["mean_after_the_jump"] / theirs["mean_after_the_jump"]
    return found


def kept(key: str, work: Callable[[], dict[str, Any]], of: dict[str, Any]) -> dict[str, Any]:
    """Figures that were kept before, or computed now."""
    if key not in KEPT:
        start = time.perf_counter()
        figures = work()
        KEPT[key] = {
            **of,
            **figures,
            "seconds": time.perf_counter() - start,
            "commit": environment()["commit"],
        }
        print(json.dumps(KEPT[key]), file=sys.stderr, flush=True)
        if "--save" in sys.argv:
            KEPT_IN.write_text(json.dumps(KEPT, indent=1) + "\n")
    return KEPT[key]


def all_seeds(name: str, count: int) -> list[dict[str, dict[str, Any]]]:
    """Of each seed the run's figures and those of each flow of a shipped case; what is kept is not computed again."""
    path = find_case(name)
    text = path.read_text()
    found: list[dict[str, dict[str, Any]]] = []
    for seed in range(count):
        case = load_case(path).model_copy(update={"seed": seed})
        study = build_study(case, path, text)
        run = train_case(study)
        theta = run["theta"].values
        reference = Reference(theta)
        jump = None if reference.jump is None else reference.jump + 1
        each: dict[str, dict[str, Any]] = {
            "run": {
                **reference.figures(theta, np.arange(len(theta))),
                "averages_apart": reference.averages_apart(),
                "jump": jump,
            }
        }
        for flow, table in zip(study.flows, case.flows, strict=True):
            said = {**case.model_dump(mode="json"), "name": "", "title": "", "stability": None}
            said["flows"] = [table.model_dump(mode="json")]
            key = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
            work = partial(of_flow, flow, run, reference, case.solver)
            each[flow.name] = dict(kept(key, work, {"case": name, "seed": seed, "flow": flow.name}))
        first = each[study.flows[0].name]
        for one in each.values():
            for average in ("", "wide_"):
                mean = f"{average}mean_after_the_jump"
                if mean in one and mean in first:
                    one[f"{average}nearer"] = first[mean] / one[mean]
        found.append(each)
    return found


def train_case(study: Study) -> Any:
    """The case's run."""
    training, seed = study.case.training, study.case.seed
    state = None
    if training.warm_steps:
        warm = nm_ode.train(
            study.problem, study.optimizer, training.warm_steps, seed=seed, save_every=training.warm_steps
        )
        state = nm_ode.final_state(warm)
    return nm_ode.train(study.problem, study.optimizer, training.steps, seed=seed, state0=state)


def of_flow(flow: Any, run: Any, reference: Reference, solver: Solver) -> dict[str, Any]:
    beside = at_some_of(run, solver.samples)
    try:
        solution, cost = solved(flow, beside, **solver.options())
    except (nm_ode.SolveError, nm_ode.FlowError) as error:
        return {"stopped": str(error)}
    steps = beside["saved_step"].values
    found = reference.figures(solution["theta"].values, steps) | cost
    if "oscillation_trace" in solution:
        found["trace"] = reference.traces(solution["oscillation_trace"].values, steps)
        found["kkt_residual"] = float(solution["kkt_residual"].max())
    return found


def spread(values: list[float | None]) -> dict[str, float | int]:
    known = np.array([value for value in values if value is not None])
    if not len(known):
        return {"seeds": 0}
    deviation = float(known.std(ddof=1)) if len(known) > 1 else float("nan")
    return {"mean": float(known.mean()), "spread": deviation, "seeds": len(known)}


def seeds(names: list[str], count: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name in names:
        each = all_seeds(name, count)
        table[name] = {
            flow: {
                key: spread([one[flow].get(key) for one in each]) for key in SPREAD if key in each[0][flow]
            }
            | {
                f"trace_{key}": spread([one[flow].get("trace", {}).get(key) for one in each])
                for key in ("predicted", "measured", "correlation")
                if "trace" in each[0][flow]
            }
            | {"stopped": sum("stopped" in one[flow] for one in each)}
            for flow in each[0]
        }
    return table


def main() -> None:
    torch.set_num_threads(1)
    asked = [one for one in sys.argv[1:] if not one.startswith("--")]
    counts = [int(one.partition("=")[2]) for one in asked if one.startswith("seeds=")]
    names = [one for one in asked if one in CASES] or [one for one in CASES if _shipped(one)]
    parts = {one.partition("=")[0] for one in asked} & {"rival", "seeds"} or {"rival", "seeds"}
    saved = Path(__file__).parent / "results" / "central_flow.json"
    before = json.loads(saved.read_text()) if saved.exists() else {}
    results: dict[str, Any] = {part: before[part] for part in ("rival", "seeds") if part in before}
    if "rival" in parts:
        results["rival"] = rival()
    if "seeds" in parts:
        results["seeds"] = results.get("seeds", {}) | seeds(names, counts[0] if counts else 5)
    compares = (
        "nm_ode's central flow with the paper's own scheme on one run, and with other flows over five seeds"
    )
    report("central_flow", compares, results)


def _shipped(name: str) -> bool:
    return (Path(__file__).parents[1] / "cases" / f"{name}.toml").exists()


if __name__ == "__main__":
    main()
