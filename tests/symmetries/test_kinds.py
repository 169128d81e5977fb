"""A kind of symmetry is one registration: how it is found, and by which form its charges are measured."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import nm_ode
from nm_ode.charges import predict_charges
from nm_ode.errors import NmOdeError
from nm_ode.observers import Charges
from nm_ode.symmetries import KINDS, Part, SymmetryKind, find_symmetries
from nm_ode.symmetries.findings import Findings, Found
from nm_ode.symmetries.forms import Shift
from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.operations import operation
from nm_ode.symmetries.symmetry import whole


def test_kinds_are_listed_in_the_order_of_their_symmetries():
    assert list(KINDS) == ["translation", "scale", "rescale", "matrix"]


def test_an_unknown_kind_is_named_with_its_neighbours():
    with pytest.raises(NmOdeError, match="rescale"):
        KINDS["rescales"]


class _TwoBiases(nn.Module):
    """Only the sum of two biases is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.extra, self.b = nn.Linear(6, 5), nn.Parameter(torch.ones(5)), nn.Linear(5, 3)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x) + self.extra))


def find_sums(graph: Graph) -> Findings:
    """A bias that is added to the result of a Linear with one: what one gains, the other may lose."""
    found = []
    for node in graph.operations:
        if operation(node) == "add":
            linear, extra = node.args
            bias = linear.args[2]
            both = [(graph.parameters[bias], 1.0), (graph.parameters[extra], -1.0)]
            channels = torch.arange(5)
            found.append(
                Found("sum", tuple(Part(whole(name, (5,)), (0,), channels, sign) for name, sign in both))
            )
    return Findings(tuple(found))


@pytest.fixture
def sums():
    KINDS.register("sum", SymmetryKind(find_sums, Shift))
    yield
    KINDS.unregister("sum")


def test_a_kind_of_ones_own_is_found_verified_recorded_and_predicted(sums, normal):
    model = _TwoBiases()
    found = find_symmetries(model, normal(8, 6))
    assert found.defects == ()
    assert {s.name: s.count for s in found.of_kind("sum")} == {"sum a → extra": 5}
    y = torch.randint(3, (8,), generator=torch.Generator().manual_seed(0))
    problem = nm_ode.Problem(model, nn.functional.cross_entropy, (normal(8, 6), y))
    sgd = nm_ode.SGD(lr=0.1, momentum=0.9, weight_decay=0.1)
    run = nm_ode.train(problem, sgd, 20, observe=[Charges(found)])
    of_kind = run["charge"][:, run["kind"].values == "sum"]
    theta = torch.from_numpy(run["theta"].values[:-1])
    parts = [theta[:, problem.layout[name].slice] for name in ("a.bias", "extra")]
    torch.testing.assert_close(torch.from_numpy(of_kind.values), parts[0] - parts[1])
    torch.testing.assert_close(
        *(torch.from_numpy(part["charge"].values) for part in (predict_charges(run, "exact"), run))
    )
    norms = run["generator_norm"][:, run["kind"].values == "sum"]
    assert norms.values == pytest.approx(2**0.5)  # one entry up, one down
