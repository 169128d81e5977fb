"""docs/central_flow.md, from results/central_flow.json."""

from __future__ import annotations

from typing import Any

HEAD = """# Past the edge of stability, in figures

Made by `make pages` from what `benchmarks/central_flow.py --save` measured; what is measured is said at
the head of that program. Distances are to the run's own time average, over how far that has moved.

## Which average

Two averages of a run are taken. That over **three steps**, (θ_{k−1} + 2θ_k + θ_{k+1})/4, leaves nothing of an
oscillation that changes its sign at each step and keeps its size, and is off a smooth path by how that bends in one
step. But along several directions at the edge, or in bursts, the oscillation is not so regular: what takes some steps
to come and go stays in this average, and no smooth path is nearer to it than that. A **Gaussian window** of 12 steps
(`compare(run, solution, average=nm_ode.gaussian_window(12))`) takes that out too. It smooths the path itself over some
24 steps as well, and has no value within 48 steps of either end. How far the two averages are from one another is the
row "the three-step average" below: so much of a distance to the three-step average is the oscillation's own.

## Beside the paper's own scheme

Plain descent on a tanh network 64-32-10 (256 digits, squared error, lr 1.0, 600 steps). Cost: gradients a step of the
run, a Hessian product counted as 3 and a third derivative as 5.7. nm_ode's has the record of all 601 steps in it.

| | cost | just before the jump | mean after the jump | … Gaussian | at the end | tr Σ predicted | measured |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

ROWS = {
    "gradient_flow": "gradient flow",
    "paper_one_substep": "paper's scheme, one substep",
    "paper_four_substeps": "paper's scheme, four substeps",
    "paper_four_substeps_eigenvectors_at_each": "… eigenvectors anew at each",
    "nm_ode": "`nm_ode.CentralFlow`, rtol 1e-3",
}

SEEDS = """
## Over seeds

The shipped cases with other seeds of the start: mean ± standard deviation. At the start of `central_digits` lr ·
λ_max is 1.8 to 1.9, and descent swings for some steps, which no flow follows; so the case begins after 30 steps. Else
what the first steps leave stays in every flow's distance (the central flow's mean after the jump is then 0.017 to
0.038). Where the run bursts, its own average moves with each burst: its distance from that is a floor. "Nearer"
says how many times: the mean after the jump of a table's first flow over that of this one, seed by seed.
"""

FLOWS = {
    "run": "the run itself",
    "gradient": "gradient flow",
    "modified_1_iterated_map": "modified flow, order 1",
    "modified_2_hessian": "modified flow, order 2",
    "central": "central flow",
    "central_delayed": "central flow, delayed",
}

COLUMNS = (
    "| | before the jump | mean after it | nearer | … Gaussian | nearer | at the end | cost "
    "| tr Σ predicted | measured | correlation |"
)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def spread(found: dict[str, Any] | None) -> str:
    if not found or not found["seeds"]:
        return ""
    if found["seeds"] == 1:
        return number(found["mean"])
    return f"{found['mean']:.3g} ± {found['spread']:.1g}"


def rival(results: dict[str, Any]) -> str:
    lines = []
    for name, title in ROWS.items():
        one = results[name]
        trace = one.get("trace", {})
        cells = [one["cost"], one["before_the_jump"], one["mean_after_the_jump"]]
        cells += [one.get("wide_mean_after_the_jump"), one["end"]]
        cells += [trace.get("predicted"), trace.get("measured")]
        lines.append(f"| {title} | " + " | ".join(map(number, cells)) + " |\n")
    return "".join(lines)


def seeds(results: dict[str, Any]) -> str:
    text = ""
    for case, flows in results.items():
        jump = flows["run"]["jump"]
        text += f"\n### `{case}`\n\nOf {jump['seeds']} seeds; the jump comes at step {spread(jump)}.\n\n"
        text += f"{COLUMNS}\n|{' --- |' * 11}\n"
        for name, one in flows.items():
            keys = ("before_the_jump", "mean_after_the_jump", "nearer", "wide_mean_after_the_jump")
            keys += ("wide_nearer", "end", "cost")
            keys += tuple(f"trace_{key}" for key in ("predicted", "measured", "correlation"))
            ended = f" (ended on its way with {one['stopped']} seeds)" if one["stopped"] else ""
            text += (
                f"| {FLOWS.get(name, name)}{ended} | "
                + " | ".join(spread(one.get(key)) for key in keys)
                + " |\n"
            )
            if "averages_apart" in one:
                cells = [""] * 3 + [spread(one["averages_apart"])] + [""] * 6
                text += "| the three-step average | " + " | ".join(cells) + " |\n"
    return text


def document(results: dict[str, Any]) -> str:
    """The whole page."""
    text = HEAD + rival(results["rival"])
    if "seeds" in results:
        text += SEEDS + seeds(results["seeds"])
    return text
