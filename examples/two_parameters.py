"""Two losses of two parameters with a symmetry, and what descent does to its charge: a figure of two panels.

Run it with `python examples/two_parameters.py [picture.png]`.
"""

import sys

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

import nm_ode


class Direction(nn.Module):
    """x·w/‖w‖: only the direction of w counts, as with BatchNorm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, 1.2], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.weight / self.weight.norm())


def product() -> nm_ode.Problem:
    """(1 − w₁w₂)²/2: a deep linear network of one unit. w₁ → αw₁, w₂ → w₂/α changes nothing."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.fill_(1.4)
        model[1].weight.fill_(0.1)
    one = torch.ones(1, 1, dtype=torch.float64)
    return nm_ode.Problem(model, lambda out, y: nn.functional.mse_loss(out, y) / 2, (one, one))


def direction() -> nm_ode.Problem:
    """Least squares with a direction. w → αw changes nothing."""
    x = torch.eye(2, dtype=torch.float64)
    y = torch.tensor([1.0, -0.4], dtype=torch.float64)
    return nm_ode.Problem(Direction(), nn.functional.mse_loss, (x, y))


figure = Figure(figsize=(11, 7), layout="constrained")
drift = {}
for axes, problem, lr, steps in zip(
    figure.subplots(1, 2), (product(), direction()), (0.35, 0.9), (12, 14), strict=True
):
    optimizer = nm_ode.SGD(lr=lr)
    symmetry = nm_ode.symmetries_of(problem)[0]
    observe = [nm_ode.Charges([symmetry])]
    run = nm_ode.train(problem, optimizer, steps, save_every=1, observe=observe)
    flows = [nm_ode.GradientFlow(problem), nm_ode.modified_flow(problem, optimizer, 2, "hessian")]
    # Closer than the steps, for smooth curves.
    times = np.linspace(0, nm_ode.run_info(run).grid.times[-1], 200)
    solutions = [nm_ode.solve(flow, times, rtol=1e-8, observe=observe) for flow in flows]
    nm_ode.plots.two_parameters(problem, run, *solutions, symmetry=symmetry, ax=axes)
    axes.set_title(f"{symmetry.kind} symmetry")
    drift[symmetry.kind] = {
        "descent": float(run.saved_charge[-1, 0] - run.saved_charge[0, 0]),
        **{str(one.attrs["flow"]): float(one.charge[-1, 0] - one.charge[0, 0]) for one in solutions},
    }

for kind, moved in drift.items():
    print(f"{kind}: the charge moved by " + ", ".join(f"{by:+.1e} ({path})" for path, by in moved.items()))
path = sys.argv[1] if len(sys.argv) > 1 else "two_parameters.png"
figure.savefig(path, dpi=110)
print(f"the picture is {path}")
