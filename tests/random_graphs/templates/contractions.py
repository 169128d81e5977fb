"""Sums of products in every spelling: linear layers, products, convolutions, attention, lookups, recurrences."""

from __future__ import annotations

from tests.random_graphs.drawing import Drawer
from tests.random_graphs.program import VOCABULARY
from tests.random_graphs.templates.table import template


def _bias(drawer: Drawer, n: int, share: float = 0.6) -> str | None:
    return drawer.weight(n) if drawer.chance(share) else None


@template("contraction")
@template("contraction")
@template("contraction")
@template("contraction")
def linear(drawer: Drawer) -> str:
    x = drawer.tensor()
    n = drawer.width()
    return f"F.linear({x}, {drawer.weight(n, drawer.shape(x)[-1])}, {_bias(drawer, n)})"


@template("contraction")
@template("contraction")
def spelt_otherwise(drawer: Drawer) -> str:
    x = drawer.tensor(2, 3)
    k, n = drawer.shape(x)[-1], drawer.width()
    form = drawer.choice(
        [
            "{x} @ {nk}.T",
            "{x} @ {kn}",
            "torch.matmul({nk}, {x}.mT).mT",
            "torch.einsum('...k,nk->...n', {x}, {nk})",
            "torch.einsum('kn,...k->...n', {kn}, {x})",
            "torch.einsum('nk,b...k->bn...', {nk}, {x})",
            "({x}.unsqueeze(-2) * {nk}).sum(-1)",
            "torch.tensordot({x}, {kn}, 1)",
            "torch.inner({x}, {nk})",
        ]
    )
    nk = drawer.weight(n, k) if "{nk}" in form else ""
    return form.format(x=x, nk=nk, kn=drawer.weight(k, n) if "{kn}" in form else "")


@template("contraction")
def added(drawer: Drawer) -> str:
    x = drawer.tensor(2)
    k, n = drawer.shape(x)[-1], drawer.width()
    numbers = drawer.choice(["", ", alpha=0.7", ", beta=2.0, alpha=0.5", ", beta=0", ", beta=-1.0"])
    return f"torch.addmm({drawer.weight(n)}, {x}, {drawer.weight(k, n)}{numbers})"


@template("contraction")
def added_result(drawer: Drawer) -> str:
    x = drawer.tensor(2)
    y = drawer.tensor(2)
    w = drawer.weight(drawer.shape(x)[-1], drawer.shape(y)[-1])
    return f"torch.addmm({y}, {x}, {w}, beta={drawer.choice([1, 0.5, 2.0])})"


@template("contraction")
def vector(drawer: Drawer) -> str:
    x = drawer.tensor(2)
    k = drawer.shape(x)[-1]
    return drawer.choice(
        [
            f"torch.mv({x}, {drawer.weight(k)}).unsqueeze(-1)",
            f"torch.addmv({drawer.weight(1)}, {x}, {drawer.weight(k)}, alpha=1.5).unsqueeze(-1)",
            f"torch.outer(torch.mv({x}, {drawer.weight(k)}), {drawer.weight(3)})",
            f"({x} @ {drawer.weight(k)})[:, None] * {drawer.weight(3)}",
        ]
    )


