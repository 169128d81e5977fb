"""Called in whatever mode of torch, with whatever arguments: the same symmetries, or one sentence."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import nm_ode
from nm_ode.symmetries import SymmetryError, find_symmetries, scan_symmetries, symmetries_of

WANTED = {"scale 0": 5, "translation 0": 5, "rescale 1 → 3": 5, "translation 3": 6}


def model() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def table(found: nm_ode.symmetries.Symmetries) -> dict[str, int]:
    assert not found.defects
    return {s.name: s.count for s in found}


MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "none": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "another device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_of_torch_do_not_reach_the_proof(mode, normal):
    net, x = model(), normal(8, 4)
    problem = nm_ode.Problem(net, F.cross_entropy, (x, torch.arange(8) % 3))
    with MODES[mode]():
        assert table(find_symmetries(net, x, "cross_entropy")) == WANTED
        assert table(symmetries_of(problem)) == WANTED
        if mode == "no_grad":
            assert scan_symmetries(net, x, "cross_entropy").unexplained == ()


def test_models_and_data_made_in_inference_mode():
    with torch.inference_mode():
        net, x, y = model(), torch.randn(8, 4, dtype=torch.float64), torch.arange(8) % 3
    assert table(find_symmetries(net, x, "cross_entropy", target=y)) == WANTED


def test_the_process_is_left_as_it_was(normal):
    net = model()
    net(normal(8, 4).float())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    plain = len
    loss = nn.CrossEntropyLoss(weight=torch.ones(3))
    find_symmetries(net, normal(8, 4), loss, target=torch.arange(8) % 3)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]
    assert len is plain
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert loss.weight.dtype == torch.float32


@pytest.mark.parametrize("kind", ["numpy", "list", "float32"])
def test_an_example_of_another_kind(kind, normal):
    x = {"numpy": normal(8, 4).numpy(), "list": normal(8, 4).tolist(), "float32": normal(8, 4).float()}[kind]
    assert table(find_symmetries(model(), x, "cross_entropy", target=[0, 1, 2, 0, 1, 2, 0, 1])) == WANTED


def test_the_loss_that_was_assumed_is_said(normal):
    assumed = find_symmetries(model(), normal(8, 4)).loss
    assert "cross_entropy" in assumed
    assert "assumed" in assumed
    assert find_symmetries(model(), normal(8, 4), "mse").loss == "mse"
    problem = nm_ode.Problem(model(), F.mse_loss, (normal(8, 4), normal(8, 3)))
    assert symmetries_of(problem).loss == "mse_loss"


class _Returns(nn.Module):
    def __init__(self, what: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.a, self.what = nn.Linear(4, 3), what

    def forward(self, x: Tensor) -> object:
        return self.what(self.a(x))


X, Y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
NOTHING = TensorDataset(X[:0], Y[:0])
WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "a function": (lambda: find_symmetries(F.relu, X), "model must be"),
    "a class": (lambda: find_symmetries(nn.Linear, X), "the class Linear"),
    "a problem as model": (
        lambda: find_symmetries(nm_ode.Problem(model(), F.cross_entropy, (X, Y)), X),
        "symmetries_of",
    ),
    "a model as problem": (lambda: symmetries_of(model()), "find_symmetries"),
    "an empty loader": (lambda: find_symmetries(model(), DataLoader(NOTHING, 4)), "give a batch"),
    "a dict": (lambda: find_symmetries(model(), {"x": X}), "dict of 'x'"),
    "several inputs": (lambda: find_symmetries(model(), (X, X)), "tuple of 2"),
    "text": (lambda: find_symmetries(model(), "X"), "example_input must be"),
    "nothing": (lambda: find_symmetries(model(), None), "example_input must be"),
    "no samples": (lambda: find_symmetries(model(), X[:0]), "at least one sample"),
    "another width": (lambda: find_symmetries(model(), X[:, :3]), "cannot be evaluated"),
    "a loss's class": (lambda: find_symmetries(model(), X, nn.MSELoss, target=X), "loss must be"),
    "a number as loss": (lambda: find_symmetries(model(), X, 3), "loss must be"),
    "an unknown loss": (lambda: find_symmetries(model(), X, "hinge"), "'hinge' was given"),
    "no target": (lambda: find_symmetries(model(), X, F.nll_loss), "needs `target`"),
    "a label too many": (
        lambda: find_symmetries(model(), X, "cross_entropy", target=Y + 1),
        "cannot be evaluated",
    ),
    "fewer targets": (
        lambda: find_symmetries(model(), X, "cross_entropy", target=Y[:5]),
        "one target for each",
    ),
    "a tuple": (lambda: find_symmetries(_Returns(lambda z: (z, z)), X), "returns tuple"),
    "None": (lambda: find_symmetries(_Returns(lambda z: None), X), "returns NoneType"),
    "a loss of each sample": (
        lambda: find_symmetries(model(), X, lambda o, y: F.cross_entropy(o, y, reduction="none"), target=Y),
        "scalar",
    ),
    "NaN": (lambda: find_symmetries(model(), X * torch.nan), "nan"),
    "a layer without a shape": (lambda: find_symmetries(nn.LazyLinear(3), X), "no shape"),
    "a model without numbers": (lambda: find_symmetries(nn.Linear(4, 3, device="meta"), X), "meta"),
    "weights that it rescales": (
        lambda: find_symmetries(
            nn.Sequential(nn.Embedding(9, 4, max_norm=1.0), nn.Flatten(), nn.Linear(8, 3)),
            torch.ones(8, 2, dtype=torch.int64),
        ),
        "max_norm",
    ),
    "a mask of data": (
        lambda: find_symmetries(model(), X, lambda o, y: F.cross_entropy(o[y > 0], y[y > 0]), target=Y),
        "value of a tensor",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_argument_is_one_sentence(what):
    call, words = WRONG[what]
    with pytest.raises(SymmetryError) as error:
        call()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_scripted_module_is_refused_by_name():
    with pytest.raises(SymmetryError, match=r"module '0' is scripted"):
        find_symmetries(nn.Sequential(torch.jit.script(nn.Linear(4, 3))), X)
