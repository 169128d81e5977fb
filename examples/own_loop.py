"""
A loop of your own
==================

A plain PyTorch loop with one ``with`` line more records its run: loss, scores, and the charges of the network's
symmetries, which momentum and weight decay move by a law that needs no fit.
"""

# %%
# The loop is a usual one, with dropout, minibatches, momentum and a cosine schedule. What is added to it ends in ``#
# +``; the steps that it takes are the same, bit for bit.

import matplotlib.pyplot as plt
import torch
from torch import nn

import nm_ode  # +
from nm_ode.data import digits


def accuracy(model: nn.Module) -> torch.Tensor:
    return (model(test_x).argmax(-1) == test_y).double().mean()


torch.manual_seed(0)
data = digits()
x, y = data.x.float(), data.y
train_x, train_y, test_x, test_y = x[:1400], y[:1400], x[1400:], y[1400:]
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10 * 14)

symmetries = nm_ode.find_symmetries(model, train_x[:8], loss="cross_entropy")  # +
observe = [nm_ode.Charges(symmetries), nm_ode.Scores({"test_accuracy": accuracy}, every=20)]  # +
with nm_ode.Recorder(model, optimizer, observe=observe) as recorder:  # +
    for _ in range(10):
        for batch in torch.randperm(len(train_x)).split(100):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(train_x[batch]), train_y[batch])
            loss.backward()
            recorder.loss(loss)  # +
            optimizer.step()
            scheduler.step()

# %%
# ``recorder.run`` is an xarray dataset, as :py:obj:`nm_ode.train` gives it. The exact law takes the recorded updates
# and gives the charges; the loop is in float32, so it meets the recorded ones to some 1e-5 of their motion.

run = recorder.run
predicted = nm_ode.predict_charges(run, "exact")
motion = float(abs(run.charge - run.charge[0]).max())
error = float(abs(predicted.charge - run.charge).max())
print(nm_ode.run_info(run).optimizer_text)
print(f"loss {float(run.loss[0]):.3f} to {float(run.loss[-1]):.3f} in {run.sizes['step']} steps")
print(f"test accuracy {float(run.test_accuracy[0]):.2f} to {float(run.test_accuracy[-1]):.2f}")
print(f"{run.sizes['charge_index']} charges move by up to {motion:.2g}; the law misses them by {error:.1g}")

# %%
# Left: the loss of each batch falls by an order of magnitude. Right: around each hidden unit the weights that enter
# can be rescaled against those that leave, which has the charge :math:`Q = \|\theta_A\|^2 - \|\theta_B\|^2`. Gradient
# flow would keep every Q. Here each goes its own way, and the dashed line, the law, lies on it.

plt.style.use(nm_ode.plots.STYLE)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
left.semilogy(run.time, run.loss, lw=1)
left.set(title="Loss of each batch\n", xlabel="flow time t", ylabel="cross-entropy")
rescale = next(symmetry for symmetry in symmetries if symmetry.kind == "rescale")
nm_ode.plots.charge_grid(nm_ode.plots.as_tree(run, predicted), symmetries=[rescale], axes=right)
right.set_title("Charges of the hidden units, and their law\n")
right.set_ylabel(r"$\|\theta_A\|^2 - \|\theta_B\|^2$  (units of θ²)")
plt.show()
