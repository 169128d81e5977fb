"""Long examples are cut and large models are verified in float32: with the same result, and it is said."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nm_ode.symmetries import find_symmetries, graph_gradient, precision
from nm_ode.symmetries.operations.declared import DECLARED
from tests.oracles.networks import Reversed


class Gpt(nn.Module):
    """One block of attention with positions and a tied head."""

    def __init__(self, vocabulary: int = 11, width: int = 8, context: int = 64) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.norm, self.mixed, self.out = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.wide, self.narrow = nn.Linear(width, 12), nn.Linear(12, width)
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids):
        samples, length = ids.shape
        x = self.words(ids) + self.places(torch.arange(length, device=ids.device))
        q, k, v = (
            z.view(samples, length, 2, -1).transpose(1, 2) for z in self.mixed(self.norm(x)).chunk(3, -1)
        )
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + self.out(h)
        return self.head(self.last(x + self.narrow(F.relu(self.wide(x)))))


def loss(output, target):
    return F.cross_entropy(output.flatten(0, 1), target.flatten())


def found_with(length: int, model: nn.Module | None = None):
    torch.manual_seed(0)
    model = Gpt() if model is None else model
    ids = torch.randint(0, 11, (4, length + 1))
    return find_symmetries(model, ids[:, :-1].contiguous(), loss=loss, target=ids[:, 1:].contiguous())


@pytest.fixture(scope="module")
def few():
    """What is found with few tokens."""
    return found_with(7)


def table(found) -> dict[str, int]:
    assert not found.defects
    assert not found.left_out
    return {s.name: s.count for s in found}


def test_many_tokens_prove_what_few_prove(few) -> None:
    many = found_with(60)
    assert table(many) == table(few)
    assert not few.notes
    assert any("in the example's place" in note for note in many.notes)


class TwoWays(Gpt):
    """Above so many tokens the hidden layer is another."""

    def forward(self, ids):
        output = super().forward(ids)
        return (
            output
            if ids.shape[1] < 40
            else output + torch.tanh(self.wide(self.words(ids))).sum(-1, keepdim=True)
        )


def test_an_example_is_not_cut_to_a_size_at_which_the_model_does_something_else(few) -> None:
    assert table(found_with(30, TwoWays())) == table(few)
    longer = found_with(60, TwoWays())
    assert not any("in the example's place" in note for note in longer.notes)
    assert "rescale wide → narrow" not in table(longer)


def test_a_large_model_has_the_same_symmetries_verified_in_float32(few, monkeypatch) -> None:
    expected = table(few)
    monkeypatch.setattr(precision, "LARGE", 0)
    monkeypatch.setattr(graph_gradient, "AT_ONCE", 200)
    model = Gpt()
    before = [p.detach().clone() for p in model.parameters()]
    found = found_with(7, model)
    assert table(found) == expected
    assert all(
        torch.equal(p, old) and p.grad is None for p, old in zip(model.parameters(), before, strict=True)
    )
    assert all(check.hessian is None and check.unexplained < 1e-5 for check in found.checks.values())
    assert any("float32" in note for note in found.notes)


def test_the_gradient_in_pieces_is_the_gradient(few, monkeypatch) -> None:
    monkeypatch.setattr(graph_gradient, "AT_ONCE", 200)
    pieces = found_with(7)
    for s in few:
        assert pieces.checks[s.name].unexplained == pytest.approx(few.checks[s.name].unexplained, abs=1e-14)
        assert pieces.checks[s.name].hessian == pytest.approx(few.checks[s.name].hessian, abs=1e-12)


def test_a_wrong_rule_is_seen_in_float32(monkeypatch) -> None:
    monkeypatch.setattr(precision, "LARGE", 0)
    monkeypatch.setitem(DECLARED, "tanh", DECLARED["relu"])
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    found = find_symmetries(model, torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    assert found.defects
    assert not found.n_charges("rescale")


class WithReversal(nn.Sequential):
    def forward(self, x):
        h = torch.relu(self[0](x))
        return self[1](h) + self[2](Reversed.apply(h))


def test_another_gradient_than_the_graphs_is_seen_in_float32(monkeypatch) -> None:
    monkeypatch.setattr(precision, "LARGE", 0)
    torch.manual_seed(0)
    found = find_symmetries(
        WithReversal(nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 3)), torch.randn(8, 4)
    )
    assert not found.n_charges("rescale")
    assert found.left_out
