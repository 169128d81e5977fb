"""
A sweep and its phase diagram
=============================

How far does gradient flow miss a run, over learning rates and batch sizes? A case file says what varies, one call
runs its members, and the study is one dataset.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import nm_ode

# %%
# A case file with a table ``[sweep]``: every combination is a member, and the constraint takes each to the same flow
# time. The flow is that of the loss over all 128 samples, whatever the run's batches are.

CASE = """
name = "lr_and_batch_size"
title = "Learning rate and batch size: digits, tanh network 64-8-10"
loss = "cross_entropy"
flows = [{ kind = "gradient", batches = "full" }]
model = { name = "mlp", widths = [64, 8, 10], activation = "tanh" }
data = { name = "digits", samples = 128 }
optimizer = { name = "sgd" }
solver = { rtol = 1e-5 }

[sweep]
"optimizer.lr" = [0.4, 0.2, 0.1, 0.05]
"training.batch_size" = [8, 32, 128]
constraint = "lr * steps = 4"
"""
folder = Path(tempfile.mkdtemp())
case = folder / "lr_and_batch_size.toml"
case.write_text(CASE)

# %%
# ``nm-ode run lr_and_batch_size.toml`` would run the members on all cores and write a page. This runs them here, into
# the same results; a second call would find them all done. The tree has the axes of the sweep in front.

study = nm_ode.run_study(case, out=folder / "results")
frame = nm_ode.study_frame(study)  # pandas, a row a member
errors = frame.pivot(index="lr", columns="batch_size", values="relative_error.full_batch_gradient")
print(errors.to_string(float_format="{:.4f}".format))

# %%
# Upper row, full batches: discretisation alone, whose error halves with the learning rate, as the order of 1 from
# each learning rate to the next (right) says. Further down the batches' noise comes to it: with 8 samples of 128 the
# flow misses the run by up to half of its motion, and what looks like an order is one seed's chance.

plt.style.use(nm_ode.plots.STYLE)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4))
shown = ["relative_error.full_batch_gradient", "local_order.full_batch_gradient"]
nm_ode.plots.phase_diagram(study, quantity=shown, axes=axes)
axes[0].set_title("Distance between flow and run, over the motion")
axes[1].set_title("Order in the learning rate")
plt.show()
