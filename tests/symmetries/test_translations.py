"""Translations, counted by hand: shifts of single parameters, and of several that compensate one another.

Each charge is held against a finite shift of theta: the loss of other batches stays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode.parameters import Layout
from nm_ode.symmetries import ChargeMeter, Symmetries, find_symmetries

Forward = Callable[["_Model", Tensor], Tensor]


class _Model(nn.Module):
    """Some layers and a forward pass of the test's own."""

    def __init__(self, forward: Forward, **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.own = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self, x)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def integers(most: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(most, shape, generator=torch.Generator().manual_seed(seed))


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(drawn(*shape, seed=5))


def shifts(model: nn.Module, x: Tensor, loss: str, others: list[Tensor]) -> dict[str, int]:
    """Name → number of charges of the translations; of which each leaves the loss of other batches as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model.double()
        found = find_symmetries(model, x, loss)
    assert not found.defects
    translations = found.of_kind("translation")
    for batch in others:
        _require_same_loss(model, translations, batch, loss)
    return {s.name: s.count for s in translations}


def _require_same_loss(model: nn.Module, translations: Symmetries | tuple, batch: Tensor, loss: str) -> None:
    moved = copy.deepcopy(model)
    output = moved(batch)
    if loss == "mse":
        y: Tensor = drawn(*output.shape, seed=3)
        measure: Callable[[Tensor, Tensor], Tensor] = F.mse_loss
    else:
        classes = output.shape[1] if output.ndim > 1 else len(output)
        y = integers(classes, output.shape[0], *output.shape[2:], seed=3)
        measure = F.cross_entropy
    before = float(measure(output, y).detach())
    layout = Layout.of(moved)
    meter = ChargeMeter(layout, translations)
    random = torch.Generator().manual_seed(1)
    for s in translations:
        where = meter.slices[s.name]
        amounts = torch.zeros(meter.count, dtype=torch.float64)
        amounts[where] = torch.randn(where.stop - where.start, dtype=torch.float64, generator=random)
        by = meter.shift(torch.zeros(layout.size, dtype=torch.float64), amounts)
        shifted = copy.deepcopy(model)
        with torch.no_grad():
            for slot in layout.slots:
                shifted.get_parameter(slot.name).add_(by[slot.slice].reshape(slot.shape))
        assert float(by.abs().max()) > 0
        after = float(measure(shifted(batch), y).detach())
        assert abs(after - before) < 1e-10 * max(1.0, abs(before)), s.name


def test_two_biases_in_one_sum():
    model = _Model(
        lambda m, x: m.o(torch.tanh(m.a(x[:, :4]) + m.g(x[:, 4:]))),
        a=nn.Linear(4, 5),
        g=nn.Linear(3, 5),
        o=nn.Linear(5, 2),
    )
    found = find_symmetries(model.double(), drawn(8, 7), "mse")
    (pair,) = found.of_kind("translation")
    assert (pair.name, pair.count) == ("translation a ↔ g", 5)
    assert [(part.parameter, part.weight) for part in pair.parts] == [("a.bias", 1.0), ("g.bias", -1.0)]
    assert shifts(model, drawn(8, 7), "mse", [drawn(9, 7, seed=1)]) == {"translation a ↔ g": 5}
    # Q = ⟨a.bias⟩_c − ⟨g.bias⟩_c, ‖ξ‖² = 2.
    layout = Layout.of(model)
    meter = ChargeMeter(layout, [pair])
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    assert torch.allclose(meter.charge(theta), (model.a.bias - model.g.bias).detach())
    assert torch.allclose(meter.generator_norm(theta).square(), torch.full((5,), 2.0, dtype=torch.float64))


def test_weights_that_read_the_same_compensate_too():
    # a(x) + g(x): each of 5 · 4 weights and 5 biases.
    model = _Model(
        lambda m, x: m.o(torch.tanh(m.a(x) + m.g(x))), a=nn.Linear(4, 5), g=nn.Linear(4, 5), o=nn.Linear(5, 2)
    )
    assert shifts(model, drawn(8, 4), "mse", [drawn(9, 4, seed=1)]) == {"translation a ↔ g": 25}


def test_a_difference_and_a_multiple():
    model = _Model(
        lambda m, x: m.o(torch.tanh(m.a(x[:, :4]) - 2.0 * m.g(x[:, 4:]))),
        a=nn.Linear(4, 5),
        g=nn.Linear(3, 5),
        o=nn.Linear(5, 2),
    )
    (pair,) = find_symmetries(model.double(), drawn(8, 7), "mse").of_kind("translation")
    assert [part.weight for part in pair.parts] == [1.0, 0.5]
    assert shifts(model, drawn(8, 7), "mse", [drawn(9, 7, seed=1)]) == {"translation a, g": 5}


def _tokens(m: _Model, ids: Tensor) -> Tensor:
    stream = m.word(ids) + m.place(torch.arange(5))
    return stream + m.sort(ids % 2) if hasattr(m, "sort") else stream


@pytest.mark.parametrize("tables", [2, 3])
def test_embeddings_that_are_added(tables):
    layers = {"word": nn.Embedding(7, 4), "place": nn.Embedding(5, 4)}
    if tables == 3:
        layers["sort"] = nn.Embedding(2, 4)
    model = _Model(
        lambda m, ids: m.o(torch.tanh(_tokens(m, ids)).mean(1)),
        **layers,
        o=nn.Linear(4, 3),
    )
    expected = {
        2: {"translation word ↔ place": 4},
        3: {"translation word ↔ sort": 4, "translation place ↔ sort": 4},
    }
    found = shifts(model, integers(7, 8, 5), "mse", [integers(7, 11, 5, seed=1)])
    assert found == expected[tables]


def test_embeddings_that_enter_a_norm():
    # Alone: each of 7 words and 5 places, all coordinates alike. Together 4 coordinates, less that all of them are
    # all words less all places.
    model = _Model(
        lambda m, ids: m.o(torch.tanh(F.layer_norm(_tokens(m, ids), (4,))).mean(1)),
        word=nn.Embedding(7, 4),
        place=nn.Embedding(5, 4),
        o=nn.Linear(4, 3),
    )
    assert shifts(model, integers(7, 8, 5), "mse", [integers(7, 11, 5, seed=1)]) == {
        "translation word": 7,
        "translation place": 5,
        "translation word ↔ place": 3,
    }


def test_a_table_that_is_the_head_too():
    # As in GPT-2: +c on every row moves the logits of a token alike, and positions take it back.
    model = _Model(
        lambda m, ids: F.linear(torch.tanh(_tokens(m, ids)).mean(1), m.word.weight),
        word=nn.Embedding(7, 4),
        place=nn.Embedding(5, 4),
    )
    found = shifts(model, integers(7, 8, 5), "cross_entropy", [integers(7, 11, 5, seed=1)])
    assert found == {"translation word ↔ place": 4}
    # The squared error sees the logits themselves.
    assert shifts(model, integers(7, 8, 5), "mse", []) == {}


def test_a_row_that_is_not_trained_is_not_shifted():
    model = _Model(
        lambda m, ids: m.o(torch.tanh(_tokens(m, ids)).mean(1)),
        word=nn.Embedding(7, 4, padding_idx=0),
        place=nn.Embedding(5, 4),
        o=nn.Linear(4, 3),
    )
    assert shifts(model, integers(7, 8, 5), "mse", []) == {}
    normed = _Model(
        lambda m, ids: m.o(torch.tanh(F.layer_norm(m.word(ids), (4,))).mean(1)),
        word=nn.Embedding(7, 4, padding_idx=0),
        o=nn.Linear(4, 3),
    )
    assert shifts(normed, integers(7, 8, 5), "mse", [integers(7, 11, 5)]) == {"translation word": 6}


def test_an_lstms_two_biases():
    model = _Model(
        lambda m, x: m.o(m.lstm(x)[0][:, -1]), lstm=nn.LSTM(3, 4, batch_first=True), o=nn.Linear(4, 2)
    )
    assert shifts(model, drawn(6, 5, 3), "mse", [drawn(4, 5, 3, seed=1)]) == {
        "translation lstm.bias_ih_l0 ↔ lstm.bias_hh_l0": 16
    }


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
        elif self.mask == "zero":
            scores = scores.masked_fill(self.hidden, 0.0)
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, 4)).mean(1)


@pytest.mark.parametrize("divisor", [1.5, torch.tensor(1.5)], ids=["number", "tensor"])
@pytest.mark.parametrize(("mask", "count"), [("", 4), ("masked_fill", 4), ("where", 4), ("zero", 0)])
def test_a_keys_bias(divisor, mask, count):
    found = shifts(_Heads(divisor, mask), drawn(4, 3, 4), "mse", [drawn(6, 3, 4, seed=1)])
    assert found == ({"translation qkv": 4} if count else {})


@pytest.mark.parametrize("images", [False, True])
def test_what_one_batch_norm_adds_another_takes_away(images):
    def layer(i: int, o: int) -> nn.Module:
        return nn.Conv2d(i, o, 1) if images else nn.Linear(i, o)

    norm = nn.BatchNorm2d if images else nn.BatchNorm1d
    model = nn.Sequential(
        layer(2, 3), norm(3), layer(3, 4), norm(4), nn.Tanh(), nn.Flatten(), nn.Linear(36 if images else 4, 2)
    )
    shape = (2, 3, 3) if images else (2,)
    assert shifts(model, drawn(8, *shape), "mse", [drawn(6, *shape, seed=1)]) == {
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
    found = shifts(model, drawn(8, 2, 5, 5), "mse", [drawn(6, 2, 5, 5, seed=1)])
    assert found.get("translation 1", 0) == count


def test_beta_of_batch_norm_under_a_softmax():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    assert shifts(model, drawn(8, 4), "cross_entropy", [drawn(6, 4, seed=1)]) == {
        "translation 0": 3,
        "translation 1": 1,
    }


def test_betas_that_meet_in_a_shortcut():
    model = _Model(
        lambda m, x: m.o(torch.tanh(m.first(m.a(x)) + m.second(m.b(x)))),
        a=nn.Linear(4, 3, bias=False),
        b=nn.Linear(4, 3, bias=False),
        first=nn.BatchNorm1d(3),
        second=nn.BatchNorm1d(3),
        o=nn.Linear(3, 2),
    )
    assert shifts(model, drawn(8, 4), "mse", [drawn(6, 4, seed=1)]) == {"translation first ↔ second": 3}


def _units(m: _Model, x: Tensor) -> Tensor:
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
    model = _Model(
        LAST[name],
        a=nn.Linear(3, 4),
        o=nn.Linear(4, 3),
        temperature=nn.Parameter(torch.tensor(1.5)),
    )
    found = find_symmetries(model.double(), drawn(6, 5, 3))
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
    model = _Model(
        lambda m, x: m.o(torch.tanh(how(m.a(x)).reshape(len(x), -1) + m.b)),
        a=nn.Linear(4, 6),
        b=parameter(1),
        o=nn.LazyLinear(2),
    )
    model.double()(drawn(2, 4))
    found = shifts(model, drawn(8, 4), "mse", [drawn(7, 4, seed=1)])
    assert sum(found.values()) == count


def test_how_many_are_added_is_the_batchs():
    # Σ_t (b + …) + c: the b's take back T times c, and T is another number in another batch.
    model = _Model(
        lambda m, x: m.o(torch.tanh(m.a(x).sum(1) + m.c)),
        a=nn.Linear(3, 4),
        c=parameter(4),
        o=nn.Linear(4, 2),
    )
    assert shifts(model, drawn(6, 5, 3), "mse", []) == {}


def test_a_cancellation_that_is_the_examples():
    # h[0] and h[1] are two samples: what one adds the other does not take away.
    model = _Model(
        lambda m, x: m.o(torch.tanh(m.a(x) - m.b(x.flip(0)))),
        a=nn.Linear(3, 4),
        b=nn.Linear(3, 4),
        o=nn.Linear(4, 2),
    )
    assert shifts(model, drawn(6, 3), "mse", [drawn(5, 3, seed=1)]) == {"translation a, b": 4}


def test_rows_in_another_order_are_other_rows():
    # As many samples as tokens in the example: x[b, t] and x[t, b] are not the same.
    model = _Model(
        lambda m, x: m.o(
            torch.tanh(torch.einsum("btk,nk->btn", x, m.a) + torch.einsum("btk,nk->tbn", x, m.g)).mean(1)
        ),
        a=parameter(2, 3),
        g=parameter(2, 3),
        o=nn.Linear(2, 2),
    )
    assert shifts(model, drawn(4, 4, 3), "mse", []) == {}


def test_entries_that_nothing_reads():
    model = _Model(
        lambda m, x: m.o(torch.tanh(m.a(x) + m.c[:4])), a=nn.Linear(3, 4), c=parameter(6), o=nn.Linear(4, 2)
    )
    assert shifts(model, drawn(6, 3), "mse", [drawn(5, 3, seed=1)]) == {
        "translation c": 2,
        "translation c ↔ a": 4,
    }


def test_a_large_vocabulary_is_cheap(table_of):
    # Labels are of axes: a head of 50 000 tokens has one charge for each input, and the table one for each row.
    model = _Model(
        lambda m, ids: m.head(F.layer_norm(m.table(ids), (4,))).mT,
        table=nn.Embedding(50_000, 4),
        head=nn.Linear(4, 50_000),
    )
    found = table_of(model, integers(50_000, 4, 3), "translation", target=integers(50_000, 4, 3))
    assert found == {"translation table": 50_000, "translation head": 4 + 1}


def test_a_part_of_a_parameter_that_is_read_again_moves_once():
    # The key's bias may be anything; of its last three entries another reader sees the sum with c.
    model = _Model(
        lambda m, x: m.o(torch.tanh(m.a(x) + m.b)) + m.c + m.b[1:4],
        a=nn.Linear(3, 4, bias=False),
        b=parameter(4),
        c=parameter(3),
        o=nn.Linear(4, 3, bias=False),
    )
    assert shifts(model, drawn(6, 3), "mse", [drawn(5, 3, seed=1)]) == {}
    key = _Model(
        lambda m, x: m.o(torch.tanh((x @ (m.k(x) + m.b).mT).softmax(-1) @ x)).mean(1) + m.c + m.b[1:3],
        k=nn.Linear(3, 3, bias=False),
        b=parameter(3),
        c=parameter(2),
        o=nn.Linear(3, 2, bias=False),
    )
    assert shifts(key, drawn(6, 4, 3), "mse", [drawn(5, 4, 3, seed=1)]) == {
        "translation b": 1,
        "translation b ↔ c": 2,
    }


def test_layers_of_one_input_and_tables_of_one_row():
    # A vector of one number is a number.
    model = _Model(lambda m, x: m.o(x), o=nn.Linear(1, 3))
    assert shifts(model, drawn(6, 1), "cross_entropy", [drawn(5, 1, seed=1)]) == {"translation o": 2}
    tables = _Model(
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
