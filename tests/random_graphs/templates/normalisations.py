"""Normalisations, in training and in evaluation, and means and spreads taken away by hand."""

from __future__ import annotations

from tests.random_graphs.drawing import Drawer
from tests.random_graphs.templates.table import expressions, template

for _ in range(2):
    expressions(
        "normalisation",
        """
    F.normalize({x}, dim=-1) ; F.normalize({x}, dim=1) ; {x} - {x}.mean(-1, keepdim=True) ;
    {x} - {x}.mean(0) ; {x} / ({x}.norm(dim=-1, keepdim=True) + eps) ; torch.softmax({x}, -1) ;
    torch.log_softmax({x}, -1) ; {x} / ({x}.std(-1, keepdim=True) + eps) ; torch.softmax({x}, 1) ;
    ({x} - {x}.mean(0)) / ({x}.std(0) + eps) ;
    {x} * torch.rsqrt({x}.square().mean(-1, keepdim=True) + eps) ;
    ({x} - {x}.mean(-1, True)) * torch.rsqrt({x}.var(-1, keepdim=True, correction=0) + eps) ;
    {x} - {x}.amax(-1, keepdim=True) ; {x} / {x}.abs().sum(-1, keepdim=True) ;
    {x} / ({x}.abs().mean() + eps) ; torch.softmax({x} / 0.5, -1) * {x} ;
    {x} - torch.logsumexp({x}, -1, keepdim=True) ; {x} - {x}[..., :1] ; torch.renorm({x}, 2, 0, 1e-3) ;
    F.normalize({x}, p=1, dim=-1) ; F.softmin({x}, -1) ; F.gumbel_softmax({x}) ;
""",
    )


def _affine(drawer: Drawer, n: int) -> tuple[str | None, str | None]:
    gamma = drawer.weight(n) if drawer.chance(0.6) else None
    return gamma, drawer.weight(n) if gamma and drawer.chance(0.8) else None


@template("normalisation")
@template("normalisation")
@template("normalisation")
@template("normalisation")
@template("normalisation")
@template("normalisation")
def batch_norm(drawer: Drawer) -> str:
    x = drawer.tensor()
    n = drawer.shape(x)[1]
    gamma, beta = _affine(drawer, n)
    if drawer.chance(0.35):
        mean = drawer.normal(n)
        spread = drawer.constant(drawer.value(drawer.normal(n)).abs() + 0.5)
        return f"F.batch_norm({x}, {mean}, {spread}, {gamma}, {beta}, False, 0.1, eps)"
    return f"F.batch_norm({x}, None, None, {gamma}, {beta}, True, 0.1, eps)"


@template("normalisation")
@template("normalisation")
@template("normalisation")
@template("normalisation")
def layer_norm(drawer: Drawer) -> str:
    x = drawer.tensor()
    n = drawer.shape(x)[-1]
    if n < 3:
        return f"F.rms_norm({x}, ({n},), {drawer.weight(n)}, eps)"
    gamma, beta = _affine(drawer, n)
    return f"F.layer_norm({x}, ({n},), {gamma}, {beta}, eps)"


@template("normalisation")
@template("normalisation")
def rms_norm(drawer: Drawer) -> str:
    x = drawer.tensor()
    n = drawer.shape(x)[-1]
    return f"F.rms_norm({x}, ({n},), {drawer.weight(n) if drawer.chance(0.6) else None}, eps)"


@template("normalisation")
@template("normalisation")
def group_norm(drawer: Drawer) -> str:
    x = drawer.tensor()
    n = drawer.shape(x)[1]
    groups = 2 if n % 2 == 0 and drawer.chance(0.5) else 1
    gamma, beta = _affine(drawer, n)
    if len(drawer.shape(x)) > 2 and drawer.chance(0.4):
        return f"F.instance_norm({x}, None, None, {gamma}, {beta}, True, 0.1, eps)"
    return f"F.group_norm({x}, {groups}, {gamma}, {beta}, eps)"
