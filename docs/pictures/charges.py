"""The charges of a rescale symmetry along a run, and the first-order law's."""

import torch
from measured import panels
from torch import nn

import nm_ode
from nm_ode.data import digits

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
data = digits(samples=256)
problem = nm_ode.Problem(model, nn.functional.cross_entropy, (data.x, data.y))
charges = nm_ode.Charges(nm_ode.find_symmetries(model, data.x[:8].float(), loss="cross_entropy"))
sgd = nm_ode.SGD(lr=0.1, weight_decay=1e-3)
run = nm_ode.train(problem, sgd, steps=200, batch_size=32, observe=[charges])
law = nm_ode.predict_charges(run, "first_order")

axes = panels(2, 2.6)
for ax, kind in zip(axes, ("translation", "rescale"), strict=True):
    lines = [i for i, one in enumerate(run.kind.values) if one == kind][:6]
    for place, i in enumerate(lines):
        ax.plot(run.time, run.charge[:, i] - run.charge[0, i], color=f"C{place}")
        ax.plot(run.time, law.charge[:, i] - law.charge[0, i], color="#223", linestyle=":", linewidth=1.2)
    ax.set(title=kind, xlabel="flow time t", ylabel="charge Q, from its start")
