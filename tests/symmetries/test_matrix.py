"""Linear bottlenecks in all their spellings: the charges counted by hand, and finite mixings that leave the loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nm_ode
from nm_ode.symmetries import find_symmetries
from tests.oracles.symmetry import assert_finite_transformations_leave_the_loss


class Net(nn.Module):
    """Layers by name, and what is computed of them."""

    def __init__(self, forward, **parts) -> None:
        super().__init__()
        self.take = forward
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x):
        return self.take(self, x)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * 0.5)


def matrices(model: nn.Module, x: torch.Tensor, other: torch.Tensor | None = None) -> dict[str, int]:
    """The matrix symmetries, none refused; on another batch finite mixings leave the loss."""
    model, x = model.double(), x.double() if x.is_floating_point() else x
    found = find_symmetries(model, x, "mse")
    assert not found.defects
    other = torch.roll(x, 1, -1) if other is None else other
    with torch.no_grad():
        y = torch.randn_like(model(other))
    problem = nm_ode.Problem(model, F.mse_loss, (other, y), dtype=torch.float64)
    assert_finite_transformations_leave_the_loss(problem, found.of_kind("matrix"))
    for rescale in found.of_kind("rescale"):  # counted once: what a mixing moves is its diagonal
        moved = entries(rescale)
        assert (rescale.within is not None) == any(moved <= entries(s) for s in found.of_kind("matrix"))
    return {s.name.removeprefix("matrix "): s.count for s in found.of_kind("matrix")}


def entries(symmetry) -> set[tuple[str, int]]:
    return {(part.parameter, i) for part in symmetry.parts for i in part.entries.tolist()}


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


# Two layers without anything between them have GL(3): 6 charges.
SPELLINGS = {
    "linear": lambda m, x: F.linear(F.linear(x, m.a.T, m.c), m.b.T),
    "addmm": lambda m, x: torch.addmm(m.c, x, m.a) @ m.b,
    "einsum": lambda m, x: torch.einsum("bh,ho->bo", torch.einsum("bi,ih->bh", x, m.a) + m.c, m.b),
    "left": lambda m, x: (m.b.mT @ (m.a.mT @ x[..., None] + m.c[:, None]))[..., 0],
    "scaled": lambda m, x: (-(x @ m.a + m.c) * 0.3 / torch.tensor(2.0).sqrt()) @ (m.b * 2.0),
}


@pytest.mark.parametrize("how", SPELLINGS)
def test_two_layers_in_any_spelling(how):
    model = Net(SPELLINGS[how], a=weight(4, 3), b=weight(3, 2), c=weight(3))
    assert matrices(model, torch.randn(8, 4)) == {"a, c → b": 6}


def test_low_rank_factors():
    # W = U V beside a frozen one, as in LoRA, and alone; either before or after x comes in.
    for forward in (
        lambda m, x: m.o(torch.relu(m.w(x) + m.b(m.a(x)) * 0.5)),
        lambda m, x: m.o(torch.relu(F.linear(x, m.w.weight + m.b.weight @ m.a.weight * 0.5))),
        lambda m, x: m.o(torch.relu(F.linear(x, torch.einsum("or,ri->oi", m.b.weight, m.a.weight)))),
    ):
        model = Net(
            forward,
            w=nn.Linear(5, 4).requires_grad_(False),
            a=nn.Linear(5, 2, bias=False),
            b=nn.Linear(2, 4, bias=False),
            o=nn.Linear(4, 3),
        )
        ((name, count),) = matrices(model, torch.randn(8, 5)).items()
        assert (set(name.split(" → ")), count) == ({"a", "b"}, 3)


def test_a_frozen_weight_is_not_mixed():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    model[2].requires_grad_(False)
    assert matrices(model, torch.randn(8, 4)) == {"0 → 1": 6}
    model[1].bias.requires_grad_(False)
    model[2].requires_grad_(True)
    assert matrices(model, torch.randn(8, 4)) == {"0 → 1": 6}


def scores(q, k, v, o):
    return o(((q @ k.mT / 2**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)).mean(1)


def grouped(how: str):
    """Four query heads of 2 around two key and value heads."""

    def forward(m, x):
        b, t, _ = x.shape
        q, k, v = (f(x).view(b, t, -1, 2).transpose(1, 2) for f in (m.q, m.k, m.v))
        if how == "enable_gqa":
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            return m.o(mixed.transpose(1, 2).reshape(b, t, 8)).mean(1)
        if how == "repeat_interleave":
            k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        elif how == "expand":
            k, v = (z[:, :, None].expand(b, 2, 2, t, 2).reshape(b, 4, t, 2) for z in (k, v))
        else:  # query heads 0 and 2 read head 0
            k, v = k.repeat(1, 2, 1, 1), v.repeat(1, 2, 1, 1)
        return scores(q, k, v, m.o)

    return forward


@pytest.mark.parametrize("how", ["enable_gqa", "repeat_interleave", "expand", "repeat"])
def test_one_head_read_by_several(how):
    # Llama, Mistral, Qwen: GL(2) of each of 2 key heads with its query heads, of each value head with 2 column blocks.
    model = Net(grouped(how), q=nn.Linear(4, 8), k=nn.Linear(4, 4), v=nn.Linear(4, 4), o=nn.Linear(8, 3))
    assert matrices(model, torch.randn(4, 3, 4)) == {"q → k": 2 * 3, "v → o": 2 * 3}


def test_multi_query_attention_by_broadcast():
    def forward(m, x):
        b, t, _ = x.shape
        return scores(m.q(x).view(b, t, 2, 2).transpose(1, 2), m.k(x)[:, None], m.v(x)[:, None], m.o)

    model = Net(forward, q=nn.Linear(4, 4), k=nn.Linear(4, 2), v=nn.Linear(4, 2), o=nn.Linear(4, 3))
    assert matrices(model, torch.randn(4, 3, 4)) == {"q → k": 3, "v → o": 3}


def test_rescales_of_a_grouped_head_are_its_matrix_symmetrys_diagonal():
    model = Net(grouped("expand"), q=nn.Linear(4, 8), k=nn.Linear(4, 4), v=nn.Linear(4, 4), o=nn.Linear(8, 3))
    found = find_symmetries(model.double(), torch.randn(4, 3, 4).double(), "mse")
    assert {s.name: s.within for s in found.of_kind("rescale")} == {
        "rescale q → k": "matrix q → k",
        "rescale v → o": "matrix v → o",
    }
    assert found.n_charges("rescale") == 0


def attended(m, x):
    q, k, v = (f(x) for f in (m.q, m.k, m.v))
    if m.how == "rotary":
        cos, sin = m.angles.cos(), m.angles.sin()
        q, k = (
            torch.cat([z[..., :2] * cos - z[..., 2:] * sin, z[..., 2:] * cos + z[..., :2] * sin], -1)
            for z in (q, k)
        )
    s = q @ k.mT / (m.root if m.how == "tensor" else 2.0)
    if m.how == "mask":
        s = s.masked_fill(m.mask, float("-inf"))
    if m.how == "bias":
        s = s + m.table[m.index]
    return m.o(s.softmax(-1) @ v).mean(1)


@pytest.mark.parametrize("how", ["tensor", "mask", "bias", "rotary"])
def test_attention_with_constants_that_are_tensors(how):
    model = Net(
        attended,
        **{name: nn.Linear(4, 4) for name in "qkv"},
        o=nn.Linear(4, 3),
        root=torch.tensor(4.0).sqrt(),
        mask=torch.ones(3, 3).tril() == 0,
        table=weight(5),
        index=torch.arange(3)[:, None] - torch.arange(3) + 2,
        angles=torch.arange(3.0)[:, None] * torch.tensor([1.0, 0.1]),
    )
    model.how = how
    # Rotations by position commute with no symmetric matrix but those of the scaling kind.
    expected = {"v → o": 10} if how == "rotary" else {"q → k": 10, "v → o": 10}
    assert matrices(model, torch.randn(4, 3, 4)) == expected


INNER = {
    "two towers": lambda m, x: torch.einsum("bi,bi->b", m.b(x[:, :5]), m.t(x[:, 5:])),
    "a grid": lambda m, x: torch.einsum("bi,ni->bn", m.b(x[:, :5]), m.t(m.grid)) * 3**-0.5 + m.c,
    "transposed": lambda m, x: m.b(x[:, :5]) @ m.t(m.grid).T,
    "a sum": lambda m, x: (m.b(x[:, :5]) * m.t(x[:, 5:])).sum(-1) + m.c[0],
    "a mean": lambda m, x: (m.b(x[:, :5]) * m.t(x[:, 5:])).mean(-1),
}


@pytest.mark.parametrize("how", INNER)
def test_inner_products_of_two_networks(how):
    model = Net(INNER[how], b=nn.Linear(5, 3), t=nn.Linear(2, 3), grid=torch.randn(6, 2), c=weight(6))
    assert matrices(model, torch.randn(8, 7)) == {"b → t": 6}


def test_embeddings():
    factors = Net(
        lambda m, x: (m.u(x[:, 0]) * m.v(x[:, 1])).sum(-1) / 3**0.5 + m.a(x[:, 0])[:, 0] + m.c(x[:, 1])[:, 0],
        u=nn.Embedding(6, 3),
        v=nn.Embedding(6, 3),
        a=nn.Embedding(6, 1),
        c=nn.Embedding(6, 1),
    )
    ids = torch.randint(6, (8, 2))
    assert matrices(factors, ids) == {"u → v": 6}
    read = Net(lambda m, x: m.o(m.u(x)).sum(1), u=nn.Embedding(6, 3), o=nn.Linear(3, 4))
    assert matrices(read, ids) == {"u → o": 6}
    table = Net(lambda m, x: m.o(m.u[x]).sum(1), u=weight(6, 3), o=nn.Linear(3, 4))
    assert matrices(table, ids) == {"u → o": 6}
    # Positions are added to tokens: they mix alike.
    added = Net(
        lambda m, x: m.o(m.u(x) + m.p).sum(1), u=nn.Embedding(6, 3), p=weight(2, 3), o=nn.Linear(3, 4)
    )
    assert set(matrices(added, ids).values()) == {6}


def test_the_padding_row_of_a_table_must_be_zero_to_be_mixed():
    model = Net(lambda m, x: m.o(m.u(x)).sum(1), u=nn.Embedding(6, 3, padding_idx=2), o=nn.Linear(3, 4))
    ids = torch.randint(6, (8, 2))
    assert matrices(model, ids) == {"u → o": 6}
    with torch.no_grad():
        model.u.weight[2] = 1.0
    assert matrices(model, ids) == {}


def test_a_table_times_itself_has_none():
    model = Net(lambda m, x: m.u(x[:, 0]) @ m.u.weight.T, u=nn.Embedding(6, 3))
    assert matrices(model, torch.randint(6, (8, 2))) == {}


def test_a_parameter_is_mixed_once_whatever_its_uses():
    # Both uses of the first layer make, and both of the second read.
    siamese = Net(lambda m, x: m.b(m.a(x[:, :4])) * m.b(m.a(x[:, 4:])), a=nn.Linear(4, 3), b=nn.Linear(3, 2))
    assert matrices(siamese, torch.randn(8, 8)) == {"a → b": 6}
    # One use is read by ReLU.
    half = Net(
        lambda m, x: m.b(m.a(x[:, :4])) + torch.relu(m.a(x[:, 4:]))[:, :2],
        a=nn.Linear(4, 3),
        b=nn.Linear(3, 2),
    )
    assert matrices(half, torch.randn(8, 8)) == {}
    # The reader reads data, too.
    data = Net(lambda m, x: m.b(m.a(x[:, :4])) * m.b(x[:, 4:]), a=nn.Linear(4, 3), b=nn.Linear(3, 2))
    assert matrices(data, torch.randn(8, 7)) == {}
    # Encoder and decoder are one matrix: the bottleneck in the middle stays.
    tied = Net(
        lambda m, x: torch.relu(m.d(m.z(torch.relu(m.a(x))))) @ m.a.weight,
        a=nn.Linear(6, 5),
        z=nn.Linear(5, 2),
        d=nn.Linear(2, 5),
    )
    assert matrices(tied, torch.randn(8, 6)) == {"z → d": 3}


def test_the_projection_of_an_lstm():
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.r = nn.LSTM(3, 4, proj_size=2, batch_first=True)
            self.o = nn.Linear(2, 3)

        def forward(self, x):
            return self.o(self.r(x)[0][:, -1])

    (count,) = matrices(Last(), torch.randn(4, 3, 3)).values()
    assert count == 3  # W_hr against the recurrent columns and the head's


def test_convolutions():
    image = torch.randn(2, 2, 6, 6)
    deep = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.AvgPool2d(2, padding=1),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
    )
    assert matrices(deep, image) == {"0 → 2": 6}
    pointwise = nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.ZeroPad2d(1), nn.Conv2d(3, 4, 1), nn.Tanh(), nn.Flatten()
    )
    assert matrices(pointwise, image) == {"0 → 2": 6}
    grouped = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1, groups=2), nn.Tanh(), nn.Flatten())
    assert matrices(grouped, image) == {"0 → 1": 2 * 3}
    depthwise = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Tanh(), nn.Flatten())
    assert matrices(depthwise, image) == {}
    pooled = nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    assert matrices(pooled, image) == {"0 → 3": 10}


def test_positions_side_by_side_are_column_blocks():
    # 3 positions of 2 channels are read by one matrix: each position's columns go with M⁻¹.
    model = Net(lambda m, x: m.b(m.a(x).flatten(1)), a=nn.Linear(4, 2), b=nn.Linear(6, 3))
    assert matrices(model, torch.randn(5, 3, 4)) == {"a → b": 3}


@pytest.mark.parametrize(
    "between",
    [
        lambda h: torch.cat([h[:, :, :2], h[:, :, 2:].roll(1, 1)], -1),  # half of the channels a token later
        lambda h: torch.cat([h[:, :, :2], 2 * h[:, :, 2:]], -1),
        lambda h: torch.cat([h[:, :, :2], h[:, :, 2:].cumsum(1)], -1),
    ],
)
def test_what_treats_some_coordinates_otherwise_takes_them_apart(between):
    model = Net(lambda m, x: m.b(between(m.a(x))).mean(1), a=nn.Linear(4, 4), b=nn.Linear(4, 3))
    assert sum(matrices(model, torch.randn(5, 3, 4)).values()) == 3 + 3


@pytest.mark.parametrize(
    "between",
    [
        lambda h: torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1) - h,  # a token's change
        lambda h: h.masked_fill(torch.ones(3, 1, dtype=torch.bool).tril(-1), 0.0),
        lambda h: torch.where(h.new_ones(3, 1) > 0, h, 0.0),
        lambda h: h.cumsum(1) / torch.arange(1, 4, dtype=h.dtype)[:, None],
        lambda h: F.pad(h, (0, 0, 1, 0))[:, :-1] + h.flip(1),
        lambda h: torch.lerp(h, h.mean(1, keepdim=True), 0.3),
        lambda h: F.dropout(h, 0.5, training=False) * h.new_ones(3, 1),
        lambda h: torch.einsum("st,btd->bsd", torch.eye(3, dtype=h.dtype) + 1, h),
        lambda h: F.avg_pool1d(h.mT, 2, padding=1).mT,
        lambda h: h[:, [2, 0, 1]],
        lambda h: torch.zeros_like(h[:, :2]).index_add(1, torch.tensor([0, 1, 0]), h),
        lambda h: torch.zeros_like(h[:, :2]).scatter_add(
            1, torch.tensor([0, 1, 0])[:, None].expand(h.shape), h
        ),
    ],
)
def test_what_treats_all_coordinates_alike_hands_them_on(between):
    model = Net(lambda m, x: m.b(between(m.a(x))).mean(1), a=nn.Linear(4, 4), b=nn.Linear(4, 3))
    assert matrices(model, torch.randn(5, 3, 4)) == {"a → b": 10}


@pytest.mark.parametrize(
    "between",
    [
        lambda h: h + 1.0,
        lambda h: h + h.flip(-1),
        lambda h: h.sort(1).values,
        lambda h: h * h.new_tensor([1.0, 2.0, 3.0, 4.0]),
        lambda h: h.detach(),
        lambda h: F.pad(h, (0, 0, 1, 0), value=1.0),
        lambda h: h.amax(1, keepdim=True),
    ],
)
def test_what_breaks_a_bottleneck(between):
    model = Net(lambda m, x: m.b(between(m.a(x))).mean(1), a=nn.Linear(4, 4), b=nn.Linear(4, 3))
    assert matrices(model, torch.randn(5, 3, 4)) == {}
