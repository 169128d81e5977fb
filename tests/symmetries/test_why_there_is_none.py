"""Of a parameter without a symmetry it is said which operation ended it, and where in the user's code that is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nm_ode.symmetries import KINDS, SymmetryKind, find_symmetries
from nm_ode.symmetries.ended import ended
from nm_ode.symmetries.findings import Findings
from nm_ode.symmetries.forms import Diagonal
from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.operations import operation


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return torch.tanh(self.linear(x))  # the line that is named


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), nn.GRU(4, 4, batch_first=True)])
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.blocks[1](self.blocks[0](x))[0].mean(1))


def find(graph: Graph) -> Findings:
    for node in graph.operations:
        if operation(node) in ("tanh", "sigmoid"):
            ended(node)
    return Findings(())


@pytest.fixture
def strict():
    KINDS.register("strict", SymmetryKind(find, Diagonal))
    yield
    KINDS.unregister("strict")


@pytest.fixture
def by_parameter(strict):
    found = find_symmetries(Model(), torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)))
    return {
        name: [end for end in found.ended if end.kind == "strict" and end.parameter == name]
        for name in ("blocks.0.linear.weight", "blocks.1.weight_ih_l0", "head.weight")
    }


def test_the_module_and_the_users_line_are_named(by_parameter) -> None:
    (end,) = by_parameter["blocks.0.linear.weight"]
    assert (end.place.operation, end.place.module, end.place.part_of) == ("tanh", "blocks.0", "")
    assert end.place.file == "test_why_there_is_none.py"
    assert "tanh(self.linear(x))" in end.place.code


def test_an_operation_that_was_taken_apart_is_named_as_it_was_written(by_parameter) -> None:
    ends = by_parameter["blocks.1.weight_ih_l0"]
    assert {end.place.part_of for end in ends} == {"gru"}
    assert {end.place.operation for end in ends} == {"sigmoid", "tanh"}
    assert {end.place.module for end in ends} == {"blocks.1"}


def test_what_reaches_the_loss_is_ended_by_it(by_parameter) -> None:
    (end,) = by_parameter["head.weight"]
    assert end.place.in_loss


def test_parameters_that_end_together_are_said_together(strict) -> None:
    found = find_symmetries(Model(), torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)))
    (line,) = (line for line in found.explain("strict").splitlines() if "tanh in blocks.0" in line)
    assert "blocks.0.linear.weight, blocks.0.linear.bias" in line
    assert found.explain("nothing") == ""
