"""Autoencoders, adversarial networks and those that learn from pairs: written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.registry import Net, network

B = 6


class Tied(nn.Module):
    """Encoder and decoder of one weight, biases of their own (Vincent et al. 2010)."""

    def __init__(self, linear: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, 3)
        self.bias = nn.Parameter(torch.randn(5))
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x)
        return F.linear(h if self.linear else F.relu(h), self.encoder.weight.T, self.bias)


@network("Autoencoder, tied decoder", "generation", "written out", "squared error to the input")
def tied_autoencoder() -> Net:
    return Net(Tied(), lambda model, x: F.mse_loss(model(x), x), torch.randn(B, 5))


@network("Autoencoder, deep", "generation", "written out", "squared error to the input")
def autoencoder() -> Net:
    model = nn.Sequential(
        nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2), nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 5)
    )
    return Net(model, lambda model, x: F.mse_loss(model(x), x), torch.randn(B, 5))


class VAE(nn.Module):
    """Mean and log variance of two latents; the noise is part of the batch (Kingma and Welling 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(4, 2), nn.Linear(4, 2)
        self.decoder = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 5))

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(2 * x - 1)
        mean, log_variance = self.mean(h), self.log_variance(h)
        return self.decoder(mean + noise * (0.5 * log_variance).exp()), mean, log_variance


def _elbo(model: Any, batch: Any) -> Tensor:
    x, noise = batch
    decoded, mean, log_variance = model(x, noise)
    divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
    return F.binary_cross_entropy_with_logits(decoded, x, reduction="sum") / len(x) + divergence


@network("VAE", "generation", "written out", "evidence bound")
def vae() -> Net:
    return Net(VAE(), _elbo, (torch.rand(B, 5), torch.randn(B, 2)))


def _generator() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(3, 4, 2, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(True),
        nn.ConvTranspose2d(4, 3, 4, 2, 1, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(True),
        nn.ConvTranspose2d(3, 2, 4, 2, 1, bias=False),
        nn.Tanh(),
    )


def _discriminator() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2),
        nn.Conv2d(3, 4, 4, 2, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 1, 2, bias=False),
        nn.Flatten(),
    )


class Generator(nn.Module):
    """The generator before a critic that does not train in this step (Radford et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = _generator()
        self.critic = _discriminator().requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        return self.critic(self.generator(z))  # type: ignore[no-any-return]


@network("DCGAN, generator", "generation", "written out", "non-saturating")
def dcgan_generator() -> Net:
    return Net(Generator(), lambda model, z: F.softplus(-model(z)).mean(), torch.randn(B, 3, 1, 1))


@network("DCGAN, discriminator", "generation", "written out", "binary cross entropy")
def dcgan_discriminator() -> Net:
    def loss(model: Any, batch: Any) -> Tensor:
        real, made = batch
        return F.softplus(-model(real)).mean() + F.softplus(model(made)).mean()

    return Net(_discriminator(), loss, (torch.randn(B, 2, 8, 8), torch.randn(B, 2, 8, 8)))


@network("WGAN critic", "generation", "written out", "difference of means")
def wgan() -> Net:
    def loss(model: Any, batch: Any) -> Tensor:
        real, made = batch
        return model(made).mean() - model(real).mean()

    model = nn.Sequential(
        nn.Linear(4, 5), nn.LeakyReLU(0.2), nn.Linear(5, 5), nn.LeakyReLU(0.2), nn.Linear(5, 1)
    )
    return Net(model, loss, (torch.randn(B, 4), torch.randn(B, 4)))


@network("WGAN critic, gradient penalty", "generation", "written out", "difference of means, slope 1")
def wgan_gp() -> Net:
    def loss(model: Any, batch: Any) -> Tensor:
        real, made = batch
        with torch.enable_grad():
            between = (0.3 * real + 0.7 * made).requires_grad_()
            (slope,) = torch.autograd.grad(model(between).sum(), between, create_graph=True)
        return model(made).mean() - model(real).mean() + 10 * (slope.norm(dim=1) - 1).square().mean()

    model = nn.Sequential(
        nn.Linear(4, 5), nn.LeakyReLU(0.2), nn.Linear(5, 5), nn.LeakyReLU(0.2), nn.Linear(5, 1)
    )
    return Net(model, loss, (torch.randn(B, 4), torch.randn(B, 4)))


class Siamese(nn.Module):
    """One network on both sides, contrastive loss (Hadsell et al. 2006)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return (self.branch(one) - self.branch(other)).square().sum(1)


@network("Siamese", "pairs", "written out", "contrastive")
def siamese() -> Net:
    def loss(model: Any, batch: Any) -> Tensor:
        one, other, same = batch
        square = model(one, other)
        return (same * square + (1 - same) * F.relu(2 - square.sqrt()).square()).mean()

    return Net(Siamese(), loss, (torch.randn(B, 5), torch.randn(B, 5), torch.randint(2, (B,)).float()))


class SimSiam(nn.Module):
    """Encoder with BatchNorm, predictor, gradients stopped on one side (Chen and He 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(5, 4, bias=False),
            nn.BatchNorm1d(4),
            nn.ReLU(True),
            nn.Linear(4, 4, bias=False),
            nn.BatchNorm1d(4, affine=False),
        )
        self.predictor = nn.Sequential(
            nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3), nn.ReLU(True), nn.Linear(3, 4)
        )

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        z1, z2 = self.encoder(one), self.encoder(other)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return -0.5 * (
            F.cosine_similarity(p1, z2.detach()).mean() + F.cosine_similarity(p2, z1.detach()).mean()
        )


@network("SimSiam", "pairs", "written out", "cosine, stopped gradient")
def simsiam() -> Net:
    return Net(SimSiam(), lambda model, batch: model(*batch), (torch.randn(8, 5), torch.randn(8, 5)))
