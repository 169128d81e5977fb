"""VGG (Simonyan & Zisserman 2015), with and without BatchNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from torch import nn

from nm_ode.errors import ArgumentError
from nm_ode.models.options import Count, Factor
from nm_ode.models.seeding import seeded

PLANS: dict[int, tuple[int | Literal["M"], ...]] = {
    11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    13: (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    16: (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
    19: (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"),
}
"""VGG's depth → channels of its convolutions; "M" is a 2×2 max-pooling.

Example:
    >>> from nm_ode.models import PLANS
    >>> PLANS[11]
    (64, 'M', 128, 'M', 256, 256, 'M', 512, 512, 'M', 512, 512, 'M')
"""


def vgg(
    depth: Literal[11, 13, 16, 19] | None = None,
    *,
    classes: Count = 200,
    image: int = 64,
    channels: int = 3,
    batch_norm: bool = False,
    hidden: Sequence[Count] = (4096, 4096),
    width: Factor = 1.0,
    plan: Annotated[Sequence[Count | Literal["M"]], MinLen(1)] | None = None,
    seed: int = 0,
) -> nn.Sequential:
    """Convolutions, then Linear layers, in float64; as in Neural Mechanics by default: 64×64 images, 200 classes.

    Either `depth` or `plan` says which convolutions.

    Args:
        depth: 11, 13, 16 or 19.
        classes: number of outputs.
        image: side of the square images; each "M" of the plan halves it, rounding down.
        channels: of the images.
        batch_norm: a BatchNorm after each convolution.
        hidden: widths between the convolutions and the classes.
        width: factor on all widths, for a smaller network of the same shape.
        plan: channels and "M".
        seed: of the initialisation; torch's global random state is left as it was.

    Raises:
        ArgumentError: depth and plan both or neither, unknown depth, or an image that the poolings leave nothing of.

    Example:
        >>> import torch
        >>> from nm_ode.models import vgg
        >>> model = vgg(plan=[8, "M", 16, "M"], classes=10, image=8, channels=1, hidden=[32])
        >>> model(torch.ones(5, 1, 8, 8, dtype=torch.float64)).shape
        torch.Size([5, 10])
    """
    if (depth is None) == (plan is None):
        raise ArgumentError(
            f"give depth or plan, one of the two; depth = {depth} and plan = {plan} were given"
        )
    if depth is not None:
        if depth not in PLANS:
            raise ArgumentError(f"depth must be one of {', '.join(map(str, PLANS))}; {depth} was given")
        plan = PLANS[depth]
    assert plan is not None
    side = image >> sum(step == "M" for step in plan)
    if side < 1:
        raise ArgumentError(
            f"image = {image} is too small: {sum(step == 'M' for step in plan)} poolings leave nothing of it"
        )

    def scaled(n: int) -> int:
        return max(1, round(n * width))

    with seeded(seed):
        features: list[nn.Module] = []
        given = channels
        for step in plan:
            if isinstance(step, str):
                features.append(nn.MaxPool2d(2))
                continue
            made = scaled(step)
            features.append(nn.Conv2d(given, made, 3, padding=1))
            if batch_norm:
                features.append(nn.BatchNorm2d(made))
            features.append(nn.ReLU())
            given = made
        classifier: list[nn.Module] = []
        inputs = given * side * side
        for n in hidden:
            classifier += [nn.Linear(inputs, scaled(n)), nn.ReLU()]
            inputs = scaled(n)
        classifier.append(nn.Linear(inputs, classes))
        model = nn.Sequential()
        model.add_module("features", nn.Sequential(*features))
        model.add_module("flatten", nn.Flatten())
        model.add_module("classifier", nn.Sequential(*classifier))
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
    return model.to(torch.float64)
