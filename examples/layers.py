"""
Error layer by layer
====================

In which layers of a convolutional network does gradient flow miss descent, and how much of that does the modified
flow mend?
"""

import matplotlib.pyplot as plt
from torch import nn

import nm_ode
from nm_ode.data import digits
from nm_ode.models import cnn

# %%
# A small network with tanh and average pooling, which have no kinks, so that theory's orders hold. Descent at a large
# learning rate, and two flows from the same start.

data = digits(samples=64)
model = cnn([4, 8], activation="tanh", pooling="average")
problem = nm_ode.Problem(model, nn.functional.cross_entropy, (data.x.reshape(-1, 1, 8, 8), data.y))
sgd = nm_ode.SGD(lr=0.5)
run = nm_ode.train(problem, sgd, steps=40, save_every=2)
flows = nm_ode.GradientFlow(problem), nm_ode.modified_flow(problem, sgd, order=2, form="hessian")
solutions = [nm_ode.solve(flow, run, rtol=1e-6) for flow in flows]

# %%
# A comparison has the error of each layer, and that over the layer's own motion.

compared = [nm_ode.compare(run, solution).isel(saved_step=-1) for solution in solutions]
for flow, one in zip(flows, compared, strict=True):
    errors = zip(one.layer.values, one.layer_relative_error.values, strict=True)
    print(f"{flow.title}: " + ", ".join(f"{layer} {error:.1e}" for layer, error in errors))

# %%
# Above: both distances lie decades above the solver's own error, so they are the discretisation's. Below: of each layer
# gradient flow misses 6 to 8 % of the way, of the first convolution the most. The modified flow, whose field has the
# Hessian's term of order lr, is more than twenty times nearer in every layer.

plt.style.use(nm_ode.plots.STYLE)
fig, (above, below) = plt.subplots(2, 1, figsize=(8.2, 7.2))
tree = nm_ode.plots.as_tree(run, *solutions)
nm_ode.plots.error(tree, ax=above)
above.set_title("Distance between each flow and the run")
nm_ode.plots.layer_errors(tree, ax=below)
below.set_title("At the end, layer by layer")
plt.show()
