"""What methods of DifferentialEquations.jl take of a gradient flow, beside the embedded ones.

Right-hand sides, Jacobian products and probes of the sharpness are counted apart; `in_gradients` is all of it in gradients
of the same time, by the products' time measured in the same solve. Errors are against DOP853 at rtol 1e-11, over the
motion. Every method is compiled before its clock starts. Without Julia the embedded methods alone are measured, and the
reason is in the results.
"""

from __future__ import annotations

import numpy as np
from measuring import report
from networks import progressive

from bridges import get_engine
from nm_ode import GradientFlow, SolveError, solve, solve_info

EMBEDDED = (("sundials", "BDF"), ("scipy", "DOP853"))
JULIA = tuple(
    ("diffeq", method)
    for method in ("ROCK4", "ROCK2", "RKC", "FBDF", "QNDF", "Rodas5P", "TRBDF2", "KenCarp4", "Tsit5", "Vern7")
)


def row(flow: GradientFlow, exact: np.ndarray, horizon: float, engine: str, method: str, rtol: float) -> dict:
    options = {"engine": engine, "method": method, "rtol": rtol, "record": ["theta"], "check": False}
    found: dict = {"horizon": horizon, "rtol": rtol, "method": f"{engine} {method}"}
    try:
        solution = solve(flow, [0.0, horizon], max_rhs=200_000, **options)
    except SolveError as failure:
        return found | {"failed": str(failure)}
    info, end = solve_info(solution), solution["theta"].values[-1]
    return found | {
        "gradients": info.rhs_evaluations,
        "products": info.jvp_evaluations,
        "probes": info.probe_rhs_evaluations,
        "in_gradients": round(info.gradient_equivalents or 0.0),
        "error": float(
            f"{np.linalg.norm(end - exact) / np.linalg.norm(exact - flow.problem.theta0.numpy()):.1e}"
        ),
    }


def main() -> None:
    flow, lacks = GradientFlow(progressive()), get_engine("diffeq").lacks()
    methods = EMBEDDED if lacks else (*EMBEDDED, *JULIA)
    rows = []
    for horizon in (50.0, 200.0):
        exact = solve(flow, [0.0, horizon], engine="scipy", method="DOP853", rtol=1e-11, check=False)
        end = exact["theta"].values[-1]
        rows += [
            row(flow, end, horizon, engine, method, rtol)
            for rtol in (1e-3, 1e-5)
            for engine, method in methods
        ]
    results = {"rows": rows, "julia": f"not measured: {lacks}" if lacks else get_engine("diffeq").version}
    report(
        "julia_methods", "methods of DifferentialEquations.jl with CVODE BDF and DOP853 on one flow", results
    )


if __name__ == "__main__":
    main()
