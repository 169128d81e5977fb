"""The loss of three runs and of gradient flow: against the step, and against flow time."""

import numpy as np
from measured import panels
from torch import nn

import nm_ode
from nm_ode.data import digits
from nm_ode.models import mlp

data = digits(samples=256)
problem = nm_ode.Problem(mlp([64, 16, 10], "tanh"), nn.functional.cross_entropy, (data.x, data.y))
runs = {
    lr: nm_ode.train(problem, nm_ode.SGD(lr), round(8 / lr), save_every=round(0.8 / lr))
    for lr in (0.8, 0.2, 0.05)
}
flow = nm_ode.solve(nm_ode.GradientFlow(problem), np.linspace(0, 8, 41), record=["loss"], check=False)

by_step, by_time = panels(2, 2.6)
for i, (lr, run) in enumerate(runs.items()):
    by_step.plot(run.step, run.loss, color=f"C{i}", label=f"lr = {lr}")
    by_time.plot(run.time, run.loss, color=f"C{i}", label=f"lr = {lr}")
by_time.plot(flow.time, flow.loss, color="#223", linestyle="--", label="gradient flow")
by_step.set(xlabel="step k", ylabel="loss", xscale="log")
by_time.set(xlabel="flow time t", ylabel="loss")
by_time.legend()
