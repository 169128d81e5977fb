"""
Minibatch noise as a diffusion
==============================

Minibatches make of one run a cloud of runs. The stochastic modified flow is the equation of that cloud: it is compared
with it in distribution, never path by path.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import nm_ode
from nm_ode.data import diabetes

# %%
# Linear regression, from a point that full batches have come near to the minimum: there the noise hardly depends on θ,
# as the flow has it. Two hundred runs with batches of 10, drawn with replacement, and as many paths of the flow, whose
# noise is the measured covariance of a batch's gradient.

data = diabetes(samples=200)
torch.manual_seed(0)
problem = nm_ode.Problem(nn.Linear(10, 1), nn.functional.mse_loss, (data.x, data.y))
start = torch.tensor(nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=200, save_every=200).theta.values[-1])
sgd = nm_ode.SGD(lr=0.01)
runs = nm_ode.sgd_ensemble(problem, sgd, steps=150, batch_size=10, members=200, theta0=start)
noise = nm_ode.gradient_noise(problem, start, batch_size=10)
flow = nm_ode.StochasticModifiedFlow(problem, sgd, noise)
paths = nm_ode.solve_ensemble(flow, time=nm_ode.ensemble_info(runs).time, members=200, theta0=start)

# %%
# Means and covariances of the two clouds differ by about as much as two draws of 200 from one distribution would, and
# a permutation test does not tell the clouds apart.

found = nm_ode.compare_ensembles(runs, paths)
print(f"mean: {found.mean:.2f} apart, {found.mean_noise:.2f} by chance")
print(f"covariance: {found.covariance:.2f} apart, {found.covariance_noise:.2f} by chance")
print(f"energy distance {found.energy:.3f}, p = {found.p_value:.2f}")

# %%
# Left: two of the parameters, a dot for each run and a cross for each path. Right: the loss above that at the minimum,
# which is all noise: its distribution over the runs is nearly that over the paths. (At lr = 0.05 the runs' is larger
# to the eye: the flow has the noise to leading order in the learning rate.)

best = float(
    problem.loss(torch.linalg.lstsq(torch.cat([data.x, torch.ones(200, 1)], 1), data.y).solution.flatten())
)
plt.style.use(nm_ode.plots.STYLE)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
for label, cloud, marker in (("SGD", runs, "o"), ("stochastic modified flow", paths, "x")):
    left.plot(*cloud.theta.values[:, [2, 4]].T, marker, ms=4, alpha=0.7, label=label)
    excess = np.sort([float(problem.loss(torch.tensor(theta))) - best for theta in cloud.theta.values])
    right.step(excess, np.arange(1, 201) / 200, where="post")
left.set(title="Two parameters at the end", xlabel="weight[0, 2]", ylabel="weight[0, 4]")
left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
right.set(title="Loss above the minimum's", xlabel="excess loss", ylabel="share of the members below")
right.locator_params(axis="x", nbins=5)
plt.show()
