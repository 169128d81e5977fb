"""A plain PyTorch loop on handwritten digits, with nm_ode's recorder. What is added to the loop ends in `# +`.

Run it with `python examples/own_loop.py`.
"""

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

run = recorder.run
predicted = nm_ode.predict_charges(run, "exact")
motion = float(abs(run.charge - run.charge[0]).max())
error = float(abs(predicted.charge - run.charge).max())
print(nm_ode.run_info(run).optimizer_text)
print(f"loss {float(run.loss[0]):.3f} to {float(run.loss[-1]):.3f} in {run.sizes['step']} steps")
print(f"test accuracy {float(run.test_accuracy[0]):.2f} to {float(run.test_accuracy[-1]):.2f}")
print(
    f"{run.sizes['charge_index']} charges move by up to {motion:.2g}; the exact law misses them by {error:.1g}"
)
