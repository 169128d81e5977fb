"""Gradients and time of each solver against its error; `draw("smooth")` and `draw("kinked")` by the two scripts."""

from measured import curve, panels, read

from nm_ode.reporting.style import few_decades

AUTO = "nm_ode auto"


def draw(flow: str) -> None:
    """Two panels: gradients, and time in bare gradients."""
    measured = read("work_precision")[flow]
    both = panels(2, 4.4)
    for axes, key, title in zip(
        both, ("gradients", "time"), ("Gradients", "Time, in bare gradients of the processor"), strict=True
    ):
        for i, (solver, rows) in enumerate(measured["solvers"].items()):
            points = [(row["error"], row[key]) for row in rows if row.get("error", 1.0) < 0.2]
            if solver == AUTO:  # of one of the methods below: marked, not drawn over it
                x, y = zip(*points, strict=True)
                axes.plot(x, y, "o", ms=12, mfc="none", mec="#223", mew=1.6, label="nm_ode's choice")
            elif points:
                curve(axes, i - 1, *zip(*points, strict=True), solver.replace("scipy.integrate", "SciPy"))
        axes.set(xscale="log", yscale="log", title=title)
        axes.set(xlabel="error of the end / motion", ylabel=title.split(",")[0].lower())
        axes.invert_xaxis()
        few_decades(axes)
    for axes in both if "reference_error" in measured else ():
        floor = measured["reference_error"]
        axes.set_xlim(right=floor / 3)
        axes.axvspan(floor, floor / 3, color="#dfe3ea", lw=0, label="within the reference's error")
    both[1].legend(loc="upper center", bbox_to_anchor=(0.45, -0.18), ncols=2)
