"""Batches and losses in the forms that people have: each gives the loss that plain torch gives, or one sentence."""

from __future__ import annotations

import copy
from collections import UserDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

import nm_ode
from nm_ode.data import DataError
from nm_ode.data.trees import flatten, map_leaves, named_leaves


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.o = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask[..., None].to(self.o.weight.dtype)
        return self.o((self.e(input_ids) * mask).sum(1) / mask.sum(1))


RANDOM = torch.Generator().manual_seed(0)
IDS = torch.randint(5, (8, 6), generator=RANDOM)
MASK = (torch.arange(6) < torch.randint(1, 7, (8, 1), generator=RANDOM)).long()
Y = torch.randint(3, (8,), generator=RANDOM)


@dataclass
class Batch:
    input_ids: Tensor
    attention_mask: Tensor


class Encoding(UserDict[str, Any]):
    """As the BatchEncoding of transformers: a mapping that no tree library knows, read by attributes too."""

    def __init__(self, data: dict[str, Any], made_by: str = "") -> None:
        super().__init__(data)
        self.made_by = made_by

    def __getattr__(self, name: str) -> Any:
        if name != "data" and name in self.data:
            return self.data[name]
        raise AttributeError(name)


NAMED = {"input_ids": IDS, "attention_mask": MASK}


class Items(Dataset[Any]):
    def __len__(self) -> int:
        return len(IDS)

    def __getitem__(self, i: int) -> Any:
        return NAMED["input_ids"][i], NAMED["attention_mask"][i], Y[i]


def together(items: list[Any]) -> Any:
    ids, mask, y = (torch.stack(part) for part in zip(*items, strict=True))
    return {"input_ids": ids, "attention_mask": mask}, y


FORMS: dict[str, Any] = {
    "a tuple": ((IDS, MASK), Y),
    "a list": ([IDS, MASK], Y),
    "a dict": (NAMED, Y),
    "another mapping": (Encoding(NAMED), Y),
    "a loader": DataLoader(Items(), batch_size=3, shuffle=True, collate_fn=together),
}


@pytest.mark.parametrize("form", FORMS)
def test_inputs_are_spread_over_the_models_arguments(form):
    torch.manual_seed(0)
    model = Two()
    problem = nm_ode.Problem(model, F.cross_entropy, FORMS[form])
    plain = copy.deepcopy(model).double()
    loss = F.cross_entropy(plain(IDS, MASK), Y)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(plain.parameters()))])
    assert torch.allclose(problem.grad(problem.theta0), gradient, atol=1e-14)
    few = torch.tensor([1, 5])
    loss = F.cross_entropy(plain(IDS[few], MASK[few]), Y[few])
    assert torch.allclose(problem.loss(problem.theta0, few), loss, atol=1e-14)
    alone = problem.sample_grads(problem.theta0)
    assert torch.allclose(alone.mean(0), gradient, atol=1e-14)


def test_a_loader_is_its_samples_in_its_batches():
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    in_memory = nm_ode.Problem(
        nn.Linear(4, 3), F.cross_entropy, DataLoader(TensorDataset(x, Y), 4, shuffle=True)
    )
    assert in_memory.chunk_size is None
    assert in_memory.n_samples == 8
    read = nm_ode.Problem(Two(), F.cross_entropy, FORMS["a loader"])
    assert read.chunk_size == 3
    assert nm_ode.Problem(Two(), F.cross_entropy, FORMS["a loader"], chunk_size=5).chunk_size == 5


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield from zip(IDS, Y, strict=True)


LOADERS = {
    "drawn by weight": DataLoader(TensorDataset(IDS, Y), 4, sampler=WeightedRandomSampler([1.0] * 8, 8)),
    "some of them": DataLoader(TensorDataset(IDS, Y), 4, sampler=[0, 1, 1, 3]),
    "batches of one's own": DataLoader(TensorDataset(IDS, Y), batch_sampler=[[0, 1], [2]]),
    "a stream": DataLoader(Stream(), 4),
}


@pytest.mark.parametrize("what", LOADERS)
def test_a_loader_that_is_not_of_all_samples_once_is_refused(what):
    with pytest.raises(DataError, match=r"map-style|Subset"):
        nm_ode.Problem(nn.Linear(6, 3), F.cross_entropy, LOADERS[what])


def test_three_parts_are_refused_with_what_to_write():
    for data in ((IDS, MASK, Y), DataLoader(Items(), 4)):
        with pytest.raises(nm_ode.ProblemError, match=r"\(\(a, b\), y\)"):
            nm_ode.Problem(Two(), F.cross_entropy, data)
    with pytest.raises(nm_ode.ProblemError, match="own_loss"):
        nm_ode.Problem(Two(), F.cross_entropy, NAMED | {"labels": Y})


def test_class_weights_are_in_the_problems_dtype():
    x, weight = torch.randn(8, 4, generator=RANDOM), torch.tensor([1.0, 2.0, 3.0])
    loss, model = nn.CrossEntropyLoss(weight=weight), nn.Linear(4, 3)
    plain = F.cross_entropy(copy.deepcopy(model).double()(x.double()), Y, weight.double())
    problem = nm_ode.Problem(model, loss, (x, Y))
    assert torch.equal(problem.loss(problem.theta0), plain.detach())
    assert loss.weight.dtype == torch.float32


def test_a_mapping_is_a_tree():
    given = Encoding({"a": torch.ones(2), "b": {"c": torch.zeros(2)}}, made_by="me")
    assert [place for place, _ in named_leaves(given, "batch")] == ["batch['a']", "batch['b']['c']"]
    assert len(flatten((given, 3))[0]) == 3
    twice = map_leaves(lambda leaf: 2 * leaf, given)
    assert isinstance(twice, Encoding)
    assert twice.made_by == "me"
    assert twice.a.tolist() == [2.0, 2.0]
    assert given.a.tolist() == [1.0, 1.0]


class Experts(nn.Module):
    """By an operation that torch has in float32 and coarser alone."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(1, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return F.grouped_mm(x, self.w, offs=torch.tensor([len(x)], dtype=torch.int32))


def test_an_operation_without_float64_is_said_with_the_remedy():
    x, y = torch.randn(8, 8), torch.randint(8, (8,))
    with pytest.raises(nm_ode.ProblemError, match=r"only in float32.*dtype=torch\.float32"):
        nm_ode.Problem(Experts(), F.cross_entropy, (x, y))
    # Its symmetries are found in float32: under a softmax a shift of the weights of each input.
    assert nm_ode.find_symmetries(Experts(), x).n_charges() == 8


def heat(model: nn.Module, x: Tensor) -> Tensor:
    """Residual of u″ = −u, the derivatives taken as one writes them in a training loop."""
    x = x.clone().requires_grad_()
    u = model(x)
    (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    return (second + u).square().mean()


def test_an_objective_that_differentiates_by_its_inputs():
    torch.manual_seed(0)
    x = torch.linspace(0, 1, 6, dtype=torch.float64)[:, None]
    model = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    problem = nm_ode.Problem.from_objective(model, heat, x)
    loss = heat(model, x)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    found = problem.loss(problem.theta0)
    assert not found.requires_grad
    assert torch.allclose(found, loss.detach(), rtol=1e-14)
    assert torch.allclose(problem.grad(problem.theta0), gradient, atol=1e-13)
    v, h = torch.randn_like(problem.theta0), 1e-5
    difference = (problem.grad(problem.theta0 + h * v) - problem.grad(problem.theta0 - h * v)) / (2 * h)
    assert torch.allclose(problem.hvp(problem.theta0, v), difference, atol=1e-6)
