"""A network at the edge of stability; and a loss of two numbers with the flows beside it."""

import torch
from measured import panels
from torch import nn

import nm_ode
from nm_ode.data import diabetes
from nm_ode.models import mlp


class Valley(nn.Module):
    """L = (1 + y)x²/2 − 0.7y + 0.1y²: across it the curvature is 1 + y, and its floor falls along y."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.tensor([0.3, 2.0]))

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        x, y = self.place
        return (1 + y) * x**2 / 2 - 0.7 * y + 0.1 * y**2


data = diabetes(samples=200)
network = nm_ode.Problem(mlp([10, 8, 8, 1], "tanh"), nn.functional.mse_loss, (data.x, data.y))
sharpened = nm_ode.train(
    network, nm_ode.SGD(lr=0.2), steps=320, save_every=320, observe=[nm_ode.Curvature(points=30)]
)

valley = nm_ode.Problem.from_objective(Valley(), lambda model, batch: model(batch), torch.zeros(1, 1))
sgd = nm_ode.SGD(lr=0.5)
run = nm_ode.train(valley, sgd, steps=90)
gradient = nm_ode.solve(nm_ode.GradientFlow(valley), run, check=False)
central = nm_ode.solve(nm_ode.CentralFlow(valley, sgd), run, rtol=1e-3, check=False)

upper, lower = panels(2, 2.7)
upper.plot(sharpened.curvature_step, sharpened.normalised_sharpness, "o-", color="#223", markersize=3)
upper.set(title="A tanh network", xlabel="step k", ylabel=r"lr · $\lambda_{\max}$")
for ax in (upper, lower):
    ax.axhline(2, color="#d55e00", linewidth=1.2, linestyle="--")
lower.plot(run.saved_step, 0.5 * (1 + run.theta[:, 1]), color="#223", linewidth=1, label="run")
lower.plot(run.saved_step, 0.5 * (1 + gradient.theta[:, 1]), color="C0", label="gradient flow")
lower.plot(run.saved_step, 0.5 * (1 + central.theta[:, 1]), color="C2", label="central flow")
lower.set(title="A loss of two numbers", xlabel="step k", ylabel="lr · (1 + y)")
lower.legend()
