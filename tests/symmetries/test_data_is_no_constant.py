"""What the example's integers and sizes happen to be proves nothing of another batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode.symmetries import find_symmetries
from tests.symmetries.conftest import integers
from tests.symmetries.other_batches import worst_constraint

Forward = Callable[["_Model", Tensor], Tensor]


class _Model(nn.Module):
    """A table of nine rows, two linear layers, and a forward pass of the test's own."""

    def __init__(self, forward: Forward, rows: tuple[int, ...] = (9, 4)) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(rows, dtype=torch.float64, generator=random))
        self.hidden, self.out = nn.Linear(4, 4).double(), nn.Linear(4, 3).double()
        self.own = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self, x)


LOOKUPS: dict[str, Forward] = {
    "advanced indexing": lambda m, ids: m.out(F.relu(m.table[ids]).mean(1)),
    "index_select": lambda m, ids: m.out(
        F.relu(m.table.index_select(0, ids.flatten()).unflatten(0, (-1, 5))).mean(1)
    ),
    "embedding": lambda m, ids: m.out(F.relu(F.embedding(ids, m.table)).mean(1)),
    "one_hot": lambda m, ids: m.out(F.relu(F.one_hot(ids, 9).double() @ m.table).mean(1)),
    "computed": lambda m, ids: m.out(F.relu(m.table[(ids + 1) // 2]).mean(1)),
    "counted": lambda m, ids: m.out(
        F.relu(torch.stack([(ids == k).sum(1) for k in range(9)], 1).double() @ m.table)
    ),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_rows_that_the_example_does_not_meet_are_tied(name):
    # A rescale of the whole table against the reader's columns; no row alone.
    model = _Model(LOOKUPS[name])
    ids, target = integers(3, 8, 5), integers(3, 8)
    found = find_symmetries(model, ids, F.cross_entropy, target=target)
    assert found.defects == ()
    assert {s.name: s.count for s in found} == {"translation out": 5, "rescale table → out": 4}
    batches = [(integers(9, n, 5, seed=n), integers(3, n, seed=n)) for n in (8, 30)]
    assert worst_constraint(model, F.cross_entropy, found, batches) < 1e-12


def test_tokens_that_enter_a_norm_may_shift_row_by_row():
    model = _Model(lambda m, ids: m.out(torch.tanh(F.layer_norm(m.table[ids], (4,))).mean(1)))
    found = find_symmetries(model, integers(3, 8, 5), F.cross_entropy, target=integers(3, 8))
    assert {s.name: s.count for s in found} == {
        "translation table": 9,
        "translation out": 5,
        "scale table": 1,
    }
    batches = [(integers(9, 8, 5, seed=3), integers(3, 8, seed=4))]
    assert worst_constraint(model, F.cross_entropy, found, batches) < 1e-12


LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], set[str]]] = {
    # The example has classes 0 and 1 alone.
    "chosen outputs": (lambda o, t: (o[torch.arange(len(o)), t] - 1).square().mean(), set()),
    "gathered outputs": (lambda o, t: (o.gather(1, t[:, None]) - 1).square().mean(), set()),
    "selected columns": (lambda o, t: o.index_select(1, t).square().mean(), set()),
    "indexed columns": (lambda o, t: o[:, t].square().mean(), set()),
    "written out": (lambda o, t: -o.log_softmax(1)[torch.arange(len(o)), t].mean(), {"translation out"}),
    "class weights": (
        lambda o, t: F.nll_loss(o.log_softmax(1), t, weight=torch.arange(3.0, dtype=o.dtype)),
        {"translation out"},
    ),
    # Of two outputs the sum alone is read.
    "a mask": (
        lambda o, t: torch.where(t > 0, o[:, 0], o[:, 1] + o[:, 2]).square().mean(),
        {"translation out.weight[1:2], out.bias[1:2] ↔ out.weight[2:3], out.bias[2:3]"},
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_classes_that_the_example_does_not_meet(name, normal):
    loss, wanted = LOSSES[name]
    model = _Model(lambda m, x: m.out(F.relu(m.hidden(x))))
    target = integers(2, 8) * (0 if name == "a mask" else 1)
    found = find_symmetries(model, normal(8, 4), loss, target=target)
    assert found.defects == ()
    assert {s.name for s in found} == {"rescale hidden → out", *wanted}
    batches = [(normal(n, 4, seed=n), integers(3, n, seed=n)) for n in (8, 30)]
    assert worst_constraint(model, loss, found, batches) < 1e-12


def test_indices_that_are_stored_as_numbers(normal):
    # As the actions of a DQN beside their rewards.
    def loss(values: Tensor, taken: Tensor) -> Tensor:
        chosen = values[torch.arange(len(values)), taken[:, 0].long()]
        return (chosen - taken[:, 1]).square().mean()

    def taken(actions: int, n: int) -> Tensor:
        return torch.stack([integers(actions, n).double(), normal(n, seed=1)], 1)

    model = _Model(lambda m, x: m.out(F.relu(m.hidden(x))))
    found = find_symmetries(model, normal(8, 4), loss, target=taken(2, 8))
    assert {s.name for s in found} == {"rescale hidden → out"}
    assert worst_constraint(model, loss, found, [(normal(20, 4), taken(3, 20))]) < 1e-12


SIZES: dict[str, Forward] = {
    "a row for each sample": lambda m, x: m.out(F.relu(m.hidden(x) + m.table[torch.arange(len(x))])),
    "as many rows as samples": lambda m, x: m.out(F.relu(m.hidden(x) + m.table[: len(x)])),
    "if it has 20 samples": lambda m, x: m.out((torch.tanh if len(x) == 20 else F.relu)(m.hidden(x))),
    "if it has 8 samples": lambda m, x: m.out((F.relu if len(x) == 8 else torch.tanh)(m.hidden(x))),
    "if it has more than 10": lambda m, x: m.out((torch.tanh if len(x) > 10 else F.relu)(m.hidden(x))),
    "if it is even": lambda m, x: m.out((torch.tanh if len(x) % 2 else F.relu)(m.hidden(x))),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_size_of_the_example_proves_nothing(name, normal):
    model = _Model(SIZES[name], rows=(32, 4))
    found = find_symmetries(model, normal(8, 4), F.cross_entropy, target=integers(3, 8))
    assert "translation out" in {s.name for s in found}
    assert bool(found.left_out) == name.startswith("if")
    batches = [(normal(n, 4, seed=n), integers(3, n, seed=n)) for n in (8, 9, 20)]
    assert worst_constraint(model, F.cross_entropy, found, batches) < 1e-12
    if not found.left_out:
        assert "rescale table, hidden → out" in {s.name for s in found}


def test_positions_up_to_the_length_of_the_text():
    model = _Model(lambda m, ids: m.out(F.relu(m.table[ids] + m.position[: ids.shape[1]]).mean(1)))
    model.position = nn.Parameter(torch.randn(16, 4, dtype=torch.float64))
    found = find_symmetries(model, integers(3, 8, 5), F.cross_entropy, target=integers(3, 8))
    assert found.n_charges("rescale") == 4
    batches = [(integers(9, 8, length, seed=1), integers(3, 8)) for length in (5, 12)]
    assert worst_constraint(model, F.cross_entropy, found, batches) < 1e-12


def test_a_power_by_the_length_of_the_text_is_of_no_degree(normal):
    # A factor of h comes out to the power of the length, which is another one in another batch.
    model = _Model(lambda m, x: m.out((F.relu(m.hidden(x)) ** x.shape[1]).mean(1)))
    found = find_symmetries(model, normal(8, 3, 4), F.cross_entropy, target=integers(3, 8))
    assert {s.name: s.count for s in found} == {"translation out": 5}
    assert worst_constraint(model, F.cross_entropy, found, [(normal(8, 2, 4), integers(3, 8))]) < 1e-12


def test_positions_up_to_the_number_of_patches(normal):
    # An example may be a small image: larger ones read further rows of the table.
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut, self.out = nn.Conv2d(1, 6, 4, stride=4).double(), nn.Linear(6, 3).double()
            self.position = nn.Parameter(normal(16, 6))

        def forward(self, x: Tensor) -> Tensor:
            patches = self.cut(x).flatten(2).mT
            return self.out(F.relu(patches + self.position[: patches.shape[1]]).mean(1))

    model = Patches()
    found = find_symmetries(model, normal(8, 1, 8, 8), F.cross_entropy, target=integers(3, 8))
    assert {s.name: s.count for s in found} == {
        "rescale position, cut → out": 6,
        "translation out": 7,
        "translation position ↔ cut": 6,
    }
    assert worst_constraint(model, F.cross_entropy, found, [(normal(8, 1, 16, 16), integers(3, 8))]) < 1e-12


def test_a_draw_of_the_models_own_is_no_constant(normal):
    model = _Model(lambda m, x: m.out(F.relu(x + m.table[torch.randint(0, 3, (8,))])))
    found = find_symmetries(model, normal(8, 4), F.cross_entropy, target=integers(3, 8))
    assert {s.name for s in found} == {"translation out"}


class _Padded(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4, **options).double()  # type: ignore[arg-type]
        self.out = nn.Linear(4, 3).double()

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(F.relu(self.table(ids)).mean(1))


@pytest.mark.parametrize(
    ("options", "row", "rescales"),
    [({"padding_idx": 2}, 0.0, 4), ({"padding_idx": 2}, 1.0, 0), ({"scale_grad_by_freq": True}, 0.0, 0)],
    ids=["a row of zeros", "another row", "rows by their frequency"],
)
def test_rows_of_which_torch_gives_another_gradient(options, row, rescales):
    # What is not trained may count among what is scaled where it is zero.
    model = _Padded(**options)
    with torch.no_grad():
        model.table.weight[2] = row
    found = find_symmetries(model, integers(9, 8, 5), F.cross_entropy, target=integers(3, 8))
    assert found.defects == ()
    assert found.n_charges("rescale") == rescales
    batches = [(integers(9, 20, 5, seed=2), integers(3, 20))]
    assert worst_constraint(model, F.cross_entropy, found, batches) < 1e-12


def test_a_parameter_indexed_by_a_buffer_is_no_data(table_of, normal):
    # A table of relative positions: all shift together under the softmax, and queries and keys mix as ever.
    class Relative(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 3)
            self.table = nn.Parameter(torch.randn(5))
            self.register_buffer("place", torch.arange(3)[:, None] - torch.arange(3) + 2)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).chunk(3, -1)
            bias = self.table[self.place.view(-1)].view(3, 3)
            return self.out((q @ k.mT + bias).softmax(-1) @ v).mean(1)

    found = table_of(Relative(), normal(4, 3, 4), loss="mse")
    assert found["translation table"] == 1
    assert found["translation qkv"] == 4
    assert sum(count for name, count in found.items() if name.startswith("matrix")) == 10 + 10


def test_columns_of_different_meaning():
    # Tokens of nine kinds in one column, of two in the other: neither is drawn from the other's range.
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Embedding(9, 4), nn.Embedding(2, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.relu(self.a(x[:, 0]) + self.b(x[:, 1])))

    x = torch.stack([integers(9, 8), integers(2, 8)], 1)
    assert {s.name: s.count for s in find_symmetries(Two(), x)} == {
        "translation out": 5,
        "translation a ↔ b": 4,
        "rescale a, b → out": 4,
    }


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (lambda o, t: F.binary_cross_entropy(o.sigmoid(), t), torch.rand(8, 3).double()),
        (lambda o, t: F.cross_entropy(o, t, ignore_index=-100), torch.tensor([0, 1, 2, -100] * 2)),
        (F.binary_cross_entropy_with_logits, torch.ones(8, 3).double()),
    ],
    ids=["probabilities", "ignored targets", "zeros and ones"],
)
def test_targets_that_a_loss_does_not_take_are_not_drawn(loss, target, normal):
    found = find_symmetries(
        _Model(lambda m, x: m.out(F.relu(m.hidden(x)))), normal(8, 4), loss, target=target
    )
    assert found.n_charges("rescale") == 4
    assert found.defects == ()


@settings(max_examples=6, deadline=None)
@given(
    look=st.sampled_from(sorted(LOOKUPS)),
    loss=st.sampled_from(sorted(LOSSES)),
    seen=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_whatever_the_example_has_met(look, loss, seen, seed):
    model, loss_fn = _Model(LOOKUPS[look]), LOSSES[loss][0]
    found = find_symmetries(
        model, integers(seen, 8, 5, seed=seed), loss_fn, target=integers(3, 8, seed=seed), draws=1
    )
    assert found.defects == ()
    batches = [(integers(9, 15, 5, seed=seed + 1), integers(3, 15, seed=seed))]
    assert worst_constraint(model, loss_fn, found, batches) < 1e-12
