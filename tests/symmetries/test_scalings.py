"""Scalings of networks in which a parameter has several roles, or an operation is spelt otherwise, counted by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode.parameters import Layout
from nm_ode.symmetries import ChargeMeter, Symmetries, find_symmetries
from tests.symmetries.conftest import gaussian


class Own(nn.Module):
    """Modules and parameters under their names, and a forward pass of the test's own."""

    def __init__(self, forward: Callable[[Own, Tensor], Tensor], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for seed, (name, part) in enumerate(parts.items()):
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)
            random = torch.Generator().manual_seed(seed)
            for parameter in self.parameters():
                parameter.data = torch.randn(parameter.shape, dtype=torch.float64, generator=random)
        self.own = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self, x)


def moved(found: Symmetries, model: nn.Module, kinds: tuple[str, ...] = ("scale", "rescale")) -> None:
    """Carry out a finite transformation along a random combination of all scalings, in place."""
    layout = Layout.of(model)
    meter = ChargeMeter(layout, [s for s in found if s.kind in kinds])
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    rates = torch.randn(meter.count, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    # The generators are diagonal and commute: their flow multiplies each entry by the exponential of its rate.
    factors = meter.apply(torch.ones_like(theta), rates / 3).exp()
    with torch.no_grad():
        for slot, piece in zip(layout.slots, layout.split(theta * factors), strict=True):
            model.get_parameter(slot.name).copy_(piece.reshape(slot.shape))


def charges(model: nn.Module, x: Tensor, y: Tensor, other: Tensor | None = None, **loss: str) -> int:
    """Number of scalings, each of which leaves the output's loss on another batch as it is."""
    found = find_symmetries(model, x, target=y, draws=1, **(loss or {"loss": "mse"}))
    assert found.defects == ()
    other = gaussian(*x.shape, seed=9) if other is None else other
    before = model(other).detach()
    moved(found, model)
    torch.testing.assert_close(model(other).detach(), before, rtol=1e-9, atol=1e-9)
    return sum(s.count for s in found if s.kind in ("scale", "rescale"))


def autoencoder(m: Own, x: Tensor) -> Tensor:
    return torch.tanh(m.d(torch.relu(m.a(x)))) @ m.a.weight


TIED: dict[str, tuple[nn.Module, int]] = {
    # Hidden unit c of a: the decoder reads it transposed, so d's unit c goes the other way.
    "transposed": (
        Own(
            lambda m, x: torch.relu(m.d(m.z(torch.relu(m.a(x))))) @ m.a.weight,
            a=nn.Linear(6, 5),
            z=nn.Linear(5, 2),
            d=nn.Linear(2, 5),
        ),
        5 + 2,
    ),
    "transposed, not homogeneous": (Own(autoencoder, a=nn.Linear(6, 5), d=nn.Linear(5, 5)), 0),
    "siamese": (
        Own(
            lambda m, x: m.f(torch.relu(m.e(x[:, :3]))) - m.f(torch.relu(m.e(x[:, 3:]))),
            e=nn.Linear(3, 5),
            f=nn.Linear(5, 2),
        ),
        5,
    ),
    # Rows of one parameter in two roles that overlap in row 2 and 3: units 2 and 3 are read by both.
    "overlapping rows": (
        Own(
            lambda m, x: m.out(torch.relu(F.linear(x, m.w[:4])) + torch.relu(F.linear(x.square(), m.w[2:]))),
            w=torch.empty(6, 6),
            out=nn.Linear(4, 2),
        ),
        # h_i = relu(w_i x) + relu(w_{i+2} x²): rows 0, 2, 4 are one, and rows 1, 3, 5.
        2,
    ),
    # One matrix times itself between ReLUs: a diagonal on both sides of it, and of what is around.
    "used twice": (
        Own(
            lambda m, x: m.c(torch.relu(m.w(torch.relu(m.w(torch.relu(m.a(x))))))),
            a=nn.Linear(6, 4),
            w=nn.Linear(4, 4, bias=False),
            c=nn.Linear(4, 2),
        ),
        # Two spaces are equal to a factor: D and tD; W takes D t D⁻¹. Four of D, and t.
        5,
    ),
    "a masked weight": (
        Own(lambda m, x: m.c(torch.relu(F.linear(x, m.w.tril()))), w=torch.empty(6, 6), c=nn.Linear(6, 2)),
        6,
    ),
    "two parameters in a product": (
        Own(lambda m, x: F.linear(x, m.b @ m.a), a=torch.empty(3, 6), b=torch.empty(4, 3)),
        3,
    ),
}


@pytest.mark.parametrize("name", TIED)
def test_a_parameter_moves_once_whatever_its_uses(name: str) -> None:
    model, expected = TIED[name]
    x = gaussian(8, 6)
    assert charges(model, x, torch.zeros_like(model(x)).detach()) == expected


@pytest.mark.parametrize("zeros", [True, False])
def test_a_recurrent_network_by_hand(zeros: bool) -> None:
    def forward(m: Own, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 4) if zeros else torch.relu(m.i(x[:, 0]))
        for t in range(0 if zeros else 1, x.shape[1]):
            h = torch.relu(m.i(x[:, t]) + m.h(h))
        return m.o(h)

    model = Own(forward, i=nn.Linear(3, 4), h=nn.Linear(4, 4, bias=False), o=nn.Linear(4, 2))
    assert charges(model, gaussian(8, 3, 3), gaussian(8, 2)) == 4


def test_the_norm_of_a_generator_that_has_an_entry_on_both_sides(normal) -> None:
    # D W D⁻¹: an entry on the diagonal does not move.
    def forward(m: Own, x: Tensor) -> Tensor:
        h = torch.relu(m.i(x))
        return m.o(torch.relu(m.i(x) + m.h(h)))

    model = Own(forward, i=nn.Linear(3, 4), h=nn.Linear(4, 4, bias=False), o=nn.Linear(4, 2))
    found = find_symmetries(model, normal(8, 3), "mse", target=normal(8, 2))
    layout = Layout.of(model)
    meter = ChargeMeter(layout, found)
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    unit = torch.eye(meter.count, dtype=torch.float64)
    generators = torch.stack([meter.apply(theta, one) for one in unit])
    torch.testing.assert_close(meter.generator_norm(theta), generators.norm(dim=1))
    state = meter.state(theta, theta)
    torch.testing.assert_close(state[1], generators.norm(dim=1))


def test_an_embedding_that_is_the_head_too() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.inner = nn.Embedding(7, 4), nn.Linear(4, 4)
            self.first, self.last = (nn.LayerNorm(4, eps=1e-14) for _ in range(2))

        def forward(self, ids: Tensor) -> Tensor:
            h = self.last(torch.tanh(self.inner(self.first(self.table(ids)))))
            return F.linear(h, self.table.weight).mean(1)

    random = torch.Generator().manual_seed(0)
    ids, other = (torch.randint(7, (8, 5), generator=random) for _ in range(2))
    y = torch.randint(7, (8,), generator=random)
    # The table against the last norm's γ and β; the first norm's against the columns of what reads it.
    assert charges(Tied().double(), ids, y, other, loss="cross_entropy") == 1 + 4


def test_batch_norm_in_eval_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)).double()
    model(3 * gaussian(32, 4) + 1)
    assert charges(model.eval(), gaussian(8, 4), gaussian(8, 2)) == 3


SPELLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": F.linear,
    "einsum": lambda x, w: torch.einsum("bi,oi->bo", x, w),
    "on the left": lambda x, w: (w @ x[..., None])[..., 0],
    "addmm": lambda x, w: torch.addmm(x.new_zeros(()), x, w.T),
    "transposed": lambda x, w: (w @ x.T).T,
    "dots": lambda x, w: torch.einsum("...i,oi->...o", x, w),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_product_in_all_its_spellings(name: str) -> None:
    def forward(m: Own, x: Tensor) -> Tensor:
        for k, w in enumerate((m.a, m.b, m.c)):
            x = SPELLINGS[name](x, w)
            x = torch.relu(x) if k < 2 else x
        return x

    model = Own(forward, a=torch.empty(6, 4), b=torch.empty(6, 6), c=torch.empty(3, 6))
    assert charges(model, gaussian(8, 4), gaussian(8, 3)) == 12


# Between Linear(4, 6) and Linear(·, 3): outputs, and charges by hand.
BETWEEN: dict[str, tuple[Callable[[Tensor], Tensor], int, int]] = {
    "glu": (F.glu, 3, 3),
    "maxout": (lambda h: h.view(-1, 3, 2).max(-1).values, 3, 3),
    "median": (lambda h: h.view(-1, 2, 3).median(-1).values, 2, 2),
    "kthvalue": (lambda h: h.view(-1, 2, 3).kthvalue(2, -1).values, 2, 2),
    "where": (lambda h: torch.where(h > 0, h, 0.1 * h), 6, 6),
    "where zero": (lambda h: torch.where(h > 0, h, 0.0), 6, 6),
    "mask": (lambda h: h * (h > 0), 6, 6),
    "cumsum": (lambda h: torch.relu(h).cumsum(-1), 6, 1),
    "cummax": (lambda h: h.cummax(-1).values, 6, 1),
    "lp_pool": (lambda h: F.lp_pool1d(h[:, None], 2.0, 3)[:, 0], 2, 2),
    "overlapping windows": (lambda h: F.avg_pool1d(h[:, None], 2, 1)[:, 0], 5, 1),
    "hypot": (lambda h: torch.hypot(h[:, :3], h[:, 3:]), 3, 3),
    "lerp": (lambda h: torch.lerp(h[:, :3], h[:, 3:], 0.3).relu(), 3, 3),
    "addcmul": (lambda h: torch.addcmul(h[:, :3], h[:, 3:], torch.ones(3, dtype=h.dtype)), 3, 3),
    # Both halves: the sum of a quotient and what it is added to.
    "addcdiv": (lambda h: torch.addcdiv(h[:, :2], h[:, 2:4], h[:, 4:].abs()), 2, 4),
    "product": (lambda h: h.view(-1, 3, 2).prod(-1), 3, 6),
    "sort": (lambda h: h.sort(-1).values, 6, 1),
    "topk": (lambda h: h.topk(4).values, 4, 1),
    "index_add": (lambda h: torch.zeros_like(h).index_add(0, torch.arange(8) // 2, torch.relu(h)), 6, 6),
    "scatter_add": (
        lambda h: torch.zeros_like(h).scatter_add(1, torch.zeros(8, 6, dtype=torch.int64), torch.relu(h)),
        6,
        None,
    ),
    "gather": (lambda h: h.gather(1, h.argsort(-1)[:, :2]), 2, 1),
    "sign and root": (lambda h: h.sign() * h.abs().sqrt(), 6, 6),
    "bicubic": (lambda h: F.interpolate(h[:, None, None], size=(1, 4), mode="bicubic").flatten(1), 4, 1),
    "std": (lambda h: h.view(-1, 2, 3).std(-1), 2, 2),
    "norm": (lambda h: h.view(-1, 2, 3).norm(dim=-1), 2, 2),
    "normalize": (lambda h: F.normalize(h.view(-1, 2, 3), dim=-1).flatten(1), 6, 2),
    "atan2": (lambda h: torch.atan2(h[:, :3], h[:, 3:]), 3, 3),
    "softplus": (F.softplus, 6, 0),
    "celu": (F.celu, 6, 0),
    "relu6": (F.relu6, 6, 0),
    "hardtanh": (F.hardtanh, 6, 0),
    "fmod": (lambda h: torch.fmod(h, 2.0), 6, 0),
    "a floor": (lambda h: h.clamp_min(1e-3), 6, 0),
    "a comparison with a half": (lambda h: h * (h > 0.5), 6, 0),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_an_operation_lets_pass(name: str) -> None:
    function, width, expected = BETWEEN[name]
    model = Own(lambda m, x: m.b(function(m.a(x))), a=nn.Linear(4, 6), b=nn.Linear(width, 3))
    found = charges(model, gaussian(8, 4), gaussian(8, 3))
    assert found == expected if expected is not None else found >= 1


@pytest.mark.parametrize("mode", [True, False])
def test_a_spectral_norm_has_a_scale(mode) -> None:
    """σ = ⟨u, Wv⟩ is a product of two vectors, of which no axis is left."""
    torch.manual_seed(0)
    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 5))
    found = find_symmetries(nn.Sequential(normed, nn.Tanh(), nn.Linear(5, 3)).train(mode), torch.randn(8, 4))
    assert not found.defects
    assert found.n_charges("scale") == 1
