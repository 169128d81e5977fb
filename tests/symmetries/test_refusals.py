"""What cannot be traced is told by what it does, the user's line, and what to do; other spellings are no reason."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nm_ode.symmetries import SymmetryError, extended_loss, find_symmetries, traced_loss
from nm_ode.symmetries.decompositions import OWN


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)


class AsksForAValue(Net):
    def forward(self, x):
        h = torch.relu(self.a(x))
        if h.sum() > 0:
            h = 2 * h
        return self.b(h)


class PicksByValue(Net):
    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h[h[:, 0] > 0]).mean(0, keepdim=True).expand(len(x), 3)


class LeavesTorch(Net):
    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h * torch.from_numpy(h.detach().numpy()).sum())


class Differentiates(Net):
    """As a physics-informed network: derivatives by the input are part of what it gives."""

    def forward(self, x):
        x = x.clone().requires_grad_()
        u = self.b(F.relu(self.a(x)))
        return u + torch.autograd.grad(u.sum(), x, create_graph=True)[0].sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (AsksForAValue, ["test_refusals.py", "if h.sum() > 0", "torch.where"]),
        (PicksByValue, ["test_refusals.py", "sizes depend on the values of tensors", "torch.where"]),
        (LeavesTorch, ["test_refusals.py", "NumPy"]),
    ],
)
def test_a_refusal_names_the_reason_the_line_and_the_remedy(model, said) -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(SymmetryError) as refused:
        find_symmetries(model(), x)
    assert all(part in str(refused.value) for part in said), str(refused.value)


def test_derivatives_by_the_input_are_followed() -> None:
    torch.manual_seed(0)
    found = find_symmetries(Differentiates(), torch.randn(8, 4), loss="mse")
    assert not found.defects
    assert not found.left_out
    assert {s.name: s.count for s in found} == {"rescale a → b": 5}


class Critic(Net):
    """A difference of means, and a penalty on the derivative by the input (Gulrajani et al. 2017)."""

    def forward(self, x):
        between = (0.5 * x).requires_grad_()
        slope = torch.autograd.grad(self.value(between).sum(), between, create_graph=True)[0]
        return self.value(x).mean() - self.value(-x).mean() + (slope.norm(dim=1) - 1).square().mean()

    def value(self, x):
        return self.b(F.relu(self.a(x)))[:, 0]


def test_a_gradient_penalty_leaves_the_last_bias_free() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    found = find_symmetries(Critic(), x, loss=lambda output, target: output, target=torch.zeros(8))
    assert not found.defects
    assert not found.left_out
    # The two other outputs have no gradient at all: of these each entry is a charge.
    assert "b.bias" in {name for s in found.of_kind("translation") for name in s.parameters}
    assert found.n_charges("rescale") >= 5


class InFloat32(nn.Module):
    """T5's norm and softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.w, self.b = nn.Linear(4, 6, bias=False), nn.Parameter(torch.ones(6)), nn.Linear(6, 3)

    def forward(self, x):
        h = self.a(x)
        h = h * torch.rsqrt(h.to(torch.float32).pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.b(self.w * torch.softmax(h, -1, dtype=torch.float32).type_as(x) * h)


def test_float32_inside_is_a_move() -> None:
    torch.manual_seed(0)
    found = find_symmetries(InFloat32(), torch.randn(8, 4))
    assert not found.defects
    assert not found.left_out
    assert found.n_charges("scale") == 1
    assert found.named("scale a").epsilon == 1e-6
    assert found.n_charges("rescale") == 6  # of w and b
    assert all(check.unexplained < 1e-12 for check in found.checks.values())


def test_a_network_without_a_second_derivative_keeps_its_symmetries() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.Hardsigmoid(), nn.Linear(5, 3)]
    found = find_symmetries(nn.Sequential(*layers), torch.randn(8, 4))
    assert not found.defects
    assert not found.left_out
    assert found.n_charges() == 5 + 6


def test_a_parallel_wrapper_is_looked_through() -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    assert find_symmetries(nn.DataParallel(inner), torch.randn(8, 4)).n_charges("rescale") == 5


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.o = nn.EmbeddingBag(9, 4, mode="mean"), nn.Linear(4, 3)

    def forward(self, ids):
        return self.o(F.relu(self.e(ids)))


def test_a_bag_of_embeddings_is_no_reason_to_refuse() -> None:
    torch.manual_seed(0)
    found = find_symmetries(Bag(), torch.randint(0, 9, (8, 5)))
    assert not found.defects
    assert found.n_charges("translation") == 5


class OfAMatrix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 9), nn.Linear(9, 3)

    def forward(self, x):
        m = self.a(x).view(-1, 3, 3)
        return self.b(torch.linalg.cholesky(m @ m.mT + torch.eye(3, dtype=m.dtype)).flatten(1))


def test_a_check_inside_an_operation_is_no_reason_to_refuse() -> None:
    """torch.export threads a token through the checks of torch.linalg."""
    torch.manual_seed(0)
    found = find_symmetries(OfAMatrix(), torch.randn(8, 4))
    assert not found.defects
    # All logits shift together, by a number or by a multiple of any of their nine inputs.
    assert found.n_charges("translation") == 1 + 9
    assert found.n_charges("rescale") == 0


class Shifted(Net):
    """RWKV's shift by a token: a part is written in place."""

    def forward(self, x):
        before = torch.zeros_like(x)
        before[:, 1:] = x[:, :-1]
        h = F.relu(self.a(0.3 * before + x))
        after = torch.zeros_like(h)
        after[:, 1:] = h[:, :-1]
        return self.b(after.mean(1))


TOKENS = torch.randn(8, 6, 4, generator=torch.Generator().manual_seed(0))


def test_a_write_in_place_of_a_part_is_followed() -> None:
    torch.manual_seed(0)
    found = find_symmetries(Shifted(), TOKENS)
    assert not found.defects
    assert {s.name: s.count for s in found} == {"translation b": 6, "rescale a → b": 5}


def test_what_fails_in_the_graph_alone_is_told_with_its_place(monkeypatch) -> None:
    monkeypatch.delitem(OWN, torch.ops.aten.copy.default)  # torch has no derivative of it
    with pytest.raises(
        SymmetryError, match=r"copy.*test_refusals\.py:\d+ fails.*not implemented.*report"
    ) as told:
        find_symmetries(Shifted(), TOKENS)
    assert isinstance(told.value.__cause__, RuntimeError)


def wrong(*_):
    raise IndexError("no such thing")


def test_an_operation_that_fails_at_random_numbers_is_told_with_its_place(monkeypatch) -> None:
    monkeypatch.setattr(extended_loss, "weight_norm", wrong)
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.ReLU(), nn.Linear(5, 3))
    with pytest.raises(
        SymmetryError, match=r"weight_norm.* in 0.* fails \(IndexError: no such thing\)"
    ) as told:
        find_symmetries(model, TOKENS[:, 0])
    assert isinstance(told.value.__cause__, IndexError)


def test_a_batch_that_cannot_be_drawn_is_named(monkeypatch) -> None:
    monkeypatch.setattr(traced_loss, "drawn", wrong)
    with pytest.raises(SymmetryError, match=r"\(8, 6, 4\) float64.*no such thing.*report"):
        find_symmetries(Shifted(), TOKENS)
