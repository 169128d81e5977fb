"""An error inside a kind's rules names the kind, the operation and its place, and whose defect it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nm_ode.loss.objective import Supervised
from nm_ode.symmetries import SymmetryError
from nm_ode.symmetries.graph import Graph, trace
from nm_ode.symmetries.proofs import discover
from nm_ode.symmetries.rules import matrix, scaling, translation
from tests.symmetries.conftest import gaussian, integers


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.b(self.a(x).relu())


@pytest.fixture(scope="module")
def graph() -> Graph:
    loss = Supervised(nn.functional.cross_entropy)
    return trace(Net().double(), loss, (gaussian(8, 3), integers(3, 8)))


def theirs(*_):
    raise IndexError("no such thing")


def ours(*_):
    raise IndexError("no such thing")


ours.__module__, theirs.__module__ = "nm_ode.symmetries.rules", "some.package"
KINDS = {"scale and rescale": scaling, "translation": translation, "matrix": matrix}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rule", "whose"),
    [(ours, "defect of nm_ode, please report"), (theirs, "the rule is of some.package, not nm_ode's own")],
)
def test_at_an_operation(graph: Graph, kind: str, rule, whose: str, monkeypatch) -> None:
    monkeypatch.setitem(KINDS[kind].RULES, "relu", rule)
    where = r"relu in the model itself, test_errors_in_rules\.py:\d+ \(IndexError: no such thing; test_errors_in_rules"
    with pytest.raises(SymmetryError, match=f"the rules of {kind} symmetries fail at {where}.*{whose}"):
        discover(graph)


def test_outside_of_all_operations(graph: Graph, monkeypatch) -> None:
    monkeypatch.setattr(translation, "gathered", ours)
    with pytest.raises(
        SymmetryError, match=r"the rules of translation symmetries fail outside the rules of single.*no such"
    ):
        discover(graph)


def test_a_refusal_inside_a_rule_stays_as_it_is(graph: Graph, monkeypatch) -> None:
    def refused(*_):
        raise SymmetryError("as it is")

    monkeypatch.setitem(translation.RULES, "relu", refused)
    with pytest.raises(SymmetryError, match=r"^as it is$"):
        discover(graph)


# ---- one declaration reaches the rules of all kinds


@torch.library.custom_op("nm_ode_tests::doubled", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


@doubled.register_fake
def _(x):
    return torch.empty_like(x)


class Doubled(Net):
    def forward(self, x):
        return doubled(self.b(doubled(self.a(x))))


def test_an_operation_declared_from_outside_reaches_all_kinds(monkeypatch) -> None:
    from nm_ode.symmetries.operations import declared

    monkeypatch.setattr(declared, "DECLARED", dict(declared.DECLARED))
    loss = Supervised(nn.functional.cross_entropy)
    graph = trace(Doubled().double(), loss, (gaussian(8, 3), integers(3, 8)))

    def counts() -> dict[str, int]:
        found = dict.fromkeys(("translation", "rescale", "matrix"), 0)
        for one in discover(graph).symmetries:
            found[one.kind] += one.count
        return found

    assert counts() == {"translation": 0, "rescale": 0, "matrix": 0}
    once = (declared.Degree(("self",)),)
    declared.declare("doubled", degrees=once, shifts=declared.Shifts({"self": 2.0}, linear=True))
    # All-ones of b; the units between as factors, and as coordinates.
    assert counts() == {"translation": 5, "rescale": 4, "matrix": 10}
