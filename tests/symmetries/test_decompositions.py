"""Operations in no table are taken apart before the rules look at them; the graph is still the model's loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode.loss.objective import Supervised
from nm_ode.symmetries.extended_loss import ExtendedLoss, leaves
from nm_ode.symmetries.operations import operation
from nm_ode.symmetries.rules import scaling
from nm_ode.symmetries.traced_loss import TracedLoss

Y = torch.arange(6) % 3


class Of(nn.Module):
    """Modules under their names and a function of these and the input."""

    def __init__(self, function, **modules: nn.Module | Tensor) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, nn.Parameter(module) if isinstance(module, Tensor) else module)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def x_of(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


IDS = torch.randint(0, 9, (6, 4), generator=torch.Generator().manual_seed(1))


def last_step(model: Of, x: Tensor) -> Tensor:
    return model.out(model.inner(x)[0][:, -1])


def cells(model: Of, x: Tensor) -> Tensor:
    h = torch.zeros(len(x), 5, dtype=x.dtype)
    for t in range(x.shape[1]):
        h = model.inner(x[:, t], h)
    return model.out(h)


def bag(**options):
    return lambda: Of(
        lambda m, i: m.out(m.inner(i)), inner=nn.EmbeddingBag(9, 4, **options), out=nn.Linear(4, 3)
    )


def recurrent(module, features: int = 5, **options):
    return lambda: Of(last_step, inner=module(4, 5, batch_first=True, **options), out=nn.Linear(features, 3))


def of_linear(function, features: int = 3):
    return lambda: Of(lambda m, x: function(m.inner(x)), inner=nn.Linear(4, features))


def written(h: Tensor) -> Tensor:
    """In place of zeros, in a slice and at one place."""
    made = torch.zeros(len(h), 4, dtype=h.dtype)
    made[:, 1:3] = h
    made[:, 0] = h.sum(1)
    return made


MODELS = {
    "glu": (of_linear(F.glu, 6), x_of(6, 4), {"glu"}),
    "einsum of three": (
        lambda: Of(lambda m, x: torch.einsum("bi,ij,jk->bk", x, m.u, m.v), u=x_of(4, 5), v=x_of(5, 3)),
        x_of(6, 4),
        {"bilinear"},
    ),
    "tensordot": (
        lambda: Of(lambda m, x: torch.tensordot(x, m.u, 1), u=x_of(4, 3)),
        x_of(6, 4),
        {"tensordot"},
    ),
    "bilinear": (
        lambda: Of(lambda m, x: m.inner(x, x), inner=nn.Bilinear(4, 4, 3)),
        x_of(6, 4),
        {"bilinear"},
    ),
    "a part that is written": (of_linear(written, 2), x_of(6, 4), {"slice_scatter", "select_scatter"}),
    "threshold": (of_linear(lambda h: F.threshold(h, 0.0, 0.0)), x_of(6, 4), {"threshold"}),
    "hardswish": (of_linear(F.hardswish), x_of(6, 4), set()),
    "pixel differences": (of_linear(lambda h: h.diff(dim=1), 4), x_of(6, 4), {"diff"}),
    "RNN": (recurrent(nn.RNN), x_of(6, 3, 4), {"rnn_tanh"}),
    "RNN of ReLUs": (recurrent(nn.RNN, nonlinearity="relu"), x_of(6, 3, 4), {"rnn_relu"}),
    "LSTM": (recurrent(nn.LSTM), x_of(6, 3, 4), {"lstm"}),
    "LSTM of two layers, both ways": (
        recurrent(nn.LSTM, 10, num_layers=2, bidirectional=True),
        x_of(6, 3, 4),
        {"lstm"},
    ),
    "LSTM with a projection": (recurrent(nn.LSTM, 2, proj_size=2), x_of(6, 3, 4), {"lstm"}),
    "GRU": (recurrent(nn.GRU), x_of(6, 3, 4), {"gru"}),
    "GRU cell": (lambda: Of(cells, inner=nn.GRUCell(4, 5), out=nn.Linear(5, 3)), x_of(6, 3, 4), {"gru_cell"}),
    "bag of sums": (bag(mode="sum"), IDS, {"embedding_bag", "_embedding_bag"}),
    "bag of means with padding": (bag(mode="mean", padding_idx=0), IDS, {"embedding_bag", "_embedding_bag"}),
    "bag of maxima": (bag(mode="max"), IDS, {"embedding_bag", "_embedding_bag"}),
}


def traced(build, x: Tensor) -> TracedLoss:
    torch.manual_seed(0)
    return TracedLoss(build().double(), Supervised(F.cross_entropy), (x, Y))


@pytest.mark.parametrize("name", MODELS)
def test_a_graph_that_was_taken_apart_has_the_models_loss_and_gradient(name: str) -> None:
    build, x, gone = MODELS[name]
    loss = traced(build, x)
    assert not gone & {operation(node) for node in loss.graph.operations}
    own = F.cross_entropy(loss.model(x), Y)
    expected = torch.autograd.grad(own, list(loss.model.parameters()))
    theta = torch.cat([p.detach().reshape(-1) for p in loss.model.parameters()])
    parameters = leaves(loss.layout, theta)
    of_graph = ExtendedLoss(loss, ())(parameters, [], (x, Y), 0)
    torch.testing.assert_close(of_graph, own, rtol=1e-12, atol=0)
    for mine, given in zip(torch.autograd.grad(of_graph, list(parameters.values())), expected, strict=True):
        torch.testing.assert_close(mine, given, rtol=1e-6, atol=1e-12)


def test_what_a_rule_is_registered_for_stays_whole(monkeypatch) -> None:
    build, x, _ = MODELS["threshold"]
    monkeypatch.setitem(scaling.RULES, "threshold", lambda traversal, node: None)
    assert "threshold" in {operation(node) for node in traced(build, x).graph.operations}


@pytest.mark.parametrize("module", [nn.LSTM, nn.GRU])
def test_dropout_between_recurrent_layers_draws_what_the_model_draws(module) -> None:
    loss = traced(recurrent(module, 10, num_layers=2, dropout=0.5, bidirectional=True), x_of(6, 3, 4))
    theta = torch.cat([p.detach().reshape(-1) for p in loss.model.parameters()])
    of_graph = ExtendedLoss(loss, ())(leaves(loss.layout, theta), [], (loss.batch[0], Y), 3)
    torch.manual_seed(3)
    torch.testing.assert_close(of_graph, F.cross_entropy(loss.model(loss.batch[0]), Y), rtol=1e-12, atol=0)
