"""Loops to record: small, seeded, and with a witness of their own beside the recorder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import nm_ode


class Seen(nm_ode.Observer):
    """Every vector that an observer can ask for, as it is at that moment."""

    variables: Mapping[str, nm_ode.Variable] = {
        "seen_theta": nm_ode.Variable(("param",), "theta"),
        "seen_gradient": nm_ode.Variable(("param",), "gradient"),
    }
    update_variables: Mapping[str, nm_ode.Variable] = {
        "seen_update": nm_ode.Variable(("param",), "update"),
        "gradient_after": nm_ode.Variable(("param",), "gradient, asked for after the step"),
        "theta_after": nm_ode.Variable(("param",), "theta after the step"),
    }

    def observe(self, view: nm_ode.View) -> Mapping[str, Any]:
        return {"seen_theta": view.theta, "seen_gradient": view.gradient}

    def observe_update(self, view: nm_ode.View) -> Mapping[str, Any]:
        return {"seen_update": view.update, "gradient_after": view.gradient, "theta_after": view.theta}


def flat(tensors: Any) -> Tensor:
    return torch.cat([t.detach().to_dense().contiguous().flatten() for t in tensors]).double()


@dataclass
class Witness:
    """What a loop notes down itself, with no hook."""

    thetas: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)

    def before(self, model: nn.Module, optimizer: torch.optim.Optimizer, loss: float) -> None:
        parameters = list(model.parameters())
        self.thetas.append(flat(parameters))
        self.gradients.append(flat(torch.zeros_like(p) if p.grad is None else p.grad for p in parameters))
        self.losses.append(loss)
        self.lrs.append(float(optimizer.param_groups[0]["lr"]))

    def step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, recorder: nm_ode.Recorder, loss: Tensor
    ) -> None:
        """A step of a plain loop, once its loss is there."""
        loss.backward()
        recorder.loss(loss)
        self.before(model, optimizer, loss.item())
        optimizer.step()

    def end(self, model: nn.Module) -> None:
        self.thetas.append(flat(model.parameters()))

    def agrees_with(self, run: Any, tolerance: float = 1e-12) -> None:
        """The run has these numbers, and no others."""
        thetas = torch.stack(self.thetas)
        expected = {
            "seen_theta": thetas[:-1],
            "theta_after": thetas[1:],
            "seen_gradient": torch.stack(self.gradients),
            "gradient_after": torch.stack(self.gradients),
            "seen_update": thetas.diff(dim=0),
            "loss": torch.tensor(self.losses, dtype=torch.float64),
            "lr": torch.tensor(self.lrs, dtype=torch.float64),
        }
        for name, wanted in expected.items():
            found = torch.from_numpy(run[name].values).double()
            torch.testing.assert_close(
                found, wanted, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}"
            )


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).to(dtype)


def batches(count: int, dtype: torch.dtype = torch.float64, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [
        (
            torch.randn(size, 4, generator=generator).to(dtype),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


Make = Callable[[nn.Module], torch.optim.Optimizer]


STEPS = 7


def recorder_of(model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> nm_ode.Recorder:
    """One that sees what a witness sees."""
    return nm_ode.Recorder(model, optimizer, observe=[Seen()], **options)