@template("contraction")
def heads(drawer: Drawer) -> str:
    x = drawer.tensor(2)
    k, n = drawer.shape(x)[-1], drawer.width()
    if k % 2:
        return f"torch.einsum('bk,hkn->bhn', {x}, {drawer.weight(2, k, n)})"
    w = drawer.weight(2, k // 2, n)
    return drawer.choice(
        [
            f"torch.einsum('bhk,hkn->bhn', {x}.unflatten(-1, (2, -1)), {w})",
            f"torch.bmm({x}.unflatten(-1, (2, -1)).transpose(0, 1), {w}).transpose(0, 1)",
            f"torch.baddbmm({drawer.weight(2, 1, n)}, {x}.unflatten(-1, (2, -1)).transpose(0, 1), {w})"
            ".transpose(0, 1)",
            f"({x}.unflatten(-1, (2, -1)).unsqueeze(-2) @ {w}).flatten(1)",
        ]
    )


@template("contraction")
def bilinear(drawer: Drawer) -> str:
    x, y, n = drawer.tensor(2), drawer.tensor(2), drawer.width()
    w = drawer.weight(n, drawer.shape(x)[-1], drawer.shape(y)[-1])
    return drawer.choice(
        [f"F.bilinear({x}, {y}, {w}, {_bias(drawer, n)})", f"torch.einsum('bi,nij,bj->bn', {x}, {w}, {y})"]
    )


@template("contraction")
def inner(drawer: Drawer) -> str:
    x = drawer.tensor()
    y = drawer.like(x)
    return drawer.choice(
        [
            f"({x} * {y}).sum(-1, keepdim=True)",
            f"torch.einsum('...i,...i->...', {x}, {y}).unsqueeze(-1)",
            f"torch.linalg.vecdot({x}, {y}).unsqueeze(-1)",
            f"F.cosine_similarity({x}, {y}, -1).unsqueeze(-1)",
        ]
    )


@template("contraction")
def outer(drawer: Drawer) -> str:
    x, y = drawer.tensor(2), drawer.tensor(2)
    return drawer.choice(
        [
            f"torch.einsum('bi,bj->bij', {x}, {y})",
            f"{x}.unsqueeze(-1) @ {y}.unsqueeze(-2)",
            f"({x}.unsqueeze(2) * {y}.unsqueeze(1)).flatten(1)",
        ]
    )


@template("contraction")
@template("contraction")
def attention(drawer: Drawer) -> str:
    x = drawer.tensor(3)
    k = drawer.shape(x)[-1]
    d, e = drawer.choice([2, 4]), drawer.choice([2, 4])
    q, keys = (drawer.emit(f"F.linear({x}, {drawer.weight(d, k)}, {_bias(drawer, d, 0.3)})") for _ in "qk")
    values = drawer.emit(f"F.linear({x}, {drawer.weight(e, k)}, {_bias(drawer, e, 0.3)})")
    causal = drawer.choice(["False", "True"])
    forms = [
        f"F.scaled_dot_product_attention({q}, {keys}, {values}, is_causal={causal})",
        f"torch.softmax({q} @ {keys}.mT, -1) @ {values}",
        f"torch.bmm(torch.softmax(torch.bmm({q}, {keys}.transpose(1, 2)) / 1.3, 2), {values})",
        f"torch.relu({q} @ {keys}.mT) @ {values}",
        f"{q} @ ({keys}.mT @ {values})",
    ]
    if (d, e) == (4, 4):
        split = "{0}.unflatten(-1, (2, 2)).transpose(1, 2)"
        three = ", ".join(split.format(part) for part in (q, keys, values))
        forms += [f"F.scaled_dot_product_attention({three}).transpose(1, 2).flatten(2)"] * 3
    if e == 2 and d == 4:
        one = f"{values}.unsqueeze(1)"
        two = f"{q}.unflatten(-1, (2, 2)).transpose(1, 2)"
        key = f"{keys}[..., :2].unsqueeze(1)"
        forms += [
            f"F.scaled_dot_product_attention({two}, {key}, {one}, enable_gqa=True).transpose(1, 2).flatten(2)"
        ]
    return drawer.choice(forms)


@template("contraction")
@template("contraction")
def convolution(drawer: Drawer) -> str:
    x = drawer.tensor(3, 4)
    c, n, dims = drawer.shape(x)[1], drawer.width(), len(drawer.shape(x)) - 2
    size = [drawer.choice([1, 2, 3])] * dims
    padding = drawer.choice([0, 0, 1])
    if drawer.chance(0.2):
        return f"F.conv_transpose{dims}d({x}, {drawer.weight(c, n, *size)}, {_bias(drawer, n)})"
    if drawer.chance(0.25):
        w = drawer.weight(c * drawer.choice([1, 2]), 1, *size)
        return f"F.conv{dims}d({x}, {w}, None, padding={padding}, groups={c})"
    if drawer.chance(0.2) and max(size) > 1:
        mode = drawer.choice(["reflect", "circular", "replicate"])
        x = f"F.pad({x}, {[1] * 2 * dims}, mode={mode!r})"
    stride = drawer.choice([1, 1, 2])
    w, b = drawer.weight(n, c, *size), _bias(drawer, n)
    return f"F.conv{dims}d({x}, {w}, {b}, stride={stride}, padding={padding})"


@template("contraction")
@template("contraction")
def lookup(drawer: Drawer) -> str:
    n = drawer.width()
    table = drawer.weight(VOCABULARY, n)
    if drawer.chance(0.2) and table in drawer.parameters:
        if drawer.chance(0.6):
            drawer.value(table)[0] = 0
            drawer.padding.add(table)
        return f"F.embedding(ids, {table}, padding_idx=0)"
    forms = [
        "F.embedding(ids, {t})",
        "{t}[ids]",
        "{t}.index_select(0, ids.flatten()).unflatten(0, (-1, 3))",
        "F.one_hot(ids, 5).double() @ {t}",
        "F.embedding(ids, {t}).mean(1)",
        "{t}[k]",
        "{t}[ids[:, 0]] * {t}[ids[:, 1]]",
        "F.embedding(ids, {t}) + {p}",
        "F.embedding_bag(ids, {t}, mode='mean')",
        "torch.gather({t}[:, :1].T.expand(len(ids), -1), 1, ids)",
    ]
    return drawer.choice(forms).format(t=table, p=drawer.weight(3, n))


@template("contraction")
def tied_head(drawer: Drawer) -> str:
    x = drawer.tensor(2, 3)
    tables = [w for w in drawer.weights if drawer.shape(w)[1:] == (drawer.shape(x)[-1],)]
    w = drawer.choice(tables) if tables else drawer.weight(3, drawer.shape(x)[-1])
    return drawer.choice([f"F.linear({x}, {w})", f"{x} @ {w}.mT", f"F.linear(F.linear({x}, {w}), {w}.T)"])


@template("contraction")
def recurrence(drawer: Drawer) -> str:
    x, n = drawer.tensor(3), drawer.width()
    u, w, b = drawer.weight(n, drawer.shape(x)[-1]), drawer.weight(n, n), _bias(drawer, n)
    h = drawer.choice([f"{x}.new_zeros(len({x}), {n})", None])
    act = drawer.choice(["torch.relu", "torch.relu", "torch.tanh", "F.leaky_relu"])
    for t in range(2):
        rest = "" if h is None else f" + F.linear({h}, {w})"
        h = drawer.emit(f"{act}(F.linear({x}[:, {t}], {u}, {b}){rest})")
    assert h is not None
    return f"{h} * 1.0"


@template("contraction")
def mixed_positions(drawer: Drawer) -> str:
    x = drawer.tensor(3)
    t = drawer.shape(x)[1]
    return drawer.choice(
        [
            f"{drawer.weight(3, t)} @ {x}",
            f"torch.einsum('st,btk->bsk', {drawer.weight(3, t)}, {x})",
            f"{drawer.normal(3, t)} @ {x}",
            f"({x}.mT @ {drawer.weight(t, 2)}).flatten(1)",
        ]
    )


@template("contraction")
def square_weight(drawer: Drawer) -> str:
    """A square weight whose rows are what its columns read."""
    x, n = drawer.tensor(), drawer.width()
    d, a = drawer.shape(x)[-1], drawer.weight(n, n)
    into, out = drawer.weight(n, d), drawer.weight(drawer.width(), n)
    first = drawer.emit(f"F.linear({x}, {into})")
    second = drawer.emit(f"F.linear({first}, {a}) + {drawer.choice([first, f'F.linear({x}, {into})'])}")
    return drawer.choice([f"F.linear({second}, {out})", f"F.linear(F.linear({second}, {a}), {out})"])


@template("contraction")
def products_of_features(drawer: Drawer) -> str:
    """Of each with each."""
    x = drawer.tensor(2)
    both = drawer.emit(f"torch.stack([{x}, {drawer.like(x)}, {drawer.like(x)}], 1)")
    products = drawer.emit(f"{both} @ {both}.mT")
    return drawer.choice([f"{products}.flatten(1)", f"{products}[:, [0, 0, 1], [1, 2, 2]]"])


@template("contraction")
def spectral(drawer: Drawer) -> str:
    """Complex weights of the lowest frequencies, of pairs or of two parameters; all frequencies, or padded."""
    x, n = drawer.tensor(3), drawer.width()
    channels, length = drawer.shape(x)[1:]
    modes = min(drawer.choice([1, 2, 3]), length // 2 + 1)
    kept = drawer.choice([f"torch.fft.rfft({x})[..., :{modes}]", f"torch.fft.rfft({x}, n={2 * modes - 1})"])
    parts = [drawer.weight(channels, n, modes), drawer.weight(channels, n, modes)]
    weight = drawer.choice(
        [
            f"torch.view_as_complex({drawer.weight(channels, n, modes, 2)})",
            f"torch.complex({', '.join(parts)})",
        ]
    )
    product = drawer.choice(
        [f"torch.einsum('bim,iom->bom', {kept}, {weight})", f"({kept}.unsqueeze(2) * {weight}).sum(1)"]
    )
    return drawer.choice(
        [
            f"torch.fft.irfft({product}, n={length})",
            f"torch.fft.irfft(F.pad({product}, (0, 1)), n={2 * modes})",
            f"{product}.abs()",
            f"torch.view_as_real({product}).flatten(2)",
            f"torch.fft.ifft({product}).real",
        ]
    )
