"""A loop of one's own on a small network with BatchNorm and dropout, and what it ends with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.drop, self.read = nn.Dropout(0.3), nn.Linear(4 * 16, 5)

    def forward(self, x):
        return self.read(self.drop(F.relu(self.norm(self.conv(x)))).flatten(1))


def data() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    return torch.randn(96, 1, 6, 6, generator=source), torch.randint(0, 5, (96,), generator=source)


def probe() -> tuple[Tensor, Tensor]:
    x, y = data()
    return x[:24], y[:24]


def loop(
    observe: Sequence[nm_ode.Observer] | None,
    *,
    steps: int = 50,
    amp: bool = False,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
):
    """The model, the optimiser, the next random number and, where something observes, the run."""
    torch.manual_seed(3)
    model = Net()
    called = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = data()
    recorder = None if observe is None else nm_ode.Recorder(called, optimizer, observe=observe)
    with nullcontext() if recorder is None else recorder:
        for _ in range(steps):
            some = torch.randperm(len(x))[:16]
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
                loss = F.cross_entropy(called(x[some]), y[some])
            loss.backward()
            if recorder is not None:
                recorder.loss(loss)
            optimizer.step()
    return model, optimizer, torch.rand(3), None if recorder is None else recorder.run


def assert_same(one, other) -> None:
    """Bit for bit: parameters, running statistics, momentum, modes, gradients, and the next random numbers."""
    for a, b in zip(one[0].state_dict().values(), other[0].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for p, q in zip(one[0].parameters(), other[0].parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
        a, b = one[1].state[p]["momentum_buffer"], other[1].state[q]["momentum_buffer"]
        assert torch.equal(a, b)
    assert [m.training for m in one[0].modules()] == [m.training for m in other[0].modules()]
    assert torch.equal(one[2], other[2])
