"""Translations, counted by hand: which operations hand a shift on, take it away, or forbid it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode.symmetries import find_symmetries
from tests.symmetries.conftest import gaussian, integers
from tests.symmetries.shifted import Forward, Model, parameter, shifts


class _Heads(nn.Module):
    """Two heads of two, written out: the divisor a number or a tensor, the mask in one of several ways."""

    def __init__(self, divisor: object, mask: str) -> None:
        super().__init__()
        self.qkv, self.o, self.mask = nn.Linear(4, 12), nn.Linear(4, 3), mask
        self.register_buffer("hidden", torch.ones(3, 3).tril() == 0)
        if isinstance(divisor, Tensor):
            self.register_buffer("divisor", divisor)
        else:
            self.divisor = divisor

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (z.view(b, t, 2, 2).transpose(1, 2) for z in self.qkv(x).split(4, -1))
        scores = q @ k.mT / self.divisor
        if self.mask == "masked_fill":
            scores = scores.masked_fill(self.hidden, float("-inf"))
        elif self.mask == "where":
            scores = torch.where(self.hidden, torch.finfo(torch.float32).min, scores)
        elif self.mask == "finite":
            scores = scores.masked_fill(self.hidden, -1e9)
        elif self.mask == "zero":
            scores = scores.masked_fill(self.hidden, 0.0)
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, 4)).mean(1)


@pytest.mark.parametrize("divisor", [1.5, torch.tensor(1.5)], ids=["number", "tensor"])
@pytest.mark.parametrize(("mask", "count"), [("", 4), ("masked_fill", 4), ("where", 4), ("zero", 0)])
def test_a_keys_bias(divisor, mask, count):
    found = shifts(_Heads(divisor, mask), gaussian(4, 3, 4), "mse", [gaussian(6, 3, 4, seed=1)])
    assert found == ({"translation qkv": 4} if count else {})


@pytest.mark.parametrize(("mask", "said"), [("masked_fill", False), ("finite", True), ("where", True)])
def test_a_finite_mask_counts_as_infinite_and_it_is_said(mask, said):
    torch.manual_seed(0)
    found = find_symmetries(_Heads(1.5, mask), gaussian(4, 3, 4), "mse", draws=1)
    assert found.n_charges("translation") == 4
    notes = [note for note in found.notes if "floating-point numbers alone" in note]
    assert len(notes) == said
    assert all("test_translations_through_operations.py:" in note and "mask of -" in note for note in notes)


@pytest.mark.parametrize("images", [False, True])
def test_what_one_batch_norm_adds_another_takes_away(images):
    def layer(i: int, o: int) -> nn.Module:
        return nn.Conv2d(i, o, 1) if images else nn.Linear(i, o)

    norm = nn.BatchNorm2d if images else nn.BatchNorm1d
    model = nn.Sequential(
        layer(2, 3), norm(3), layer(3, 4), norm(4), nn.Tanh(), nn.Flatten(), nn.Linear(36 if images else 4, 2)
    )
    shape = (2, 3, 3) if images else (2,)
    assert shifts(model, gaussian(8, *shape), "mse", [gaussian(6, *shape, seed=1)]) == {
        "translation 0": 3,
        "translation 1": 3,
        "translation 2": 4,
    }


@pytest.mark.parametrize(
    ("padding", "mode", "count"), [(0, "zeros", 3), (1, "zeros", 0), (1, "reflect", 3), (1, "circular", 3)]
)
def test_a_constant_shift_through_a_convolution(padding, mode, count):
    # With zeros around it a constant is none at the border.
    model = nn.Sequential(
        nn.Conv2d(2, 3, 1),
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 4, 3, padding=padding, padding_mode=mode, bias=False),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    found = shifts(model, gaussian(8, 2, 5, 5), "mse", [gaussian(6, 2, 5, 5, seed=1)])
    assert found.get("translation 1", 0) == count


def test_beta_of_batch_norm_under_a_softmax():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    assert shifts(model, gaussian(8, 4), "cross_entropy", [gaussian(6, 4, seed=1)]) == {
        "translation 0": 3,
        "translation 1": 1,
    }


def _units(m: Model, x: Tensor) -> Tensor:
    return torch.tanh(m.a(x))


LAST: dict[str, Forward] = {
    "mean first": lambda m, x: m.o(_units(m, x).mean(1)),
    "mean last": lambda m, x: m.o(_units(m, x)).mean(1),
    "sum last": lambda m, x: m.o(_units(m, x)).sum(1),
    "weighted": lambda m, x: (m.o(_units(m, x)) * x[:, :, :1].softmax(1)).sum(1),
    "average pool": lambda m, x: F.avg_pool1d(m.o(_units(m, x)).mT, 5)[..., 0],
    "adaptive pool": lambda m, x: F.adaptive_avg_pool1d(m.o(_units(m, x)).mT, 1)[..., 0],
    "convolution and pool": lambda m, x: F.conv1d(_units(m, x).mT, m.o.weight[..., None], m.o.bias).mean(-1),
    "upsampled": lambda m, x: F.interpolate(m.o(_units(m, x)).mT, scale_factor=2.0).mean(-1),
    "times a number of each sample": lambda m, x: m.o(_units(m, x)).mean(1) * x[:, 0, :1].exp(),
    "divided by a parameter": lambda m, x: m.o(_units(m, x)).mean(1) / m.temperature,
}


@pytest.mark.parametrize("name", LAST)
def test_logits_that_are_put_together(name):
    model = Model(
        LAST[name],
        a=nn.Linear(3, 4),
        o=nn.Linear(4, 3),
        temperature=nn.Parameter(torch.tensor(1.5)),
    )
    found = find_symmetries(model.double(), gaussian(6, 5, 3))
    assert found.defects == ()
    assert {s.name: s.count for s in found.of_kind("translation")} == {"translation o": 5}


@pytest.mark.parametrize(
    ("how", "count"),
    [
        (lambda h: h.amax(1), 1),
        (lambda h: h.logsumexp(1), 1),
        (lambda h: h.sort(1).values, 1),
        (lambda h: h.topk(2, 1).values, 1),
        (lambda h: torch.maximum(h[:, :3], h[:, 3:]), 1),
        (lambda h: torch.where(h[:, :3] > 9.0, h[:, :3], h[:, 3:]), 0),  # asks how large they are
        (lambda h: h.cumsum(1), 0),
        (lambda h: h.square(), 0),
    ],
    ids=["amax", "logsumexp", "sort", "topk", "maximum", "where", "cumsum", "square"],
)
def test_operations_that_shift_with_what_enters(how, count):
    # Six biases that shift alike shift the result alike, which the other summand takes back.
    model = Model(
        lambda m, x: m.o(torch.tanh(how(m.a(x)).reshape(len(x), -1) + m.b)),
        a=nn.Linear(4, 6),
        b=parameter(1),
        o=nn.LazyLinear(2),
    )
    model.double()(gaussian(2, 4))
    found = shifts(model, gaussian(8, 4), "mse", [gaussian(7, 4, seed=1)])
    assert sum(found.values()) == count


def test_how_many_are_added_is_the_batchs():
    # Σ_t (b + …) + c: the b's take back T times c, and T is another number in another batch.
    model = Model(
        lambda m, x: m.o(torch.tanh(m.a(x).sum(1) + m.c)),
        a=nn.Linear(3, 4),
        c=parameter(4),
        o=nn.Linear(4, 2),
    )
    assert shifts(model, gaussian(6, 5, 3), "mse", []) == {}


def test_a_large_vocabulary_is_cheap(table_of):
    # Labels are of axes: a head of 50 000 tokens has one charge for each input, and the table one for each row.
    model = Model(
        lambda m, ids: m.head(F.layer_norm(m.table(ids), (4,))).mT,
        table=nn.Embedding(50_000, 4),
        head=nn.Linear(4, 50_000),
    )
    found = table_of(model, integers(50_000, 4, 3), "translation", target=integers(50_000, 4, 3))
    assert found == {"translation table": 50_000, "translation head": 4 + 1}


def test_layers_of_one_input_and_tables_of_one_row():
    # A vector of one number is a number.
    model = Model(lambda m, x: m.o(x), o=nn.Linear(1, 3))
    assert shifts(model, gaussian(6, 1), "cross_entropy", [gaussian(5, 1, seed=1)]) == {"translation o": 2}
    tables = Model(
        lambda m, ids: m.o(torch.tanh(F.layer_norm(m.word(ids) + m.sort(ids * 0), (4,))).mean(1)),
        word=nn.Embedding(7, 4),
        sort=nn.Embedding(1, 4),
        o=nn.Linear(4, 3),
    )
    assert shifts(tables, integers(7, 8, 5), "mse", [integers(7, 11, 5, seed=1)]) == {
        "translation word": 7,
        "translation sort": 1,
        "translation word ↔ sort": 3,
    }


def test_a_cast_to_integers_makes_other_numbers():
    # The weights of a read x, those of g its integral part: the biases alone compensate one another.
    model = Model(
        lambda m, x: m.o(torch.tanh(m.a(x) + m.g(x.long().double()))),
        a=nn.Linear(4, 5),
        g=nn.Linear(4, 5),
        o=nn.Linear(5, 2),
    )
    found = shifts(model, 3 * gaussian(8, 4), "mse", [3 * gaussian(9, 4, seed=1)])
    assert found == {"translation a ↔ g": 5}
    # What a softmax gives sums to one, its integral part does not.
    rounded = Model(
        lambda m, x: m.o(torch.tanh(x.softmax(-1).long().double() @ m.a(x) + m.b)).mean(1),
        a=nn.Linear(4, 5),
        b=parameter(5),
        o=nn.Linear(5, 2),
    )
    assert shifts(rounded, gaussian(6, 4, 4), "mse", [gaussian(5, 4, 4, seed=1)]) == {}


@pytest.mark.parametrize("tokens", [3, 4])
def test_by_how_much_is_padded_is_the_batchs(tokens):
    # In an example of three tokens nothing is put before b, and in one of four nothing after the last token.
    before = Model(
        lambda m, x: m.o(
            torch.tanh(x @ m.w + (F.pad(m.b, (x.shape[1] - 3, 0)) + m.d[: x.shape[1]])[:, None])
        ),
        w=parameter(2, 4),
        b=parameter(3),
        d=parameter(9),
        o=nn.Linear(4, 2),
    )
    assert shifts(before, gaussian(6, tokens, 2), "mse", []) == {}
    after = Model(
        lambda m, x: m.o(torch.tanh(F.pad(m.a(x), (0, 0, 0, -x.shape[1] % 4)).mean(1) + m.c)),
        a=nn.Linear(2, 4),
        c=parameter(4),
        o=nn.Linear(4, 2),
    )
    assert shifts(after, gaussian(6, tokens, 2), "mse", []) == {}
    # As much in every batch: what is put after the last token takes no part in the shift, and is seen.
    always = Model(lambda m, x: F.pad(m.a(x), (0, 0, 0, 2)).mT, a=nn.Linear(2, 4))
    assert shifts(always, gaussian(6, tokens, 2), "cross_entropy", [gaussian(5, tokens, 2)]) == {
        "translation a": 3
    }


@pytest.mark.parametrize(
    "summed",
    [
        lambda b, c, n: b * n + c,
        lambda b, c, n: b / n + c,
        lambda b, c, n: torch.add(c, b, alpha=n),
        lambda b, c, n: torch.lerp(b, c, 1 / n),
        lambda b, c, n: b * math.sqrt(n) + c,
        lambda b, c, n: b * int(n) + c,
    ],
    ids=["mul", "div", "alpha", "lerp", "sqrt", "int"],
)
def test_a_number_made_of_the_batchs_size_is_another_in_another_batch(summed):
    model = Model(
        lambda m, x: m.o(torch.tanh(x @ m.w + summed(m.b, m.c, x.shape[1]))).sum(1) / x.shape[1],
        w=parameter(2, 4),
        b=parameter(4),
        c=parameter(4),
        o=nn.Linear(4, 2),
    )
    assert shifts(model, gaussian(6, 3, 2), "mse", []) == {}
    # The logits of all classes are multiplied alike: what they share is taken away whatever the number.
    found = shifts(model, gaussian(6, 3, 2), "cross_entropy", [gaussian(6, 5, 2, seed=1)])
    assert found == {"translation o": 5}
