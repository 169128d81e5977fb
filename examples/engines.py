"""
Three engines and a reference
=============================

One gradient flow, solved by SciPy, SUNDIALS and nm_ode's own torch engine at many tolerances, held against a tight
reference: a work–precision diagram, which says which engine to take.
"""

import matplotlib.pyplot as plt
import numpy as np
from torch import nn

import nm_ode
from nm_ode.data import digits
from nm_ode.models import mlp

# %%
# The flow of a small smooth network on digits. A tolerance is no error, so each solution is held against one at
# ``rtol=1e-12``. The measure of work is gradients of the whole loss, which is what costs time in a large network.

data = digits(samples=128)
problem = nm_ode.Problem(mlp([64, 16, 10], "tanh"), nn.functional.cross_entropy, (data.x, data.y))
flow = nm_ode.GradientFlow(problem)
engines = {"scipy": "DOP853", "sundials": "BDF", "torch": "RKC2"}
tolerances = {"scipy": (2, 3, 4, 5, 6, 8), "sundials": (2, 3, 4, 5, 6, 8), "torch": (2, 3, 4, 5)}


def work_and_error(time: float) -> dict[str, np.ndarray]:
    """Of each engine, for each tolerance: gradients, and distance to the reference over the motion."""
    reference = nm_ode.solve(
        flow, [0.0, time], engine="scipy", method="DOP853", rtol=1e-12, check=False
    ).theta
    motion = np.linalg.norm(reference[-1] - reference[0])
    found = {}
    for engine, method in engines.items():
        rows = []
        for k in tolerances[engine]:
            one = nm_ode.solve(flow, [0.0, time], engine=engine, method=method, rtol=10.0**-k, check=False)
            distance = np.linalg.norm(one.theta[-1] - reference[-1])
            rows.append((nm_ode.solve_info(one).gradient_equivalents, distance / motion))
        found[engine] = np.array(rows)
    return found


times = (4.0, 200.0)
results = [work_and_error(time) for time in times]

# %%
# Left, the short time: nothing is stiff, accuracy alone sets the steps, and the method of eighth order has the
# smallest error for any number of gradients that suffices it. Right, fifty times as long: stability limits the steps
# of the explicit method, which takes hundreds of gradients however little is asked of it. For an error of 1e-3 the
# implicit BDF and the stabilised RKC2 take half of them, and BDF stays ahead down to some 1e-6. ``engine="auto"``
# chooses by sharpness, time and tolerance.

plt.style.use(nm_ode.plots.STYLE)
fig, panels = plt.subplots(1, 2, figsize=(9, 4), sharex=True, sharey=True)
for ax, time, found in zip(panels, times, results, strict=True):
    for (engine, rows), marker in zip(found.items(), "os^", strict=True):
        ax.loglog(*rows.T, marker=marker, ms=5, label=f"{engine}: {engines[engine]}")
    ax.set(title=f"Gradient flow to t = {time:g}", xlabel="gradients of the loss over all samples")
panels[0].set_ylabel("error over the motion")
panels[0].legend()
plt.show()

# %%
# The engines agree with the reference and with one another, far below what separates the flow from descent.

for time, found in zip(times, results, strict=True):
    print(f"t = {time:g}: " + ", ".join(f"{engine} {rows[-1, 1]:.0e}" for engine, rows in found.items()))
