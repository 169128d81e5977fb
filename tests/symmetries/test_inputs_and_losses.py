"""What people call a batch, a loss and a model: all of it gives the symmetries of one function, or a sentence."""

from __future__ import annotations

import copy
import functools
import warnings
from collections import OrderedDict, UserDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

import nm_ode
from nm_ode.loss.calling import call
from nm_ode.symmetries import Symmetries, SymmetryError, find_symmetries, symmetries_of
from nm_ode.symmetries.draws import MIXED, WIDE, drawn
from nm_ode.symmetries.examples import loss_of_example


def table(found: Symmetries) -> dict[str, int]:
    assert not found.defects
    assert not found.left_out
    return {s.name: s.count for s in found}


class Reader(nn.Module):
    """Tokens that a mask keeps, their mean, a tanh layer (nothing before it moves), ReLU units and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.inner = nn.Embedding(9, 4), nn.Linear(4, 4)
        self.hidden, self.out = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mask = mask[..., None].to(self.out.weight.dtype)
        mean = (torch.tanh(self.tokens(input_ids)) * mask).sum(1) / mask.sum(1)
        return self.out(F.relu(self.hidden(torch.tanh(self.inner(mean)))))


WANTED = {"rescale hidden → out": 6, "translation out": 7}
RANDOM = torch.Generator().manual_seed(0)
IDS = torch.randint(9, (8, 5), generator=RANDOM)
MASK = (torch.arange(5) < torch.randint(2, 6, (8, 1), generator=RANDOM)).long()
LABELS = torch.arange(8) % 3


@dataclass
class Both:
    input_ids: Tensor
    attention_mask: Tensor


class Pair(NamedTuple):
    input_ids: Tensor
    attention_mask: Tensor


class OfOne(Reader):
    """The same with one argument, whatever it is."""

    def forward(self, batch: Any) -> Tensor:
        if isinstance(batch, dict | UserDict):
            return super().forward(batch["input_ids"], batch["attention_mask"])
        if isinstance(batch, Both | Pair):
            return super().forward(batch.input_ids, batch.attention_mask)
        return super().forward(*batch)


class Items(Dataset[Any]):
    """Dicts, as those of language libraries."""

    def __len__(self) -> int:
        return len(IDS)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"input_ids": IDS[i], "attention_mask": MASK[i]}


NAMED = {"input_ids": IDS, "attention_mask": MASK}
INPUTS: dict[str, tuple[type[nn.Module], Any]] = {
    "a dict": (Reader, NAMED),
    "a dict with a part that is left out": (Reader, {"input_ids": IDS, "attention_mask": None}),
    "a dict of another class": (Reader, UserDict(NAMED)),
    "a tuple": (Reader, (IDS, MASK)),
    "a list": (Reader, [IDS, MASK]),
    "arrays": (Reader, (IDS.numpy(), MASK.numpy())),
    "a tuple of one": (Reader, (IDS,)),
    "a loader of dicts": (Reader, DataLoader(Items(), 4, shuffle=True)),
    "a data set": (Reader, Items()),
    "a loader of inputs and targets": (Reader, DataLoader(TensorDataset(IDS, LABELS), 4)),
    "a dict as one argument": (OfOne, NAMED),
    "another dict as one argument": (OfOne, UserDict(NAMED)),
    "a tuple as one argument": (OfOne, (IDS, MASK)),
    "a dataclass": (OfOne, Both(IDS, MASK)),
    "a named tuple": (OfOne, Pair(IDS, MASK)),
    "two samples": (Reader, {name: part[:2] for name, part in NAMED.items()}),
}


def batch_of(model: nn.Module, example: Any, loss: Any = "cross_entropy") -> Any:
    """What the symmetries are found on, and the model's output there."""
    model = copy.deepcopy(model).double()
    _, (x, y), _ = loss_of_example(model, example, loss, None, least=4, seed=0)
    return call(model, x), y


@pytest.mark.parametrize("what", INPUTS)
def test_a_batch_of_any_form_is_what_the_model_takes(what):
    torch.manual_seed(0)
    kind, batch = INPUTS[what]
    model, state = kind(), torch.get_rng_state()
    output, target = batch_of(model, batch, None)
    mask = None if "left out" in what or "of one" in what or "targets" in what else MASK
    wanted = Reader.forward(copy.deepcopy(model).double(), IDS, mask)
    few = 2 if "two" in what else 8
    assert torch.allclose(output[:few], wanted[:few])
    assert len(output) >= 4
    assert torch.equal(target, LABELS) == ("targets" in what)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "what", ["a dict of another class", "a loader of dicts", "a dataclass", "two samples"]
)
def test_a_batch_of_any_form(what):
    kind, batch = INPUTS[what]
    found = find_symmetries(kind(), batch)
    assert WANTED.items() <= table(found).items()
    assert "assumed" in found.loss


