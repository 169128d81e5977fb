"""Whatever rules meet in a network, what they find verifies: soundness over random architectures."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nm_ode.symmetries import find_symmetries, scan_symmetries


class _Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class _Joined(nn.Module):
    """Two branches of one input: their product, their sum, or side by side."""

    def __init__(self, how: str, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.how, self.left, self.right = how, left, right

    def forward(self, x):
        a, b = self.left(x), self.right(x)
        return {"product": a.mul, "sum": a.add, "beside": lambda b: torch.cat([a, b], -1)}[self.how](b)


widths = st.integers(3, 5)
activations = st.sampled_from([nn.ReLU, nn.Tanh, nn.LeakyReLU, nn.Identity, nn.PReLU, nn.GELU])
norms = st.sampled_from(
    [
        lambda d: nn.Identity(),
        nn.BatchNorm1d,
        lambda d: nn.BatchNorm1d(d, affine=False),
        nn.LayerNorm,
        nn.RMSNorm,
        lambda d: nn.GroupNorm(1, d),
    ]
)


@st.composite
def blocks(draw, given_width: int, depth: int = 2) -> tuple[nn.Module, int]:
    kind = (
        draw(st.sampled_from(["plain", "plain", "residual", "product", "sum", "beside"]))
        if depth
        else "plain"
    )
    if kind == "plain":
        made = draw(widths)
        return nn.Sequential(
            nn.Linear(given_width, made, bias=draw(st.booleans())), draw(norms)(made), draw(activations)()
        ), made
    left, made = draw(blocks(given_width, depth - 1))
    if kind == "residual":
        return _Residual(
            nn.Sequential(left, nn.Linear(made, given_width, bias=draw(st.booleans())))
        ), given_width
    right, other = draw(blocks(given_width, 0))
    if kind == "beside":
        return _Joined(kind, left, right), made + other
    return _Joined(
        kind, nn.Sequential(left, nn.Linear(made, 4)), nn.Sequential(right, nn.Linear(other, 4))
    ), 4


@st.composite
def networks(draw) -> nn.Module:
    width, modules = 4, []
    for _ in range(draw(st.integers(1, 3))):
        block, width = draw(blocks(width))
        modules.append(block)
    return nn.Sequential(*modules, nn.Linear(width, 3))


@settings(max_examples=20, deadline=None)
@given(model=networks(), loss=st.sampled_from(["cross_entropy", "mse"]), seed=st.integers(0, 1000))
def test_all_that_is_found_verifies(model, loss, seed):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
    assert find_symmetries(model, x, loss, seed=seed).defects == ()


def test_a_shift_passes_a_linear_layer_before_batch_norm(normal):
    # BatchNorm takes away whatever is the same for all samples, W·(a shift) too.
    model = nn.Sequential(
        nn.Linear(6, 4), nn.Linear(4, 5), nn.BatchNorm1d(5, affine=False), nn.Tanh(), nn.Linear(5, 3)
    )
    found = find_symmetries(model, normal(8, 6))
    assert {s.name: s.count for s in found.of_kind("translation")} == {
        "translation 0": 4,
        "translation 1": 5,
        "translation 4": 5 + 1,
    }
    assert scan_symmetries(model, normal(8, 6)).unexplained == ()
