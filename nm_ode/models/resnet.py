"""ResNet-18 (He et al. 2016), with BatchNorm or GroupNorm."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from nm_ode.errors import ArgumentError
from nm_ode.models.options import Count, Factor
from nm_ode.models.seeding import seeded

Norm: TypeAlias = Literal["batch", "group"]

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))


class BasicBlock(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))."""

    def __init__(self, given: int, made: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, made, 3, stride=stride, padding=1, bias=False)
        self.norm1 = _norm(norm, made)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(made, made, 3, padding=1, bias=False)
        self.norm2 = _norm(norm, made)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and given == made
            else nn.Sequential(nn.Conv2d(given, made, 1, stride=stride, bias=False), _norm(norm, made))
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm1(self.conv1(x)))
        result: Tensor = self.relu(self.norm2(self.conv2(h)) + self.shortcut(x))
        return result


class ResNet18(nn.Module):
    """A 3×3 stem as for small images, four stages of two blocks, global average, Linear."""

    def __init__(self, classes: int, channels: int, norm: str, width: float) -> None:
        super().__init__()
        widths = [max(8, 8 * round(n * width / 8)) for n, _ in STAGES]
        self.conv = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.norm = _norm(norm, widths[0])
        self.relu = nn.ReLU()
        stages = []
        given = widths[0]
        for made, (_, stride) in zip(widths, STAGES, strict=True):
            stages.append(
                nn.Sequential(BasicBlock(given, made, stride, norm), BasicBlock(made, made, 1, norm))
            )
            given = made
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(given, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stages(self.relu(self.norm(self.conv(x))))
        result: Tensor = self.linear(self.pool(h).flatten(1))
        return result


def resnet18(
    *, classes: Count = 200, channels: int = 3, norm: Norm = "batch", width: Factor = 1.0, seed: int = 0
) -> ResNet18:
    """ResNet-18 for images of any size, in float64.

    Args:
        classes: number of outputs.
        channels: of the images.
        norm: "batch" or "group" (8 channels or more in each of up to 8 groups).
        width: factor on all widths, which stay multiples of 8.
        seed: of the initialisation; torch's global random state is left as it was.

    Raises:
        ArgumentError: unknown norm.

    Example:
        >>> import torch
        >>> from nm_ode.models import resnet18
        >>> model = resnet18(classes=10, norm="group", width=0.125)
        >>> model(torch.ones(2, 3, 32, 32, dtype=torch.float64)).shape
        torch.Size([2, 10])
    """
    with seeded(seed):
        return ResNet18(classes, channels, norm, width).to(torch.float64)


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(8 if channels >= 64 else 2, channels)
    raise ArgumentError(f"norm must be 'batch' or 'group'; {kind!r} was given")