def test_an_argument_that_takes_no_tensor_takes_none_of_a_tuple():
    class WithSetting(OfOne):
        def forward(self, batch: Any, scaled: bool = False) -> Tensor:
            return super().forward(batch) * (2 if scaled else 1)

    assert batch_of(WithSetting(), (IDS, MASK))[0].shape == (8, 3)


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


class OutputDict(OrderedDict[str, Any]):
    """What models of transformers return: by key, by attribute and by place."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)


MADE: dict[str, Any] = {
    "a dataclass": Output,
    "a dict of a class": lambda logits, loss: OutputDict(loss=loss, logits=logits),
    "a dict": lambda logits, loss: {"logits": logits, "loss": loss},
    "a tuple": lambda logits, loss: (loss, logits),
    "the loss": lambda logits, loss: loss,
}


class OfItsOwn(Reader):
    """A model that computes its own loss."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made = made

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        logits = super().forward(input_ids, attention_mask)
        return self.made(logits, None if labels is None else F.cross_entropy(logits, labels))


@pytest.mark.parametrize("what", MADE)
def test_the_loss_that_a_model_returns_itself(what):
    model, batch = OfItsOwn(MADE[what]), NAMED | {"labels": LABELS}
    for loss in (None, "own", nm_ode.own_loss):
        objective, _, name = loss_of_example(
            copy.deepcopy(model).double(), batch, loss, None, least=4, seed=0
        )
        assert name == "the model's own"
        assert objective is nm_ode.own_loss
    problem = nm_ode.Problem.from_objective(model, nm_ode.own_loss, batch)
    plain = nm_ode.Problem.from_objective(
        model, lambda model, batch: F.cross_entropy(Reader.forward(model, IDS, MASK), LABELS), batch
    )
    assert torch.equal(problem.grad(problem.theta0), plain.grad(problem.theta0))


def test_symmetries_of_a_models_own_loss():
    model, batch = OfItsOwn(Output), NAMED | {"labels": LABELS}
    assert WANTED.items() <= table(find_symmetries(model, batch)).items()
    assert WANTED.items() <= table(symmetries_of(nm_ode.Problem(model, nm_ode.own_loss, batch))).items()


def test_a_model_of_language_without_labels_is_told_what_is_missing():
    for loss in (None, "own"):
        with pytest.raises(SymmetryError, match="label"):
            find_symmetries(OfItsOwn(Output), NAMED, loss)


X = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
HIDDEN, SHIFT = {"rescale 0 → 2": 5}, {"translation 2": 6}


def net(*more: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), *more)


CHANCES = torch.rand(8, 3, generator=torch.Generator().manual_seed(2))
LOSSES: dict[str, tuple[nn.Module, Any, Tensor, dict[str, int]]] = {
    "class weights": (net(), nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3])), LABELS, HIDDEN | SHIFT),
    "weights of positives": (
        net(),
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2, 3])),
        CHANCES,
        HIDDEN,
    ),
    "chances": (net(nn.Sigmoid()), F.binary_cross_entropy, CHANCES, HIDDEN),
    "counts": (net(), nn.PoissonNLLLoss(full=True), torch.arange(24.0).reshape(8, 3) % 5, HIDDEN),
    "ignored": (
        net(),
        lambda o, t: F.cross_entropy(o, t, ignore_index=-100),
        torch.tensor([0, 1, 2, -100] * 2),
        HIDDEN | SHIFT,
    ),
    "one of each class": (net(), F.cross_entropy, F.one_hot(LABELS, 3).double(), HIDDEN | SHIFT),
    "divergence": (
        net(nn.LogSoftmax(1)),
        nn.KLDivLoss(reduction="batchmean"),
        CHANCES / CHANCES.sum(1, True),
        HIDDEN | SHIFT,
    ),
    "margins": (net(), nn.MultiMarginLoss(), LABELS, HIDDEN),
}


@pytest.mark.parametrize("what", LOSSES)
def test_targets_that_the_loss_takes(what):
    model, loss, target, wanted = LOSSES[what]
    assert table(find_symmetries(model, X, loss, target=target)).items() >= wanted.items()


def test_weights_that_a_partial_holds_are_in_float64():
    loss = functools.partial(F.cross_entropy, weight=torch.tensor([1.0, 2, 3]))
    problem = nm_ode.Problem(net(), loss, (X, LABELS), dtype=torch.float32)
    for found in (find_symmetries(net(), X, loss, target=LABELS), symmetries_of(problem)):
        assert table(found) == HIDDEN | SHIFT
        assert not found.how


