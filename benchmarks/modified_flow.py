"""Which modified flow is cheapest at each accuracy: error against what its solution costs, for each form and order.

Three optimisers on one network. A flow is solved at falling tolerances; what is measured is its distance to the
discrete run at the end, relative to the motion: the flow's own error and the solver's together, which is what a user
gets. The cost is counted in gradients, and a Hessian–vector product and a third derivative count as many as they take
time, measured here. Beside them torchdiffeq's dopri5 on the Hessian form of order 2. For scale: the run itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measuring import paired_ratio, report, seconds
from networks import tanh
from torchdiffeq import odeint

from nm_ode import (
    SGD,
    Adam,
    GradientFlow,
    Problem,
    SecondOrderFlow,
    SlowManifoldFlow,
    SolveError,
    compare,
    final_state,
    modified_flow,
    solve,
    train,
)
from nm_ode.flows import Flow
from nm_ode.flows.iterated_map import rounding

TOLERANCES = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12]
TARGETS = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9]


def derivative_costs(problem: Problem) -> dict[str, float]:
    """Time of each derivative over that of a gradient, in turns."""
    theta = problem.theta0
    v = problem.grad(theta)

    def ratio(work: Callable[[], object]) -> float:
        return paired_ratio(work, lambda: problem.grad(theta), repeats=41)["ratio_median"]

    return {
        "gradient": 1.0,
        "hvp": ratio(lambda: problem.hvp(theta, v)),
        "third_derivative": ratio(lambda: problem.third_derivative(theta, v)),
    }


def points(problem: Problem, run, flow: Flow, costs: dict[str, float]) -> list[dict]:
    """The flow at each tolerance, until a tighter one brings nothing."""
    found: list[dict] = []
    for rtol in TOLERANCES:
        out: list = []

        def work(rtol: float = rtol, out: list = out) -> None:
            out.append(solve(flow, run, rtol=rtol, record=["theta"], check=False))

        try:
            took = seconds(work)
        except SolveError as error:
            found.append({"rtol": rtol, "stopped": str(error).split(";")[0]})
            continue
        attrs = out[0].attrs
        rhs = attrs["rhs_evaluations"] + attrs["probe_rhs_evaluations"]
        counts = {
            "gradient": rhs * flow.cost.gradients,
            "hvp": rhs * flow.cost.hvps,
            "third_derivative": rhs * flow.cost.third_derivatives,
        }
        found.append(
            {
                "rtol": rtol,
                "method": attrs["method"],
                "error": float(compare(run, out[0])["relative_error"][-1]),
                **counts,
                "cost": round(sum(n * costs[name] for name, n in counts.items()), 1),
                "seconds": took,
            }
        )
        errors = [point["error"] for point in found if "error" in point]
        if len(errors) > 2 and errors[-1] > 0.98 * errors[-2] > 0.96 * errors[-3]:
            break  # what is left is the flow's own
    return found


def dopri5(problem: Problem, run, flow: Flow, costs: dict[str, float]) -> list[dict]:
    found: list[dict] = []
    times = torch.tensor([0.0, float(run["saved_time"][-1])], dtype=torch.float64)
    for rtol in TOLERANCES[:9]:
        count, out = [0], []

        def field(t, theta, count=count):
            count[0] += 1
            return flow.rhs(0.0, theta)

        def work(rtol=rtol, field=field, out=out) -> None:
            out.append(odeint(field, problem.theta0, times, method="dopri5", rtol=rtol, atol=1e-3 * rtol)[-1])

        took = seconds(work)
        discrete = torch.from_numpy(run["theta"].values[-1].copy())
        error = float((out[0] - discrete).norm() / (discrete - problem.theta0).norm())
        cost = round(count[0] * (1 + costs["hvp"]), 1)
        found.append(
            {
                "rtol": rtol,
                "error": error,
                "gradient": count[0],
                "hvp": count[0],
                "cost": cost,
                "seconds": took,
            }
        )
    return found


def cheapest(flows: dict[str, list[dict]]) -> list[dict]:
    """At each accuracy, the flow and tolerance of the least cost, and the runners-up.

    A point counts if every tighter tolerance of its flow reaches the accuracy too: no lucky hits.
    """
    table = []
    for target in TARGETS:
        good = []
        for name, found in flows.items():
            errors = [point.get("error", 1.0) for point in found]
            reached = [point for i, point in enumerate(found) if max(errors[i:]) <= target]
            if reached:
                best = min(reached, key=lambda point: point["cost"])
                good.append(
                    {"flow": name, **{key: best[key] for key in ("rtol", "error", "cost", "seconds")}}
                )
        good.sort(key=lambda one: one["cost"])
        if good:
            table.append({"error_at_most": target, "cheapest": good[0], "then": good[1:4]})
    return table


def study(
    problem: Problem, optimizer, steps: int, warm: int, flows: dict[str, Flow], costs, beside=None
) -> dict:
    state = final_state(train(problem, optimizer, warm, save_every=warm)) if warm else None
    run = train(problem, optimizer, steps, save_every=steps, state0=state)
    found = {name: points(problem, run, flow, costs) for name, flow in flows.items()}
    if beside is not None:
        found["torchdiffeq dopri5, Hessian form, order 2"] = dopri5(problem, run, beside, costs)
    return {
        "optimizer": run.attrs["optimizer_text"],
        "warm_steps": warm,
        "the_run_itself": {"gradient": steps, "cost": steps},
        "cheapest": cheapest(found),
        "all": found,
    }


def main() -> None:
    problem = tanh()
    costs = derivative_costs(problem)
    plain, heavy, adam = SGD(lr=0.1), SGD(lr=0.02, momentum=0.9), Adam(lr=1e-3)

    def maps(optimizer, orders) -> dict[str, Flow]:
        return {f"iterated map, order {k}": modified_flow(problem, optimizer, k) for k in orders}

    hessian = modified_flow(problem, plain, 2, "hessian")
    results = {
        "problem": tanh.__doc__,
        "parameters": problem.layout.size,
        "cost_in_gradients": costs,
        "rounding_of_the_field_by_order": {k: rounding(k) for k in (2, 4, 6, 8, 12, 16)},
        "plain_descent": study(
            problem,
            plain,
            80,
            0,
            {
                "gradient flow": GradientFlow(problem),
                "Hessian form, order 2": hessian,
                "Hessian form, order 3": modified_flow(problem, plain, 3, "hessian"),
                **maps(plain, (2, 3, 4, 5, 6, 8)),
            },
            costs,
            beside=hessian,
        ),
        "heavy_ball": study(
            problem,
            heavy,
            50,
            0,
            {
                "slow manifold, order 1": SlowManifoldFlow(problem, heavy, 1),
                "slow manifold, order 2": SlowManifoldFlow(problem, heavy),
                "second-order form": SecondOrderFlow(problem, heavy),
                **maps(heavy, (1, 2, 3, 4, 6, 8, 10)),
            },
            costs,
        ),
        "adam": study(problem, adam, 50, 200, maps(adam, (1, 2, 3, 4, 6, 8)), costs),
    }
    report(
        "modified_flow",
        "each form and order of modified flow with the others, and with torchdiffeq.odeint(dopri5) on the Hessian form",
        results,
    )


if __name__ == "__main__":
    main()
