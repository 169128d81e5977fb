"""
Past the edge of stability
==========================

At a large learning rate descent sharpens the loss until lr · λ_max = 2, and from there on swings. Gradient flow loses
it; the central flow follows its time average.
"""

import matplotlib.pyplot as plt
from torch import nn

import nm_ode
from nm_ode.data import digits
from nm_ode.models import mlp

# %%
# A tanh network on digits with squared error, after 30 steps, by when descent is at the edge. The central flow (Cohen
# et al. 2025) is solved as any other flow, at every fourth of the run's steps.

data = digits(samples=128)
targets = nn.functional.one_hot(data.y, 10).double()
problem = nm_ode.Problem(mlp([64, 16, 10], "tanh"), nn.functional.mse_loss, (data.x, targets))
sgd = nm_ode.SGD(lr=1.0)
start = nm_ode.final_state(nm_ode.train(problem, sgd, steps=30, save_every=30))
run = nm_ode.train(problem, sgd, 200, save_every=1, state0=start, observe=[nm_ode.Curvature(40)])
flows = nm_ode.GradientFlow(problem), nm_ode.CentralFlow(problem, sgd)
times = run.isel(saved_step=slice(None, None, 4))
solutions = [nm_ode.solve(flow, times, rtol=1e-3, check=False) for flow in flows]
tree = nm_ode.plots.as_tree(run, *solutions)

# %%
# Above: the run's sharpness rises past 2 while the swinging is still small, is thrown back when it is not (dotted
# line), and goes on about 2. The central flow holds it at 2 from the start, in one direction, then in two and more,
# by the covariance Σ of the swinging that is in its equation. Below: once the run swings, gradient flow goes where
# the run does not go, and at the end is off by a tenth of the way. The central flow stays within a few hundredths,
# about as near to the run's average as the swinging run itself.

plt.style.use(nm_ode.plots.STYLE)
fig, (above, below) = plt.subplots(2, 1, figsize=(8.2, 8))
nm_ode.plots.critical_eigenvalues(tree, ax=above)
above.set_title("Sharpness at the edge of stability")
nm_ode.plots.errors_to_average(tree, ax=below)
below.set_title("Distance to the run's time average")
plt.show()

# %%
# The last half of the run: how far the flows are on average, and the size of the swinging, which the central flow
# foresees from the loss alone.

late = slice(run.sizes["saved_step"] // 8, None)
compared = [nm_ode.compare(run, one, average=True).isel(saved_step=late) for one in solutions]
distances = [float(one.relative_error_to_average.mean()) for one in compared]
predicted, measured = (float(compared[1][f"{which}_variance"].mean()) for which in ("predicted", "measured"))
print(f"distance: gradient flow {distances[0]:.3f}, central flow {distances[1]:.3f}")
print(f"tr Σ: predicted {predicted:.1e}, measured {measured:.1e}")
