"""Networks of scientific computing, and some of structure: written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.registry import Net, classified, network, regressed, supervised

B = 6


@network("MLP of tanh", "plain", "torch", "cross entropy")
def mlp() -> Net:
    return classified(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), torch.randn(B, 4), 3)


@network("Deep linear network", "plain", "torch", "squared error")
def linear() -> Net:
    model = nn.Sequential(
        nn.Linear(4, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False)
    )
    return regressed(model, torch.randn(B, 4), 2)


class Highway(nn.Module):
    """x + T(x)(H(x) − x), twice, between two layers (Srivastava et al. 2015)."""

    def __init__(self, d: int = 4) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, d), nn.Linear(d, 2)
        self.way, self.gate = (nn.ModuleList(nn.Linear(d, d) for _ in range(2)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for way, gate in zip(self.way, self.gate, strict=True):
            t = torch.sigmoid(gate(h))
            h = t * F.relu(way(h)) + (1 - t) * h
        return self.leave(h)  # type: ignore[no-any-return]


@network("Highway", "plain", "written out", "cross entropy")
def highway() -> Net:
    return classified(Highway(), torch.randn(B, 3), 2)


class DeepONet(nn.Module):
    """⟨branch(u), trunk(y)⟩ + b at all points (Lu et al. 2021)."""

    def __init__(self, rank: int = 3) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, rank))
        self.trunk = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, rank))
        self.bias = nn.Parameter(torch.randn(1))

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        u, y = pair
        return torch.einsum("br,bpr->bp", self.branch(u), self.trunk(y)) + self.bias


@network("DeepONet", "fields", "written out", "squared error")
def deeponet() -> Net:
    return supervised(DeepONet(), F.mse_loss, (torch.randn(B, 4), torch.randn(B, 5, 1)), torch.randn(B, 5))


class Spectral(nn.Module):
    """A product for each of the lowest frequencies (Li et al. 2021)."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.real, self.imaginary = (nn.Parameter(0.3 * torch.randn(width, width, modes)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        modes = self.real.shape[-1]
        spectrum = torch.fft.rfft(x)
        weight = torch.complex(self.real, self.imaginary)
        kept = torch.einsum("bix,iox->box", spectrum[..., :modes], weight)
        return torch.fft.irfft(F.pad(kept, (0, spectrum.shape[-1] - modes)), n=x.shape[-1])


