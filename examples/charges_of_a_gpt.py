"""
Charges of a small GPT
======================

Every symmetry of an architecture has a charge that gradient flow conserves. SGD sets it in motion, by a law that one
can solve. Here for a transformer with torch's own attention, by minibatches with momentum and weight decay.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import nm_ode

# %%
# One causal block, and sequences in which each token is the one before the last: any model, loss and batch will do.


class GPT(nn.Module):
    def __init__(self, vocabulary: int = 11, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(8, width)
        self.block = nn.TransformerEncoderLayer(width, heads, 32, 0.0, batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], dtype=x.dtype)
        return self.head(self.norm(self.block(x, mask, is_causal=True)))


def next_token(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


torch.manual_seed(0)
ids = torch.randint(11, (256, 2)).repeat(1, 4)
problem = nm_ode.Problem.from_objective(GPT(), next_token, ids)

# %%
# The symmetries are found in the graph of model and loss, and each is verified: what enters a LayerNorm or a softmax
# can be shifted, the residual stream be scaled, hidden units and norms be rescaled against what reads them, and
# queries against keys, values against the output, be multiplied by any matrix and its inverse.

symmetries = nm_ode.symmetries_of(problem)
kinds = ("translation", "scale", "rescale", "matrix")
print(", ".join(f"{kind}: {symmetries.n_charges(kind)} charges" for kind in kinds))

# %%
# Their charges along the run, and two laws: the exact one, step by step from the recorded updates, and the
# differential equation of second order in time of Neural Mechanics.

sgd = nm_ode.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3)
run = nm_ode.train(problem, sgd, steps=150, batch_size=32, observe=[nm_ode.Charges(symmetries)])
laws = {law: nm_ode.predict_charges(run, law) for law in ("exact", "second_order")}
worst = {law: nm_ode.compare(run, one).symmetry_relative_error.max("step") for law, one in laws.items()}
for law, errors in worst.items():
    print(f"{law}: misses the charges of a symmetry by at most {float(errors.max()):.0e} of their motion")

# %%
# One symmetry of each kind, with at most eight of its charges. Where plain gradient flow would draw horizontal lines,
# a translation decays with the weights, the others go where decay and the size of the steps take them, and the
# second-order law (dashed) goes with them.

plt.style.use(nm_ode.plots.STYLE)
fig, axes = plt.subplots(2, 2, figsize=(9, 6.6))
nm_ode.plots.charge_grid(nm_ode.plots.as_tree(run, laws["second_order"]), channels=8, axes=axes)
for ax, unit in zip(axes.flat, ("θ", "θ²", "θ²", "θ²"), strict=True):
    ax.set_ylabel(f"charge Q  (units of {unit})")
fig.suptitle("Charges of a small GPT and their second-order law (dashed)")
plt.show()