class OfComplex(nn.Module):
    """Absolute values of complex numbers, shifted by a complex buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()
        self.register_buffer("shift", torch.ones(4, dtype=torch.complex64) * 1j)

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x + self.shift).abs())


def test_complex_numbers_become_those_of_float64():
    found = find_symmetries(OfComplex(), torch.complex(X, X.flip(0)))
    assert table(found) == {"translation net.2": 6, "rescale net.0 → net.2": 5}


class Tempered(nn.Module):
    """Cross entropy at a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.tensor(1.5))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output * self.t, target)


def test_a_trained_temperature_is_refused_held_or_part_of_the_model():
    loss = Tempered()
    with pytest.raises(SymmetryError, match="WithLoss"):
        find_symmetries(net(), X, loss, target=LABELS)
    with pytest.raises(nm_ode.ProblemError, match="WithLoss"):
        nm_ode.Problem(net(), loss, (X, LABELS))
    whole, batch = nm_ode.WithLoss(net(), loss), (X, LABELS)
    # The logits' weights and their temperature: one charge more.
    found = find_symmetries(whole, batch, "own")
    assert table(found).items() >= {"rescale model.0 → model.2": 5}.items()
    assert found.n_charges("rescale") == 5 + 1
    assert any("loss.t" in s.parameters for s in found)
    assert "loss.t" in nm_ode.Problem(whole, nm_ode.own_loss, batch).layout.names
    held = loss.requires_grad_(False)
    assert table(find_symmetries(net(), X, held, target=LABELS)).items() >= HIDDEN.items()


def test_a_loss_that_reads_the_model_by_another_way_is_refused():
    model = net()
    with pytest.raises(SymmetryError, match="another way"):
        find_symmetries(
            model, X, lambda o, y: F.cross_entropy(o, y) + model[2].weight.square().sum(), target=LABELS
        )


class OfColumns(nn.Module):
    """An id, and a class of another range, in one tensor of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.k = nn.Embedding(9, 4), nn.Embedding(2, 4)
        self.hidden, self.o = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(F.relu(self.hidden(torch.tanh(self.e(x[:, 0]) + self.k(x[:, 1])))))


def test_integers_of_columns_are_those_given():
    x = torch.stack([torch.arange(8), torch.arange(8) % 2, 7 * (torch.arange(8) % 3)], 1)
    assert table(find_symmetries(OfColumns(), x)).items() >= {"rescale hidden → o": 5}.items()
    for how in (WIDE, MIXED):
        for kind in (torch.int64, torch.float64):
            (made,) = drawn((x.to(kind),), {}, how, torch.Generator().manual_seed(0))
            assert made.dtype == kind
            if kind == torch.int64 or how == WIDE:
                for column, given in zip(made.T, x.T, strict=True):
                    assert set(column.tolist()) <= set(given.tolist())


def test_the_old_weight_normalisation_is_as_the_new(normal):
    def old() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 5)), nn.ReLU(), nn.Linear(5, 3))
        model(X)  # keeps what it computed
        return model

    assert table(find_symmetries(old(), X)) == {"translation 2": 6, "scale 0": 5, "rescale 0 → 2": 5}
    problem = nm_ode.Problem(old(), F.cross_entropy, (X, LABELS))
    torch.manual_seed(0)
    theta, v = torch.randn_like(problem.theta0), torch.randn_like(problem.theta0)
    new = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.ReLU(), nn.Linear(5, 3))
    of_new = nm_ode.Problem(new, F.cross_entropy, (X, LABELS))
    assert problem.layout.size == of_new.layout.size  # bias, g, v: in one order
    assert torch.allclose(problem.grad(theta), of_new.grad(theta), atol=1e-12)
    assert torch.allclose(problem.hvp(theta, v), of_new.hvp(theta, v), atol=1e-12)


@pytest.mark.parametrize("wrapped", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_a_wrapped_model_has_the_parameters_of_the_model(wrapped):
    assert table(find_symmetries(wrapped(net()), X, "cross_entropy")) == HIDDEN | SHIFT
    problem = nm_ode.Problem(wrapped(net()), F.cross_entropy, (X, LABELS))
    assert problem.layout.names == ("0.weight", "0.bias", "2.weight", "2.bias")


class Needy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 3)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.a(first + second)


def test_inputs_that_forward_does_not_take_are_named():
    for batch in ({"first": X, "third": X}, (X, X, X)):
        with pytest.raises(SymmetryError, match=r"takes \(first, second\)"):
            find_symmetries(Needy(), batch)
        with pytest.raises(nm_ode.ProblemError, match=r"takes \(first, second\)"):
            nm_ode.Problem(Needy(), F.cross_entropy, (batch, LABELS))
