"""How far the modified flows of order 1 to 4 are from the run."""

from measured import panels
from torch import nn

import nm_ode
from nm_ode.data import digits
from nm_ode.models import mlp

data = digits(samples=256)
problem = nm_ode.Problem(mlp([64, 16, 10], "tanh"), nn.functional.cross_entropy, (data.x, data.y))
sgd = nm_ode.SGD(lr=0.1)
run = nm_ode.train(problem, sgd, steps=20)
flows = [nm_ode.GradientFlow(problem), *(nm_ode.modified_flow(problem, sgd, order) for order in (2, 3, 4))]

(ax,) = panels(1, 4.0)
nm_ode.plots.error(nm_ode.plots.as_tree(run, *(nm_ode.solve(flow, run, rtol=1e-8) for flow in flows)), ax=ax)
