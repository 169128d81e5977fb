"""
Two parameters
==============

Two losses of two parameters with a symmetry each: gradient flow stays on the level set of the charge, descent leaves
it, and the modified flow goes a good part of descent's way.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import nm_ode

# %%
# The first loss is :math:`(1 - w_1 w_2)^2/2`, a deep linear network of one unit: :math:`w_1 \to \alpha w_1`,
# :math:`w_2 \to w_2/\alpha` changes nothing (rescale). In the second, least squares with :math:`x \cdot w/\|w\|`,
# only the direction of w counts, as with BatchNorm behind it (scale).


class Direction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, 1.2], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.weight / self.weight.norm())


def half_square(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(out, y) / 2


line = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
nn.utils.vector_to_parameters(torch.tensor([1.4, 0.1], dtype=torch.float64), line.parameters())
one, y = torch.ones(1, 1, dtype=torch.float64), torch.tensor([1.0, -0.4], dtype=torch.float64)
product = nm_ode.Problem(line, half_square, (one, one))
direction = nm_ode.Problem(Direction(), nn.functional.mse_loss, (torch.eye(2, dtype=torch.float64), y))

# %%
# A few large steps of each, and two flows to the same time. The dashed line is the level set of the charge through
# the start, along which gradient flow goes. A step of descent goes along the set's tangent instead, and so leaves it:
# the charge changes by :math:`\eta^2(g_1^2 - g_2^2)` in the first, and by :math:`\eta^2\|g\|^2` in the second, where
# descent only moves outwards. The modified flow has this drift to leading order in the learning rate.

plt.style.use(nm_ode.plots.STYLE)
fig, panels = plt.subplots(1, 2, figsize=(11, 6.9))
drift = {}
for ax, problem, lr, steps in zip(panels, (product, direction), (0.35, 0.9), (12, 14), strict=True):
    optimizer, symmetry = nm_ode.SGD(lr=lr), nm_ode.symmetries_of(problem)[0]
    observe = [nm_ode.Charges([symmetry])]
    run = nm_ode.train(problem, optimizer, steps, save_every=1, observe=observe)
    times = np.linspace(0, float(run.saved_time[-1]), 200)  # closer than the steps, for smooth curves
    flows = [nm_ode.GradientFlow(problem), nm_ode.modified_flow(problem, optimizer, 2, "hessian")]
    solutions = [nm_ode.solve(flow, times, rtol=1e-8, observe=observe) for flow in flows]
    nm_ode.plots.two_parameters(problem, run, *solutions, symmetry=symmetry, ax=ax)
    ax.set_title(f"{symmetry.kind} symmetry".capitalize())
    charges = {"descent": run.saved_charge}
    charges |= {nm_ode.solve_info(one).title: one.charge for one in solutions}
    drift[symmetry.kind] = {path: float(one[-1, 0] - one[0, 0]) for path, one in charges.items()}
plt.show()

# %%
# How far each path has moved the charge: gradient flow not at all, to the solver's tolerance.

for kind, moved in drift.items():
    print(f"{kind}: " + ", ".join(f"{by:+.1e} ({path})" for path, by in moved.items()))
