"""The numerical search finds what the graph's rules prove, and what they miss."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nm_ode.models import cnn, mlp, vit
from nm_ode.symmetries import SymmetryError, find_symmetries, scan_symmetries


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (mlp([6, 5, 4, 3], "relu"), (6,)),
        (mlp([6, 5, 3], "tanh"), (6,)),
        (mlp([6, 5, 4, 3], "relu", norm="batch"), (6,)),
        (mlp([6, 5, 4, 3], "relu", norm="layer"), (6,)),
        (mlp([6, 5, 4, 3], "identity"), (6,)),
        (cnn((3, 4), batch_norm=True), (1, 8, 8)),
    ],
    ids=["relu", "tanh", "batch norm", "layer norm", "linear", "cnn"],
)
def test_the_rules_explain_all_that_is_conserved(model, shape, normal):
    scan = scan_symmetries(model, normal(8, *shape))
    assert scan.unexplained == ()
    assert scan.conserved == scan.explained > 0


def test_conserved_directions_are_counted_without_what_holds_for_any_numbers(normal):
    # 5 + 4 rescales and 4 + 1 translations; that all rows are all columns is not counted.
    model = mlp([6, 5, 4, 3], "relu")
    assert scan_symmetries(model, normal(8, 6)).conserved == 5 + 4 + 4 + 1
    assert find_symmetries(model, normal(8, 6)).n_charges() == 5 + 4 + 4 + 1


class _Centred(nn.Module):
    """A mean subtracted as a product with a matrix, of whose numbers the rules know nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        h = self.a(x)
        return self.b(torch.tanh(h - h @ torch.full((5, 5), 0.2, dtype=h.dtype)))


class _TwoBiases(nn.Module):
    """Only the sum of two biases is seen, one of them through a matrix that happens to be the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.extra, self.b = nn.Linear(6, 5), nn.Parameter(torch.ones(5)), nn.Linear(5, 3)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x) + self.extra @ torch.eye(5, dtype=x.dtype)))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (_Centred(), {"shift of the columns of a.weight": 6, "shift of all of a.bias": 1}),
        (_TwoBiases(), {"shift of entries of extra, shift of entries of a.bias": 5}),
    ],
    ids=["centred by a matrix", "two biases"],
)
def test_what_the_rules_do_not_know_is_told(model, expected, normal):
    scan = scan_symmetries(model, normal(8, 6))
    assert {", ".join(part.parts): part.dimension for part in scan.unexplained} == expected
    assert scan.explained == 5 + 1  # the logits' translations


def test_what_only_one_position_feels(normal):
    # One block, of which the class token alone is read: the other positions' stream enters norms only before the
    # attention, and scales by itself. The rules tie all positions of a tensor that one Linear makes.
    scan = scan_symmetries(vit(dim=4, depth=1, heads=2, hidden=5), normal(8, 1, 8, 8))
    by_kind = {part.parts[0].split()[0]: part.dimension for part in scan.unexplained}
    assert by_kind["scale"] == 1


def test_a_large_model_is_refused_with_the_remedy(normal):
    with pytest.raises(SymmetryError, match="for small models"):
        scan_symmetries(mlp([64, 800, 10], "relu"), normal(8, 64))


class _Products(nn.Module):
    """Each entry of one parameter beside one of another; and two layers without anything between."""

    def __init__(self) -> None:
        super().__init__()
        self.u, self.v = (nn.Parameter(torch.ones(5) + i) for i in range(2))
        self.a, self.b = nn.Linear(6, 2, bias=False), nn.Linear(2, 5, bias=False)

    def forward(self, x):
        return torch.tanh(self.b(self.a(x))) * (self.u * self.v)


def test_in_a_small_model_every_entry_and_mixtures_of_rows_are_looked_at(normal):
    scan = scan_symmetries(_Products(), normal(8, 6), "mse")
    # u_i against v_i, and the symmetric matrices of two coordinates, of which the diagonal are rescales.
    assert scan.conserved == 5 + 3
    assert scan.kinds["scale"][0] == 5 + 2
    assert scan.kinds["mixing"] == (1, 1)
    assert scan.unexplained == ()


def test_products_of_conserved_sums_are_not_counted(normal):
    # The logits' common shift is conserved, and so are its products with itself.
    scan = scan_symmetries(nn.Linear(3, 2), normal(8, 3))
    assert scan.conserved == scan.explained == 3 + 1


def test_what_is_computed_in_float32_is_refused():
    weights = torch.ones(3)  # float32, which no module holds

    def loss(output, target):
        return F.cross_entropy(output, target, weight=weights)

    with pytest.raises(SymmetryError, match="float64"):
        scan_symmetries(nn.Linear(4, 3), torch.randn(8, 4), loss, target=torch.arange(8) % 3)
