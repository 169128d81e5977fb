"""Entry by entry: activations, numbers, weights beside results, and two results."""

from __future__ import annotations

from tests.random_graphs.drawing import Drawer
from tests.random_graphs.templates.table import expressions, template

for _ in range(12):  # what networks are made of
    expressions(
        "activation",
        """
    torch.relu({x}) ; torch.tanh({x}) ;
""",
    )
expressions(
    "activation",
    """
    F.leaky_relu({x}, 0.1) ; torch.abs({x}) ; -{x} ; {x} * 1.7 ; {x} / 2 ; {x} + 0.7 ; 0.3 - {x} ;
    F.gelu({x}) ; torch.square({x}) ; {x}.abs().sqrt() ; {x}.sign() * {x}.abs().sqrt() ; {x} * ({x} > 0) ;
    torch.where({x} > 0, {x}, 0.1 * {x}) ; {x}.clamp(-1, 1) ; {x}.clamp(min=0) ; F.elu({x}) ;
    F.softplus({x}) ; F.hardtanh({x}) ; F.relu6({x}) ; {x}.pow(3) ; {x} ** 2 ; F.dropout({x}, 0.3, True) ;
    F.dropout({x}, 0.3, False) ; torch.sigmoid({x}) ; F.silu({x}) ; F.hardswish({x}) ;
    F.threshold({x}, 0.0, 0.0) ; torch.exp(-{x} * {x}) ; F.selu({x}) ; F.softshrink({x}, 0.2) ;
    F.hardshrink({x}, 0.1) ; F.glu({x}, -1) ; torch.rsub({x}, 1.0, alpha=2) ; {x}.detach() ;
    without_gradient(lambda: {x} * 1.0) ; {x} + torch.zeros_like({x}) ; {x}.to(torch.float64) ;
    {x} - {x}.detach() ; {x} / {x}.detach().abs().mean() ; torch.nan_to_num({x}) ;
    {x}.masked_fill({x} < 0, 0.0) ; {x}.masked_fill({x} < 0, -1.0) ; torch.sign({x}) + {x} ;
    F.relu({x}) - F.relu(-{x}) ; {x} * {x} ; {x} / ({x}.abs() + 0.5) ; F.softsign({x}) ;
    torch.maximum({x}, -{x}) ; {x}.round() * 0.1 + {x} ; torch.zeros_like({x}) ;
    torch.ones_like({x}) * {x} ; F.rrelu({x}, training=False) ; F.celu({x}) ;
 torch.atan({x}) ; {x}.abs().log1p() ; {x}.lerp(-{x}, 0.3) ;
    {x}.clamp(min=1e-4) ; {x}.clamp_min(1e-3) ; {x} / ({x}.square() + eps) ; ({x}.square() + eps).sqrt() ;
    {x} + 1e-4 ; torch.where({x} > 0.1, {x}, 0.0) ; {x} * ({x} >= {x}.mean(-1, keepdim=True)) ; {x} ** 0 ;
    {x} * ({x} > 0).sum(-1, keepdim=True) ; {x} + ({x} > 0).double() ; 2.0 ** -{x}.abs() ;
    {x}.floor() + {x} ; torch.clamp({x}, min=-{x}.abs()) ; F.threshold({x}, 0.1, 0.0) ; {x} % 1.0 ;
    {x}.trunc() + {x} ; {x} * 0.0 + {x} ;
""",
)
expressions(
    "pair",
    """
    {x} + {o} ; {x} + {o} ; {x} + {o} ; {x} + {o} ; {x} + {o} ; {x} + {o} ; {x} * {o} ; {x} * {o} ;
    {x} * {o} ; {x} - {o} ; torch.add({x}, {o}, alpha=0.5) ; torch.sub({x}, {o}, alpha=2) ;
    torch.rsub({x}, {o}) ; torch.maximum({x}, {o}) ; torch.minimum({x}, {o}) ;
    torch.where({x} > {o}, {x}, {o}) ; torch.lerp({x}, {o}, 0.3) ;
    torch.lerp({x}, {o}, torch.sigmoid({x})) ; torch.hypot({x}, {o}) ; {x} * torch.sigmoid({o}) ;
    {x} * F.silu({o}) ; torch.atan2({x}, {o}) ; torch.logaddexp({x}, {o}) ; torch.addcmul({x}, {x}, {o}) ;
    torch.addcmul({x}, {o}, {o}, value=0.3) ; torch.fmax({x}, {o}) ; torch.copysign({x}, {o}) ;
    {x} * ({o} > 0) ; {x} / ({o}.abs() + {x}.abs() + eps) ; {x} * {o}.sign() ;
    torch.where({o} > 0, {x}, 0.0) ; torch.where({o} > 0, {x}, -{x}) ; torch.where({o} > 0.1, {x}, {o}) ;
    torch.stack([{x}, {o}]).sum(0) ; torch.stack([{x}, {o}], -1).amax(-1) ;
    torch.stack([{x}, {o}], 1).mean(1) ; torch.cat([{x}, {o}], -1) ; torch.cat([{x}, {o}], -1) ;
    torch.cat([{x}, {o}], 1) ; {x} + {o}.detach() ; {x}.masked_fill({o} > 0, 0.0) ; {x} / {o}.exp() ;
    torch.addcdiv({x}, {o}, {o}.exp()) ; torch.xlogy({x}, {o}.exp()) ; torch.clamp({x}, max={o}) ;
    torch.fmod({x}, {o}.exp()) ; torch.dist({x}, {o}) * {x} ; ({x} - {o}).abs() ; ({x} - {o}).square() ;
""",
)


