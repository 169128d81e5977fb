"""Each breaker: the symmetry of that kind is not found, and what it does not break still is."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F


def network(between: nn.Module, **bias: bool) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5, **bias), between, nn.Linear(5, 3))


@pytest.mark.parametrize(
    "between",
    [nn.GELU(), nn.Tanh(), nn.Sigmoid(), nn.SiLU(), nn.ELU(), nn.Softplus(), nn.ReLU6(), nn.Softmax(-1)],
    ids=lambda between: type(between).__name__,
)
def test_an_activation_that_is_not_homogeneous(between, table_of, normal):
    assert table_of(network(between), normal(8, 6), "rescale", "scale", "matrix") == {}


class _UsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.c(F.relu(self.a(F.relu(self.a(x)))))


class _TiedAcross(nn.Module):
    """Encoder and decoder share one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 5)

    def forward(self, x):
        return F.linear(F.relu(self.a(x)), self.a.weight.T)


@pytest.mark.parametrize("model", [_UsedTwice(), _TiedAcross()], ids=["used twice", "transposed"])
def test_a_parameter_used_twice(model, table_of, normal):
    assert table_of(model, normal(8, 6), "rescale", "matrix") == {}


class _SecondReader(nn.Module):
    def __init__(self, second: str) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(5, 3)
        self.second = second

    def forward(self, x):
        h = F.relu(self.a(x))
        extra = {
            "raw": lambda: h.square().sum(1, keepdim=True).sigmoid() * torch.ones(3, dtype=x.dtype),
            "linear": lambda: self.c(h),
            "residual": lambda: F.pad(x[:, :3], (0, 0)) + h[:, :3],
        }[self.second]()
        return self.b(h) + extra


def test_a_second_reader_without_weights(table_of, normal):
    assert table_of(_SecondReader("raw"), normal(8, 6), "rescale") == {}
    # Units 3 and 4 have no second reader.
    assert table_of(_SecondReader("residual"), normal(8, 6), "rescale") == {"rescale a → b": 2}


def test_a_second_reader_with_weights_takes_part(table_of, normal):
    assert table_of(_SecondReader("linear"), normal(8, 6), "rescale") == {"rescale a → b, c": 5}


@pytest.mark.parametrize("frozen", ["0.weight", "0.bias", "2.weight"])
def test_a_frozen_parameter(frozen, table_of, normal):
    model = network(nn.ReLU())
    model.get_parameter(frozen).requires_grad_(False)
    assert table_of(model, normal(8, 6), "rescale") == {}


def test_a_frozen_parameter_that_takes_no_part_breaks_nothing(table_of, normal):
    model = network(nn.ReLU())
    model.get_parameter("2.bias").requires_grad_(False)
    assert table_of(model, normal(8, 6)) == {"rescale 0 → 2": 5, "translation 2": 5}


def test_batch_norm_in_eval_mode(table_of, normal):
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
    assert table_of(model, normal(8, 6), "scale") == {"scale 0": 5}
    assert table_of(model.eval(), normal(8, 6)) == {"translation 3": 6}


def test_a_bias_that_is_there_takes_part_and_one_that_is_not_does_not(table_of, normal):
    # relu(W x + b): the bias scales with the row. Where the bias is added behind the reader it stays out.
    assert table_of(network(nn.ReLU(), bias=False), normal(8, 6), "rescale") == {"rescale 0 → 2": 5}


class _BiasOnOneSide(nn.Module):
    """A constant, and so not a parameter that could scale along, is added to the channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)
        self.register_buffer("offset", torch.tensor([1.0, 0.5, 2.0, 1.0, 0.3]))

    def forward(self, x):
        return self.b(F.relu(self.a(x) + self.offset))


class _NormThenBias(nn.Module):
    """Only part of what enters the norm is a parameter's product: the input itself is added."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.b(F.layer_norm(x + self.a(x), (6,)))


def test_something_fixed_beside_what_scales(table_of, normal):
    assert table_of(_BiasOnOneSide(), normal(8, 6), "rescale", "scale") == {}
    assert table_of(_NormThenBias(), normal(8, 6), "rescale", "scale") == {}


class _Glu(nn.Module):
    def __init__(self, gate: str) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 3)
        self.act = {"silu": F.silu, "sigmoid": torch.sigmoid, "relu": F.relu}[gate]

    def forward(self, x):
        return self.down(self.act(self.gate(x)) * self.up(x))


def test_a_gate_breaks_its_own_branch_only(table_of, normal):
    for gate in ("silu", "sigmoid"):
        assert table_of(_Glu(gate), normal(8, 6), "rescale", "matrix") == {"rescale up → down": 5}
    assert table_of(_Glu("relu"), normal(8, 6), "rescale") == {
        "rescale gate → down": 5,
        "rescale up → down": 5,
    }


class _Residual(nn.Module):
    """h + f(h), where h is the input itself, or made by weights."""

    def __init__(self, embedded: bool) -> None:
        super().__init__()
        self.e = nn.Linear(6, 6) if embedded else None
        self.a, self.b, self.c = nn.Linear(6, 4), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = x if self.e is None else F.relu(self.e(x))
        return self.c(F.relu(h + self.b(F.relu(self.a(h)))))


def test_a_residual_ties_its_branches_or_forbids(table_of, normal):
    assert table_of(_Residual(True), normal(8, 6), "rescale") == {
        "rescale e, b → a, c": 6,
        "rescale a → b": 4,
    }
    # The data cannot be rescaled: only what is inside the branch is left.
    assert table_of(_Residual(False), normal(8, 6), "rescale") == {"rescale a → b": 4}


def test_the_mean_squared_error_has_no_translation(table_of, normal):
    assert table_of(network(nn.ReLU()), normal(8, 6), loss="mse") == {"rescale 0 → 2": 5}


class _Concatenated(nn.Module):
    """One norm over two parameters' outputs side by side: neither may shift alone, both may together."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(8, 3)

    def forward(self, x):
        return self.c(F.layer_norm(torch.cat([self.a(x), self.b(x)], -1), (8,)))


def test_half_of_what_a_norm_sees(table_of, normal):
    assert table_of(_Concatenated(), normal(8, 6)) == {
        "scale a, b": 1,
        "translation c": 8 + 1,
        "translation a, b": 6 + 1,
    }


def test_a_bottleneck_with_an_activation_has_no_mixing(table_of, normal):
    assert table_of(network(nn.ReLU()), normal(8, 6), "matrix") == {}
    assert table_of(network(nn.Identity()), normal(8, 6), "matrix") == {"matrix 0 → 2": 15}


def test_dropout_breaks_a_mixing_and_not_a_rescale(table_of, normal):
    found = table_of(network(nn.Dropout(0.5)), normal(8, 6), "matrix", "rescale")
    assert found == {"rescale 0 → 2": 5}
    assert "matrix 0 → 2" in table_of(network(nn.Dropout(0.5)).eval(), normal(8, 6))


class _QueryIsKey(nn.Module):
    """One tensor is query and key: the key's shift would be the query's too."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.value, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        z = self.both(x)
        return self.head(torch.tanh(F.scaled_dot_product_attention(z, z, self.value(x))).mean(1))


def test_a_query_that_is_the_key_has_no_translation(table_of, normal):
    assert table_of(_QueryIsKey(), normal(4, 5, 6), "translation") == {"translation head": 7}