class FNO(nn.Module):
    """Lift, two Fourier layers, projection."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.lift = nn.Conv1d(1, width, 1)
        self.spectral = nn.ModuleList(Spectral(width, 2) for _ in range(2))
        self.local = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(2))
        self.first, self.second = nn.Conv1d(width, 4, 1), nn.Conv1d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)
        h = F.gelu(self.spectral[0](h) + self.local[0](h))
        h = self.spectral[1](h) + self.local[1](h)
        return self.second(F.gelu(self.first(h)))  # type: ignore[no-any-return]


@network("FNO", "fields", "written out", "squared error")
def fno() -> Net:
    return regressed(FNO(), torch.randn(B, 1, 8), 1, 8)


class Sine(nn.Module):
    """sin(30 x), after each layer of a SIREN (Sitzmann et al. 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(3 * x)


@network("SIREN", "fields", "written out", "squared error")
def siren() -> Net:
    model = nn.Sequential(nn.Linear(2, 4), Sine(), nn.Linear(4, 4), Sine(), nn.Linear(4, 1))
    return regressed(model, torch.rand(B, 2), 1)


class PINN(nn.Module):
    """Solution of u'' + u = f, its derivatives taken inside forward (Raissi et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 3), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            u = self.net(x)
            (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
            (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
            return bend + u


@network("PINN", "fields", "written out", "squared residual")
def pinn() -> Net:
    return regressed(PINN(), torch.rand(B, 1), 1)


class NeRF(nn.Module):
    """Encoded positions, density, a colour that also sees the direction, a skip (Mildenhall et al. 2020)."""

    def __init__(self, d: int = 4) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(6, d), nn.Linear(d, d), nn.Linear(d + 6, d)
        self.density, self.feature = nn.Linear(d, 1), nn.Linear(d, d)
        self.colour = nn.Sequential(nn.Linear(d + 3, 3), nn.ReLU(), nn.Linear(3, 3), nn.Sigmoid())

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        points, direction = pair  # (rays, samples, 3), (rays, 3)
        x = torch.cat([torch.sin(points), torch.cos(points)], -1)
        h = F.relu(self.two(F.relu(self.one(x))))
        h = F.relu(self.three(torch.cat([h, x], -1)))
        density = F.relu(self.density(h)).squeeze(-1)
        seen = direction[:, None].expand(*h.shape[:-1], 3)
        colour = self.colour(torch.cat([self.feature(h), seen], -1))
        through = torch.exp(-F.pad(density.cumsum(1)[:, :-1], (1, 0)))
        return ((through * (1 - torch.exp(-density)))[..., None] * colour).sum(1)


@network("NeRF", "fields", "written out", "squared error of rendered colours")
def nerf() -> Net:
    rays = (torch.randn(B, 4, 3), torch.randn(B, 3))
    return supervised(NeRF(), F.mse_loss, rays, torch.rand(B, 3))


class KAN(nn.Module):
    """A function on every edge: SiLU and a sum of bumps (Liu et al. 2024; bumps as in FastKAN)."""

    def __init__(self, i: int, o: int, grid: int = 3) -> None:
        super().__init__()
        self.base, self.spline = nn.Parameter(torch.randn(o, i)), nn.Parameter(torch.randn(o, i, grid))
        self.register_buffer("centres", torch.linspace(-1, 1, grid))

    def forward(self, x: Tensor) -> Tensor:
        bumps = torch.exp(-(x[..., None] - self.centres).square())  # type: ignore[operator]
        return F.linear(F.silu(x), self.base) + torch.einsum("big,oig->bo", bumps, self.spline)


@network("KAN", "fields", "written out", "squared error")
def kan() -> Net:
    return regressed(nn.Sequential(KAN(3, 4), KAN(4, 2)), torch.randn(B, 3), 2)


class NeuralODE(nn.Module):
    """Four Runge–Kutta steps of one network (Chen et al. 2018)."""

    def __init__(self, d: int = 3) -> None:
        super().__init__()
        self.field = nn.Sequential(nn.Linear(d, 4), nn.ReLU(), nn.Linear(4, d))
        self.head = nn.Linear(d, 2)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            one = self.field(x)
            two = self.field(x + 0.25 * one)
            three = self.field(x + 0.25 * two)
            x = x + 0.5 / 6 * (one + 2 * two + 2 * three + self.field(x + 0.5 * three))
        return self.head(x)  # type: ignore[no-any-return]


@network("Neural ODE", "fields", "written out", "cross entropy")
def neural_ode() -> Net:
    return classified(NeuralODE(), torch.randn(B, 3), 2)


class Hyper(nn.Module):
    """A network whose weights another network writes from a condition (Ha et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.hyper = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3 * 3 + 2 * 3))

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        x, condition = pair
        weights = self.hyper(condition)
        first, second = weights[:, :9].unflatten(1, (3, 3)), weights[:, 9:].unflatten(1, (2, 3))
        return torch.bmm(second, F.relu(torch.bmm(first, x[..., None]))).squeeze(-1)


@network("Hypernetwork", "fields", "written out", "squared error")
def hyper() -> Net:
    return supervised(Hyper(), F.mse_loss, (torch.randn(B, 3), torch.randn(B, 2)), torch.randn(B, 2))


class Mixture(nn.Module):
    """Mixture density: weights, means, log widths (Bishop 1994)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.weights, self.means, self.widths = (nn.Linear(4, 2) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.body(x)
        return self.weights(h), self.means(h), self.widths(h)


@network("Mixture density", "plain", "written out", "log likelihood")
def mixture() -> Net:
    def loss(found: Any, y: Any) -> Tensor:
        weights, means, widths = found
        each = weights.log_softmax(1) - widths - 0.5 * ((y - means) / widths.exp()).square()
        return -each.logsumexp(1).mean()

    return supervised(Mixture(), loss, torch.randn(B, 3), torch.randn(B, 1))


class GLU(nn.Module):
    """Value and gate, two halves of one layer (Dauphin et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, 8), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.glu(self.enter(x)))  # type: ignore[no-any-return]


@network("Gated linear units", "plain", "written out", "cross entropy")
def glu() -> Net:
    return classified(GLU(), torch.randn(B, 3), 2)


class Maxout(nn.Module):
    """The largest of three pieces (Goodfellow et al. 2013)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, 12), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.enter(x).unflatten(1, (4, 3)).amax(2))  # type: ignore[no-any-return]


@network("Maxout", "plain", "written out", "cross entropy")
def maxout() -> Net:
    return classified(Maxout(), torch.randn(B, 3), 2)
