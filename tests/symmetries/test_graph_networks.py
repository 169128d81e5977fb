"""Graph networks that drop edges by a mask: of edges that are a buffer's, and of edges that come with the batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode.loss.objective import Supervised
from nm_ode.symmetries import SymmetryError, find_symmetries
from nm_ode.symmetries.graph import trace
from nm_ode.symmetries.proofs import discover
from tests.symmetries.conftest import gaussian, integers

NODES = 8
EDGES = torch.tensor(
    [[0, 1, 1, 2, 3, 4, 5, 6, 7, 2, 6, 0], [1, 0, 2, 3, 3, 5, 4, 7, 6, 0, 6, 5]]
)  # two loops
COUNTS = {"translation": 5, "scale": 0, "rescale": 4, "matrix": 0}


def with_loops(edges: Tensor, nodes: int) -> Tensor:
    """Without the loops that there are, and one for each node: as GCN and GAT of torch_geometric begin."""
    edges = edges[:, edges[0] != edges[1]]
    return torch.cat([edges, torch.arange(nodes).repeat(2, 1)], 1)


def added(values: Tensor, at: Tensor, nodes: int) -> Tensor:
    return values.new_zeros(nodes, *values.shape[1:]).index_add(0, at, values)


class Gcn(nn.Module):
    """Kipf & Welling 2017, eq. 8, a layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lin, self.bias = nn.Linear(inputs, outputs, bias=False), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, to = with_loops(edges, len(x))
        scale = added(x.new_ones(len(to)), to, len(x)).pow(-0.5)
        weights = (scale[source] * scale[to]).unsqueeze(1)
        return added(weights * self.lin(x)[source], to, len(x)) + self.bias


class Gat(nn.Module):
    """Veličković et al. 2018, eq. 3 and 4, a layer of one head."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lin, self.bias = nn.Linear(inputs, outputs, bias=False), nn.Parameter(torch.zeros(outputs))
        self.of_source, self.of_target = (nn.Parameter(torch.randn(outputs)) for _ in range(2))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, to = with_loops(edges, len(x))
        h = self.lin(x)
        scores = F.leaky_relu((h * self.of_source).sum(-1)[source] + (h * self.of_target).sum(-1)[to], 0.2)
        largest = scores.new_zeros(len(x)).scatter_reduce(0, to, scores.detach(), "amax", include_self=False)
        shares = (scores - largest[to]).exp()
        shares = shares / (added(shares, to, len(x)) + 1e-16)[to]
        return added(shares.unsqueeze(1) * h[source], to, len(x)) + self.bias


class Network(nn.Module):
    def __init__(self, layer: type[nn.Module]) -> None:
        super().__init__()
        self.one, self.two = layer(3, 4), layer(4, 3)
        self.register_buffer("edges", EDGES)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(F.relu(self.one(x, self.edges)), self.edges)


class OfTheBatch(Network):
    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.two(F.relu(self.one(x, edges)), edges)


class Counting(Network):
    """The edges are other ones after each batch."""

    def forward(self, x: Tensor) -> Tensor:
        self.edges += 0
        return super().forward(x)


# All-ones of the last bias; with GCN of each column of the last weight, too, since what a node's neighbours add to all
# classes alike is added up for all classes alike. GAT's attention reads the classes apart. Four units of a ReLU.
@pytest.mark.parametrize(("layer", "translations"), [(Gcn, 5), (Gat, 1)])
def test_edges_that_no_batch_changes_are_dropped_by_a_mask(layer: type[nn.Module], translations: int) -> None:
    torch.manual_seed(0)
    found = find_symmetries(
        Network(layer), gaussian(NODES, 3), F.cross_entropy, target=integers(3, NODES), draws=1
    )
    assert found.defects == found.left_out == ()
    assert {kind: found.n_charges(kind) for kind in COUNTS} == COUNTS | {"translation": translations}


def test_edges_of_the_batch_are_data() -> None:
    with pytest.raises(SymmetryError, match=r"test_graph_networks\.py:\d+.*for all batches; .*buffers"):
        find_symmetries(
            OfTheBatch(Gcn), (gaussian(NODES, 3), EDGES), F.cross_entropy, target=integers(3, NODES)
        )


def test_edges_that_the_model_changes_are_no_constant() -> None:
    with pytest.raises(SymmetryError, match="for all batches"):
        find_symmetries(Counting(Gcn), gaussian(NODES, 3), F.cross_entropy, target=integers(3, NODES))


class Reading(nn.Module):
    """What it reads of two buffers is given; the batch norm counts batches."""

    def __init__(self, forward: Callable[[Reading, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(4, 5), nn.Linear(5, 3), nn.BatchNorm1d(5)
        self.register_buffer("w", torch.tensor([0.1, 0.9, 0.7, 0.2]))
        self.register_buffer("hidden", torch.tensor([True, False, True, True]))
        self.own = forward

    def head(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.norm(self.a(F.pad(x, (0, 4 - x.shape[1]))))))

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self, x)


def _written(m: Reading, x: Tensor) -> Tensor:
    z = x.clone()
    z[:, m.hidden] = 0.0
    return m.head(z)


def _later(m: Reading, x: Tensor) -> Tensor:
    y = m.head(x[:, m.hidden])
    m.hidden.logical_not_()
    return y


def _through_a_view(m: Reading, x: Tensor) -> Tensor:
    part = m.w[:2]
    many = int((part > 0.5).sum())
    part += x.sum()
    return many * m.head(x)


READ: dict[str, Callable[[Reading, Tensor], Tensor]] = {
    "a mask of real numbers": lambda m, x: m.head(x[:, m.w > 0.5]),
    "a mask that is written at": _written,
    "how often": lambda m, x: m.head(x.repeat_interleave(m.hidden.long() + 1, 1)[:, :4]),
    "a question and a number": lambda m, x: m.head(x[:, : int(m.hidden.sum())]) if m.w.sum() > 1 else x,
}
NOT_READ: dict[str, Callable[[Reading, Tensor], Tensor]] = {
    "changed afterwards": _later,
    "changed through a view": _through_a_view,
    "drawn at random": lambda m, x: m.head(x) if torch.rand_like(m.w).sum() > 2 else x,
    "of the batch too": lambda m, x: m.head(x) if (m.w.sum() + x.sum()) > 1 else x,
}


def _traced(forward: Callable[[Reading, Tensor], Tensor]):
    batch = gaussian(NODES, 4), integers(3, NODES)
    return trace(Reading(forward).double(), Supervised(F.cross_entropy), batch)


@pytest.mark.parametrize("name", READ)
def test_what_a_buffer_says(name: str) -> None:
    kinds = [one.kind for one in discover(_traced(READ[name])).symmetries for _ in range(one.count)]
    # All-ones of the head's columns and bias and the bias before the norm; rows before the norm; a unit's γ and β.
    assert {kind: kinds.count(kind) for kind in kinds} == {"translation": 6 + 5, "scale": 5, "rescale": 5}


@pytest.mark.parametrize("name", NOT_READ)
def test_what_a_buffer_does_not_say_of_every_batch(name: str) -> None:
    with pytest.raises(SymmetryError, match="for all batches"):
        _traced(NOT_READ[name])
