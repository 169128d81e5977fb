"""
Orders of Adam's modified flows
===============================

A modified flow of order K misses an optimiser's steps by an error of order lr\\ :sup:`K`. Here K is measured, for
Adam.
"""

import matplotlib.pyplot as plt
import numpy as np
from torch import nn

import nm_ode
from nm_ode.data import digits
from nm_ode.models import mlp

# %%
# A smooth network on handwritten digits, full batch, at three learning rates. The flow's state is θ with both moments
# and the step count, and its right-hand side takes K calls of Adam's own update. Adam's first steps divide by moments
# that are still filling, which no flow follows, so each run is compared after a warm start; all go to the same flow
# time.

data = digits(samples=64)
problem = nm_ode.Problem(mlp([64, 16, 10], "tanh"), nn.functional.cross_entropy, (data.x, data.y))
orders, lrs = (1, 2, 3, 4), np.array([5e-4, 2.5e-4, 1.25e-4])
errors = np.empty((len(orders), len(lrs)))
for j, lr in enumerate(lrs):
    adam = nm_ode.Adam(lr=float(lr))
    before, steps = round(0.15 / lr), round(0.01 / lr)
    warm = nm_ode.train(problem, adam, before, save_every=before)
    run = nm_ode.train(problem, adam, steps, save_every=steps, state0=nm_ode.final_state(warm))
    for i, order in enumerate(orders):
        flow = nm_ode.modified_flow(problem, adam, order)
        solution = nm_ode.solve(flow, run, engine="scipy", method="DOP853", rtol=1e-10, check=False)
        errors[i, j] = float(nm_ode.compare(run, solution).error[-1])

# %%
# The order that is seen is the slope of log error over log lr, by least squares, with its standard error.

observed = [nm_ode.observed_order(lrs, row) for row in errors]
for order, found in zip(orders, observed, strict=True):
    print(f"order {order}: observed {found.order:.2f} ± {found.standard_error:.2f}")

# %%
# Each line has the slope that theory gives, K, and goes through the point at the largest learning rate. The other
# points lie on it or nearly: halving the learning rate divides the error by about 2, 4, 8 and 16.

plt.style.use(nm_ode.plots.STYLE)
fig, ax = plt.subplots(figsize=(7, 4.6))
for order, found, row, marker in zip(orders, observed, errors, "os^D", strict=True):
    (points,) = ax.loglog(lrs, row, marker, ms=7)
    ax.loglog(lrs, row[0] * (lrs / lrs[0]) ** order, color=points.get_color(), lw=1.2)
    label = f"K = {order}: {found.order:.2f} ± {found.standard_error:.2f}"
    ax.annotate(label, (lrs[0], row[0]), (12, 0), textcoords="offset points", va="center")
ax.set(
    title="Distance between Adam and its modified flows", xlabel="learning rate", ylabel="error  (units of θ)"
)
ax.set_xticks(lrs, [f"{lr:g}" for lr in lrs])
ax.minorticks_off()
ax.margins(x=0.25)
plt.show()
