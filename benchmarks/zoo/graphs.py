"""Graph networks of torch_geometric: one graph, the same for all batches of its nodes' features and labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv, global_add_pool

from zoo.registry import Net, network

NODES, FEATURES, CLASSES = 8, 3, 3
EDGES = torch.tensor([[0, 1, 1, 2, 3, 4, 5, 6, 7, 2, 6, 0], [1, 0, 2, 3, 1, 5, 4, 7, 6, 0, 3, 5]])


class Graph(nn.Module):
    """Two layers of message passing, ReLU between, classes of the nodes."""

    def __init__(self, one: nn.Module, two: nn.Module) -> None:
        super().__init__()
        self.one, self.two = one, two
        self.register_buffer("edges", EDGES)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(F.relu(self.one(x, self.edges)), self.edges)  # type: ignore[no-any-return]


def _nodes(model: nn.Module) -> Net:
    def loss(model: Any, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x), y)

    return Net(model, loss, (torch.randn(NODES, FEATURES), torch.randint(CLASSES, (NODES,))))


@network("GCN", "graphs", "torch_geometric", "cross entropy of nodes")
def gcn() -> Net:
    return _nodes(Graph(GCNConv(FEATURES, 4), GCNConv(4, CLASSES)))


@network("GraphSAGE", "graphs", "torch_geometric", "cross entropy of nodes")
def sage() -> Net:
    return _nodes(Graph(SAGEConv(FEATURES, 4), SAGEConv(4, CLASSES)))


@network("GAT", "graphs", "torch_geometric", "cross entropy of nodes")
def gat() -> Net:
    return _nodes(Graph(GATConv(FEATURES, 2, heads=2), GATConv(4, CLASSES)))


class GIN(nn.Module):
    """Two layers, each with a network of its own, sums over graphs of a batch (Xu et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.one = GINConv(_mlp(FEATURES, 4), train_eps=True)
        self.two = GINConv(_mlp(4, 3), train_eps=True)
        self.head = nn.Linear(3, 2)
        self.register_buffer("edges", EDGES)
        self.register_buffer("graph", torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.one(x, self.edges))
        h = self.two(h, self.edges)
        return self.head(global_add_pool(h, self.graph, 2))  # type: ignore[no-any-return]


def _mlp(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.Linear(before, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, after))


@network("GIN", "graphs", "torch_geometric", "cross entropy of graphs")
def gin() -> Net:
    def loss(model: Any, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x), y[:2])

    return Net(GIN(), loss, (torch.randn(NODES, FEATURES), torch.randint(2, (NODES,))))
