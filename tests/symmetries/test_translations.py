"""Translations of several parameters that compensate one another, counted by hand; of tables and of parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode.parameters import Layout
from nm_ode.symmetries import ChargeMeter, find_symmetries
from tests.symmetries.conftest import gaussian, integers
from tests.symmetries.shifted import Model, parameter, shifts


def test_two_biases_in_one_sum():
    model = Model(
        lambda m, x: m.o(torch.tanh(m.a(x[:, :4]) + m.g(x[:, 4:]))),
        a=nn.Linear(4, 5),
        g=nn.Linear(3, 5),
        o=nn.Linear(5, 2),
    )
    found = find_symmetries(model.double(), gaussian(8, 7), "mse")
    (pair,) = found.of_kind("translation")
    assert (pair.name, pair.count) == ("translation a ↔ g", 5)
    assert [(part.parameter, part.weight) for part in pair.parts] == [("a.bias", 1.0), ("g.bias", -1.0)]
    assert shifts(model, gaussian(8, 7), "mse", [gaussian(9, 7, seed=1)]) == {"translation a ↔ g": 5}
    # Q = ⟨a.bias⟩_c − ⟨g.bias⟩_c, ‖ξ‖² = 2.
    layout = Layout.of(model)
    meter = ChargeMeter(layout, [pair])
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    assert torch.allclose(meter.charge(theta), (model.a.bias - model.g.bias).detach())
    assert torch.allclose(meter.generator_norm(theta).square(), torch.full((5,), 2.0, dtype=torch.float64))


def test_weights_that_read_the_same_compensate_too():
    # a(x) + g(x): each of 5 · 4 weights and 5 biases.
    model = Model(
        lambda m, x: m.o(torch.tanh(m.a(x) + m.g(x))), a=nn.Linear(4, 5), g=nn.Linear(4, 5), o=nn.Linear(5, 2)
    )
    assert shifts(model, gaussian(8, 4), "mse", [gaussian(9, 4, seed=1)]) == {"translation a ↔ g": 25}


def test_a_difference_and_a_multiple():
    model = Model(
        lambda m, x: m.o(torch.tanh(m.a(x[:, :4]) - 2.0 * m.g(x[:, 4:]))),
        a=nn.Linear(4, 5),
        g=nn.Linear(3, 5),
        o=nn.Linear(5, 2),
    )
    (pair,) = find_symmetries(model.double(), gaussian(8, 7), "mse").of_kind("translation")
    assert [part.weight for part in pair.parts] == [1.0, 0.5]
    assert shifts(model, gaussian(8, 7), "mse", [gaussian(9, 7, seed=1)]) == {"translation a, g": 5}


def _tokens(m: Model, ids: Tensor) -> Tensor:
    stream = m.word(ids) + m.place(torch.arange(5))
    return stream + m.sort(ids % 2) if hasattr(m, "sort") else stream


@pytest.mark.parametrize("tables", [2, 3])
def test_embeddings_that_are_added(tables):
    layers = {"word": nn.Embedding(7, 4), "place": nn.Embedding(5, 4)}
    if tables == 3:
        layers["sort"] = nn.Embedding(2, 4)
    model = Model(
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
    model = Model(
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
    model = Model(
        lambda m, ids: F.linear(torch.tanh(_tokens(m, ids)).mean(1), m.word.weight),
        word=nn.Embedding(7, 4),
        place=nn.Embedding(5, 4),
    )
    found = shifts(model, integers(7, 8, 5), "cross_entropy", [integers(7, 11, 5, seed=1)])
    assert found == {"translation word ↔ place": 4}
    # The squared error sees the logits themselves.
    assert shifts(model, integers(7, 8, 5), "mse", []) == {}


def test_a_row_that_is_not_trained_is_not_shifted():
    model = Model(
        lambda m, ids: m.o(torch.tanh(_tokens(m, ids)).mean(1)),
        word=nn.Embedding(7, 4, padding_idx=0),
        place=nn.Embedding(5, 4),
        o=nn.Linear(4, 3),
    )
    assert shifts(model, integers(7, 8, 5), "mse", []) == {}
    normed = Model(
        lambda m, ids: m.o(torch.tanh(F.layer_norm(m.word(ids), (4,))).mean(1)),
        word=nn.Embedding(7, 4, padding_idx=0),
        o=nn.Linear(4, 3),
    )
    assert shifts(normed, integers(7, 8, 5), "mse", [integers(7, 11, 5)]) == {"translation word": 6}


def test_an_lstms_two_biases():
    model = Model(
        lambda m, x: m.o(m.lstm(x)[0][:, -1]), lstm=nn.LSTM(3, 4, batch_first=True), o=nn.Linear(4, 2)
    )
    assert shifts(model, gaussian(6, 5, 3), "mse", [gaussian(4, 5, 3, seed=1)]) == {
        "translation lstm.bias_ih_l0 ↔ lstm.bias_hh_l0": 16
    }


def test_betas_that_meet_in_a_shortcut():
    model = Model(
        lambda m, x: m.o(torch.tanh(m.first(m.a(x)) + m.second(m.b(x)))),
        a=nn.Linear(4, 3, bias=False),
        b=nn.Linear(4, 3, bias=False),
        first=nn.BatchNorm1d(3),
        second=nn.BatchNorm1d(3),
        o=nn.Linear(3, 2),
    )
    assert shifts(model, gaussian(8, 4), "mse", [gaussian(6, 4, seed=1)]) == {"translation first ↔ second": 3}


def test_a_cancellation_that_is_the_examples():
    # h[0] and h[1] are two samples: what one adds the other does not take away.
    model = Model(
        lambda m, x: m.o(torch.tanh(m.a(x) - m.b(x.flip(0)))),
        a=nn.Linear(3, 4),
        b=nn.Linear(3, 4),
        o=nn.Linear(4, 2),
    )
    assert shifts(model, gaussian(6, 3), "mse", [gaussian(5, 3, seed=1)]) == {"translation a, b": 4}


def test_rows_in_another_order_are_other_rows():
    # As many samples as tokens in the example: x[b, t] and x[t, b] are not the same.
    model = Model(
        lambda m, x: m.o(
            torch.tanh(torch.einsum("btk,nk->btn", x, m.a) + torch.einsum("btk,nk->tbn", x, m.g)).mean(1)
        ),
        a=parameter(2, 3),
        g=parameter(2, 3),
        o=nn.Linear(2, 2),
    )
    assert shifts(model, gaussian(4, 4, 3), "mse", []) == {}


def test_entries_that_nothing_reads():
    model = Model(
        lambda m, x: m.o(torch.tanh(m.a(x) + m.c[:4])), a=nn.Linear(3, 4), c=parameter(6), o=nn.Linear(4, 2)
    )
    assert shifts(model, gaussian(6, 3), "mse", [gaussian(5, 3, seed=1)]) == {
        "translation c": 2,
        "translation c ↔ a": 4,
    }


def test_a_part_of_a_parameter_that_is_read_again_moves_once():
    # The key's bias may be anything; of its last three entries another reader sees the sum with c.
    model = Model(
        lambda m, x: m.o(torch.tanh(m.a(x) + m.b)) + m.c + m.b[1:4],
        a=nn.Linear(3, 4, bias=False),
        b=parameter(4),
        c=parameter(3),
        o=nn.Linear(4, 3, bias=False),
    )
    assert shifts(model, gaussian(6, 3), "mse", [gaussian(5, 3, seed=1)]) == {}
    key = Model(
        lambda m, x: m.o(torch.tanh((x @ (m.k(x) + m.b).mT).softmax(-1) @ x)).mean(1) + m.c + m.b[1:3],
        k=nn.Linear(3, 3, bias=False),
        b=parameter(3),
        c=parameter(2),
        o=nn.Linear(3, 2, bias=False),
    )
    assert shifts(key, gaussian(6, 4, 3), "mse", [gaussian(5, 4, 3, seed=1)]) == {
        "translation b": 1,
        "translation b ↔ c": 2,
    }
