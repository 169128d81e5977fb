"""
A paper's figure from a store
=============================

Charges and their laws as Neural Mechanics (Kunin et al. 2021) draws them: kinds of symmetry in columns, optimisers in
rows. The runs are trained once, into a store; the figure is made from that.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import nm_ode

# %%
# A BatchNorm network by minibatches: plain SGD, with weight decay, and with momentum too. ``zip`` lets the
# hyperparameters vary together; ``[symmetries]`` has charges and laws recorded.

CASE = """
name = "charges"
title = "Digits, BatchNorm network 64-24-16-10, minibatches"
loss = "cross_entropy"
model = { name = "mlp", widths = [64, 24, 16, 10], activation = "relu", norm = "batch" }
data = { name = "digits", samples = 256 }
optimizer = { name = "sgd" }
training = { steps = 150, batch_size = 32 }
[symmetries]

[sweep]
"optimizer.lr" = [0.1, 0.1, 0.02]
"optimizer.momentum" = [0.0, 0.0, 0.9]
"optimizer.weight_decay" = [0.0, 0.02, 0.02]
zip = ["lr", "momentum", "weight_decay"]
"""
folder = Path(tempfile.mkdtemp())
(folder / "charges.toml").write_text(CASE)
nm_ode.run_study(folder / "charges.toml", out=folder / "results")

# %%
# From here on everything comes from the disk, as it would weeks later. How far each law misses the charges of a
# symmetry at most, over how far they move (a law that does not describe a member has no number there):

study = nm_ode.open_study(folder / "results/charges/study.zarr")
errors = {}
for law in study["laws"].children:
    errors[law] = study[f"comparison/{law}/symmetry_relative_error"].max(("step", "symmetry")).values
    print(f"{law:>12}: " + ", ".join(f"{error:.0e}" for error in errors[law]))

# %%
# First row, plain SGD: a bias before BatchNorm does not matter to the loss, and stays where it is; ‖θ‖² of the
# weights before it only grows, by η²‖g‖² a step. Second, weight decay: the bias decays as exp(−λt), and what the
# steps add to ‖θ‖² no longer keeps it. Third, momentum: a charge is a damped oscillator, here an overdamped one, that
# starts from rest. The dashed lines are the laws; nothing in them is fitted.

plt.style.use(nm_ode.plots.STYLE)
fig, axes = plt.subplots(3, 3, figsize=(9, 7.6))
nm_ode.plots.charge_grid(study, axes=axes)
fig.suptitle("Charges of a BatchNorm network and their laws (dashed)")
fig.savefig(folder / "charges.pdf")
plt.show()
