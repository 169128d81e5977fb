"""Loss and distance to the run, in two axes of a size of one's own."""

import matplotlib.pyplot as plt
from torch import nn

import nm_ode
from nm_ode.data import digits
from nm_ode.models import mlp

problem = nm_ode.Problem(mlp([64, 8, 10], "tanh"), nn.functional.cross_entropy, digits(samples=64))
sgd = nm_ode.SGD(lr=0.2)
run = nm_ode.train(problem, sgd, steps=40)
tree = nm_ode.plots.as_tree(run, nm_ode.solve(nm_ode.GradientFlow(problem), t=run))

figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
nm_ode.plots.loss(tree, ax=left)
nm_ode.plots.error(tree, ax=right)
right.set_title("distance to the run", fontsize=9)
right.legend(loc="center right", fontsize=8)