@template("weighted")
@template("weighted")
@template("weighted")
def beside(drawer: Drawer) -> str:
    """A weight along the last dimension, or along others, or the whole, beside a result."""
    x = drawer.tensor()
    shape = drawer.shape(x)
    form = drawer.choice(
        [
            *["{x} + {w}"] * 4,
            *["{x} * {w}"] * 3,
            *["{x} - {w}", "{w} - {x}", "{x} / ({w}.abs() + eps)", "torch.addcmul({w}, {x}, {w2})"],
            *[
                "torch.add({x}, {w}, alpha=2)",
                "torch.lerp({x}, {w}, 0.3)",
                "{x} * (1 + {w})",
                "{x} * {w} + {w2}",
            ],
            *["torch.maximum({x}, {w})", "torch.where({x} > 0, {x}, {w} * {x})", "{x} + {w} + {w2}"],
            *["torch.lerp({x}, {w}.expand_as({x}), {w2}.sigmoid())", "torch.where({x} > {w}, {x}, 0.0)"],
            *[
                "{x} * torch.sigmoid({w})",
                "{x} * {w}.exp()",
                "{x} + {w} * {w2}",
                "torch.relu({x} + {w}) - {w}",
            ],
            *[
                "torch.clamp({x}, max={w})",
                "torch.hypot({x}, {w})",
                "{x} * ({w} > 0)",
                "torch.where({w} > 0, {x}, 0.0)",
            ],
        ]
    )

    def one() -> str:
        full = shape[1:]
        sizes = drawer.choice(
            [
                full[-1:],
                full[-1:],
                full,
                full[:1] + (1,) * (len(full) - 1),
                (1,),
                (1,) * (len(full) - 1) + full[-1:],
            ]
        )
        return drawer.weight(*sizes)

    return form.format(x=x, w=one(), w2=one() if "{w2}" in form else "")


@template("weighted")
def prelu(drawer: Drawer) -> str:
    x = drawer.tensor()
    return f"F.prelu({x}, {drawer.weight(drawer.choice([1, drawer.shape(x)[1]]))})"


@template("weighted")
def known(drawer: Drawer) -> str:
    x = drawer.tensor()
    c = drawer.normal(*drawer.shape(x)[-1:])
    m = drawer.mask(*drawer.shape(x)[-1:])
    form = drawer.choice(
        [
            *[
                "{x} * {c}",
                "{x} + {c}",
                "{x} * {m}",
                "{x}.masked_fill({m}, 0.0)",
                "{x}.masked_fill({m}, -1e4)",
            ],
            *[
                "torch.where({m}, {x}, 0.0)",
                "torch.where({m}, {x}, -{x})",
                "{x} / {c}.abs()",
                "{x} * {c}.abs()",
            ],
            *[
                "torch.where({m}, {x}, {c})",
                "{x} * {m}.double()",
                "torch.lerp({x}, {c}, 0.5)",
                "{x}.masked_fill(~{m}, 1.0)",
            ],
        ]
    )
    return form.format(x=x, c=c, m=m)


@template("weighted")
def by_data(drawer: Drawer) -> str:
    """Masks and numbers of the batch."""
    x = drawer.tensor()
    if drawer.shape(x)[1:] == (4,):
        return drawer.choice(
            [f"{x}.masked_fill(on, 0.0)", f"torch.where(on, {x}, 0.0)", f"{x} * on", f"{x} + x"]
        )
    rest = "[:, None]" * (len(drawer.shape(x)) - 1)
    return drawer.choice(
        [
            f"{x} * k{rest}",
            f"{x} + k{rest}",
            f"torch.where(k{rest} > 1, {x}, 0.0)",
            f"torch.where(k{rest} > 1, {x}, -{x})",
            f"{x} * x[:, 0]{rest}",
        ]
    )


@template("pair")
def residual(drawer: Drawer) -> str:
    """Of a result with one that a layer makes of it."""
    x = drawer.tensor()
    k = drawer.shape(x)[-1]
    bias = drawer.weight(k) if drawer.chance(0.5) else None
    act = drawer.choice(["torch.relu", "torch.tanh", "F.gelu", ""])
    return f"{x} + F.linear({act}({x}), {drawer.weight(k, k)}, {bias})"


@template("pair")
def branches(drawer: Drawer) -> str:
    """Two layers' results, of one input or of two."""
    x, y, n = drawer.tensor(2), drawer.tensor(2), drawer.width()
    u, w = drawer.weight(n, drawer.shape(x)[-1]), drawer.weight(n, drawer.shape(y)[-1])
    b, c = (drawer.weight(n) if drawer.chance(0.7) else None for _ in "bc")
    sign = drawer.choice(["+", "+", "+", "*", "-"])
    return f"F.linear({x}, {u}, {b}) {sign} F.linear({y}, {w}, {c})"
