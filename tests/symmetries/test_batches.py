"""Symmetries of losses over batches of any shape: dicts, several inputs, masks, tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode
from nm_ode.models import mlp
from nm_ode.symmetries import find_symmetries, scan_of, symmetries_of


def table(problem: nm_ode.Problem) -> dict[str, int]:
    found = symmetries_of(problem)
    assert not found.defects
    return {s.name: s.count for s in found}


class _Tagger(nn.Module):
    """A label for each token: embedding, a hidden layer, logits."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 6)
        self.hidden, self.logits = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.logits(F.relu(self.hidden(torch.tanh(self.tokens(tokens)))))


def _masked(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits = model(batch["tokens"])
    losses = F.cross_entropy(logits.flatten(0, 1), batch["tags"].flatten(), reduction="none")
    return (losses * batch["mask"].flatten()).mean()


def test_a_dict_of_tokens_tags_and_a_mask():
    # One rescale a hidden unit; the three logits shift together: one charge for each column, and the bias.
    random = torch.Generator().manual_seed(0)
    data = {
        "tokens": torch.randint(11, (12, 7), generator=random),
        "tags": torch.randint(3, (12, 7), generator=random),
        "mask": torch.rand(12, 7, generator=random) < 0.8,
    }
    problem = nm_ode.Problem.from_objective(_Tagger(), _masked, data)
    assert table(problem) == {"rescale hidden → logits": 5, "translation logits": 5 + 1}
    assert scan_of(problem).unexplained == ()


class _TwoTowers(nn.Module):
    """A score for a pair: the inner product of two linear towers."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 4), nn.Linear(3, 4)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        return (self.left(users)[:, None] @ self.right(items)[:, :, None]).squeeze(-1)


def test_two_inputs():
    # q·k of two inputs: any M on one side, M⁻ᵀ on the other, of which 4·5/2 have charges; their diagonal rescales.
    random = torch.Generator().manual_seed(0)
    users, items = torch.randn(10, 6, generator=random), torch.randn(10, 3, generator=random)
    wanted = torch.randn(10, 1, generator=random)

    def objective(model: nn.Module, batch: tuple[tuple[Tensor, Tensor], Tensor]) -> Tensor:
        inputs, target = batch
        return F.mse_loss(model(*inputs), target)

    problem = nm_ode.Problem.from_objective(_TwoTowers(), objective, ((users, items), wanted))
    assert table(problem) == {"rescale left → right": 4, "matrix left → right": 10}
    assert symmetries_of(problem).n_charges() == 10


@dataclass
class _Pair:
    x: Tensor
    y: Tensor


def test_a_dataclass():
    random = torch.Generator().manual_seed(0)
    pair = _Pair(torch.randn(9, 6, generator=random), torch.randn(9, 3, generator=random))
    problem = nm_ode.Problem.from_objective(
        mlp([6, 5, 3], "relu"), lambda model, batch: F.mse_loss(model(batch.x), batch.y), pair
    )
    assert table(problem) == {"rescale linear1 → linear2": 5}


def test_few_samples_are_repeated(normal):
    # Two samples do not tell a batch statistic from a constant.
    model = mlp([6, 5, 3], "relu", norm="batch")
    problem = nm_ode.Problem(model, F.cross_entropy, (normal(2, 6), torch.tensor([0, 2])))
    assert {s.name: s.count for s in symmetries_of(problem)} == {
        "translation linear1": 5,
        "translation linear2": 5 + 1,
        "scale linear1": 5,
        "rescale norm1 → linear2": 5,
    }


def test_a_loss_with_tensors_of_its_own(normal):
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    target = torch.randint(3, (8,), generator=torch.Generator().manual_seed(0))
    found = find_symmetries(mlp([6, 5, 3], "relu"), normal(8, 6), weighted, target=target)
    assert {s.name: s.count for s in found} == {"rescale linear1 → linear2": 5, "translation linear2": 6}
    problem = nm_ode.Problem(mlp([6, 5, 3], "relu"), weighted, (normal(8, 6), target))
    assert {s.name: s.count for s in symmetries_of(problem)} == {s.name: s.count for s in found}


def test_a_problem_is_looked_at_where_it_starts(normal):
    # Whatever theta it has evaluated last.
    target = torch.randint(3, (8,), generator=torch.Generator().manual_seed(0))
    problem = nm_ode.Problem(mlp([6, 5, 3], "relu"), F.cross_entropy, (normal(8, 6), target))
    before = symmetries_of(problem)
    problem.loss(torch.full_like(problem.theta0, torch.nan))
    assert symmetries_of(problem).checks == before.checks
