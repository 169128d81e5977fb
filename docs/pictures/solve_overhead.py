"""The time of a whole solve over that of its bare gradients, against the number of parameters."""

from measured import curve, panels, read

speed = read("large")["speed"]
(axes,) = panels(1, 4.4)
names = {
    "torch DOP853": "nm_ode torch, DOP853",
    "torch RK45": "nm_ode torch, RK45",
    "scipy DOP853": "nm_ode scipy, DOP853",
    "sundials BDF": "nm_ode sundials, BDF",
    "torchdiffeq dopri5": "torchdiffeq dopri5",
}
for i, (solver, label) in enumerate(names.items()):
    points = [
        (row["parameters"], row["solvers"][solver]["ratio"]) for row in speed if solver in row["solvers"]
    ]
    curve(axes, i, *zip(*points, strict=True), label)
axes.axhline(1, color="#223", lw=1)
axes.set(xscale="log", ylim=(0.9, None), xlabel="parameters P", ylabel="time of the solve / bare gradients")
axes.set_title("What a solve adds to its gradients")
axes.legend(loc="upper left")
