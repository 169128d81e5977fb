"""A small vision transformer (Dosovitskiy et al. 2021), pre-norm."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode.errors import ArgumentError
from nm_ode.models.activations import activation as make
from nm_ode.models.options import Activation, Count, Depth
from nm_ode.models.seeding import seeded

Norm: TypeAlias = Literal["layer", "rms"]
Mixer: TypeAlias = Literal["mlp", "glu"]


class Attention(nn.Module):
    """Multi-head self-attention with separate query, key, value and output layers."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


class Mlp(nn.Module):
    """Linear, activation, Linear."""

    def __init__(self, dim: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.act = make(activation)
        self.down = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down(self.act(self.up(x)))
        return result


class Glu(nn.Module):
    """down(act(gate(x)) · up(x)) (Shazeer 2020)."""

    def __init__(self, dim: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(dim, hidden), nn.Linear(dim, hidden)
        self.act = make(activation)
        self.down = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down(self.act(self.gate(x)) * self.up(x))
        return result


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, dim: int, heads: int, mlp: nn.Module, norm: str) -> None:
        super().__init__()
        self.norm1, self.attention = _norm(norm, dim), Attention(dim, heads)
        self.norm2, self.mlp = _norm(norm, dim), mlp

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class ViT(nn.Module):
    """Patches, class token, positions, blocks, norm, Linear on the class token."""

    def __init__(
        self,
        *,
        image: int,
        patch: int,
        channels: int,
        classes: int,
        dim: int,
        depth: int,
        heads: int,
        hidden: int,
        norm: str,
        mlp: str,
        activation: str,
    ) -> None:
        super().__init__()
        if mlp not in ("mlp", "glu"):
            raise ArgumentError(f"mlp must be 'mlp' or 'glu'; {mlp!r} was given")
        self.patch = patch
        self.embed = nn.Linear(channels * patch * patch, dim)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.position = nn.Parameter(0.02 * torch.randn(1, (image // patch) ** 2 + 1, dim))
        kind = Glu if mlp == "glu" else Mlp
        self.blocks = nn.Sequential(
            *(Block(dim, heads, kind(dim, hidden, activation), norm) for _ in range(depth))
        )
        self.norm = _norm(norm, dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        p = self.patch
        x = x.unflatten(3, (-1, p)).unflatten(2, (-1, p)).permute(0, 2, 4, 1, 3, 5)
        x = self.embed(x.flatten(3).flatten(1, 2))
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.position
        result: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return result


def vit(
    *,
    image: int = 8,
    patch: Count = 2,
    channels: int = 1,
    classes: Count = 10,
    dim: Count = 32,
    depth: Depth = 2,
    heads: Count = 4,
    hidden: Count = 64,
    norm: Norm = "layer",
    mlp: Mixer = "mlp",
    activation: Activation = "gelu",
    seed: int = 0,
) -> ViT:
    """A small vision transformer in float64; the defaults fit scikit-learn's digits.

    Args:
        image: side of the square images.
        patch: side of the patches that they are cut into.
        channels: of the images.
        classes: number of outputs.
        dim: numbers of a token.
        depth: number of blocks.
        heads: of attention, in each block.
        hidden: width of the blocks' networks.
        norm: "layer" or "rms".
        mlp: "mlp" or "glu".
        activation: a key of ACTIVATIONS.
        seed: of the initialisation; torch's global random state is left as it was.

    Raises:
        ArgumentError: the patches do not cover the image, the heads do not divide dim, or an unknown norm or mlp.
        UnknownNameError: unknown activation.

    Example:
        >>> import torch
        >>> from nm_ode.models import vit
        >>> model = vit(image=8, patch=2, dim=16, depth=1, heads=2, hidden=32)
        >>> model(torch.ones(5, 1, 8, 8, dtype=torch.float64)).shape
        torch.Size([5, 10])
    """
    if image % patch or dim % heads:
        raise ArgumentError(
            f"patch must divide image, and heads must divide dim; {patch}, {image}, {heads}, {dim} were given"
        )
    with seeded(seed):
        return ViT(
            image=image,
            patch=patch,
            channels=channels,
            classes=classes,
            dim=dim,
            depth=depth,
            heads=heads,
            hidden=hidden,
            norm=norm,
            mlp=mlp,
            activation=activation,
        ).to(torch.float64)


def _norm(kind: str, dim: int) -> nn.Module:
    if kind == "layer":
        return nn.LayerNorm(dim)
    if kind == "rms":
        return nn.RMSNorm(dim)
    raise ArgumentError(f"norm must be 'layer' or 'rms'; {kind!r} was given")
