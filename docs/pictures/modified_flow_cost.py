"""Distance of each modified flow from its run against what its solution costs, for three optimisers."""

from measured import curve, panels, read

SHOWN = {
    "plain_descent": (
        "gradient flow",
        "iterated map, order 2",
        "iterated map, order 3",
        "iterated map, order 4",
        "iterated map, order 6",
        "Hessian form, order 2",
        "torchdiffeq dopri5, Hessian form, order 2",
    ),
    "heavy_ball": (
        "slow manifold, order 2",
        "second-order form",
        "iterated map, order 2",
        "iterated map, order 3",
        "iterated map, order 4",
        "iterated map, order 6",
    ),
    "adam": tuple(f"iterated map, order {k}" for k in (1, 2, 3, 4, 6)),
}

results = read("modified_flow")
for axes, (name, flows) in zip(panels(3, 4.6), SHOWN.items(), strict=True):
    study = results[name]
    for i, flow in enumerate(flows):
        points = [point for point in study["all"][flow] if point.get("error", 1.0) < 0.5]
        label = flow.replace("iterated map, ", "").replace(
            "torchdiffeq dopri5, Hessian form, ", "dopri5 on the "
        )
        label = label.replace("dopri5 on the order 2", "dopri5 on the Hessian form")
        curve(axes, i, [p["cost"] for p in points], [p["error"] for p in points], label)
    axes.set(xscale="log", yscale="log", xlim=(25, 3500), ylim=(1e-14, 2), title=study["optimizer"])
    axes.set(xlabel="cost of the solution, in gradients", ylabel="distance from the run / motion")
    axes.axvline(study["the_run_itself"]["cost"], color="#223", lw=1, ls=(0, (1, 2)))
    axes.annotate(
        "the run itself", (study["the_run_itself"]["cost"], 3e-14), rotation=90, ha="right", fontsize=9
    )
    axes.legend(loc="upper right" if name == "adam" else "lower right", fontsize=9)
