"""Recommendation and decisions: written out, on ids and on features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.registry import Net, classified, network, regressed, supervised, tokens

B = 8


class Factorisation(nn.Module):
    """⟨user, item⟩ and a bias for each (Koren et al. 2009)."""

    def __init__(self, users: int = 6, items: int = 7, rank: int = 3) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, rank), nn.Embedding(items, rank)
        self.user_bias, self.item_bias = nn.Embedding(users, 1), nn.Embedding(items, 1)

    def forward(self, ids: Tensor) -> Tensor:
        user, item = ids.unbind(1)
        biases = (self.user_bias(user) + self.item_bias(item)).squeeze(1)
        return (self.user(user) * self.item(item)).sum(1) + biases


def _pairs() -> Tensor:
    return torch.stack([tokens(6, B), tokens(7, B)], 1)


@network("Matrix factorisation", "recommendation", "written out", "squared error")
def factorisation() -> Net:
    net = regressed(Factorisation(), _pairs())
    return Net(net.model, net.objective, net.batch, columns=True)


class Towers(nn.Module):
    """A network for users and one for items, all pairs of a batch compared (Yi et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.user = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
        self.item = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))

    def forward(self, ids: Tensor) -> Tensor:
        user, item = ids.unbind(1)
        return self.user(user) @ self.item(item).T  # type: ignore[no-any-return]


@network("Two towers", "recommendation", "written out", "softmax over the batch")
def towers() -> Net:
    def loss(model: Any, ids: Any) -> Tensor:
        return F.cross_entropy(model(ids), torch.arange(len(ids)))

    return Net(Towers(), loss, _pairs(), columns=True)


class DLRM(nn.Module):
    """Embedding bags, a bottom network, all inner products, a top network (Naumov et al. 2019)."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(n, width, mode="sum") for n in (5, 5))
        self.bottom = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, width), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(width + 3, 4), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        x = self.bottom(dense)
        parts = torch.stack([x, *(table(ids[:, i]) for i, table in enumerate(self.tables))], 1)
        products = parts @ parts.transpose(1, 2)
        i, j = torch.tril_indices(3, 3, offset=-1)
        return self.top(torch.cat([x, products[:, i, j]], 1)).squeeze(1)  # type: ignore[no-any-return]


@network("DLRM", "recommendation", "written out", "binary cross entropy")
def dlrm() -> Net:
    def loss(model: Any, batch: Any) -> Tensor:
        dense, ids, clicked = batch
        return F.binary_cross_entropy_with_logits(model(dense, ids), clicked)

    return Net(DLRM(), loss, (torch.randn(B, 4), torch.randint(5, (B, 2, 2)), torch.randint(2, (B,)).float()))


class Wide(nn.Module):
    """A linear part on ids and a deep one, added (Cheng et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.table = nn.Embedding(6, 1), nn.Embedding(6, 3)
        self.deep = nn.Sequential(nn.Linear(3 + 4, 4), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, ids = batch
        return (self.wide(ids) + self.deep(torch.cat([x, self.table(ids)], 1))).squeeze(1)


@network("Wide and deep", "recommendation", "written out", "binary cross entropy")
def wide() -> Net:
    return supervised(
        Wide(),
        F.binary_cross_entropy_with_logits,
        (torch.randn(B, 4), tokens(6, B)),
        torch.randint(2, (B,)).float(),
    )


class DQN(nn.Module):
    """Dueling heads: value and advantages less their mean (Wang et al. 2016)."""

    def __init__(self, dueling: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU())
        self.advantage = nn.Linear(5, 3)
        self.value = nn.Linear(5, 1) if dueling else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        advantage = self.advantage(h)
        if self.value is None:
            return advantage  # type: ignore[no-any-return]
        return self.value(h) + advantage - advantage.mean(1, keepdim=True)  # type: ignore[no-any-return]


def _temporal(model: Any, batch: Any) -> Tensor:
    state, action, target = batch
    chosen = model(state).gather(1, action[:, None]).squeeze(1)
    return F.smooth_l1_loss(chosen, target)


@network("DQN", "decisions", "written out", "Huber, of the chosen action")
def dqn() -> Net:
    return Net(DQN(False), _temporal, (torch.randn(B, 4), tokens(3, B), torch.randn(B)))


@network("DQN, dueling", "decisions", "written out", "Huber, of the chosen action")
def dueling() -> Net:
    return Net(DQN(True), _temporal, (torch.randn(B, 4), tokens(3, B), torch.randn(B)))


class ActorCritic(nn.Module):
    """A shared body, a policy and a value (Mnih et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.ReLU())
        self.policy, self.value = nn.Linear(5, 3), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.policy(h), self.value(h).squeeze(1)


@network("Actor-critic", "decisions", "written out", "policy gradient, value, entropy")
def actor_critic() -> Net:
    def loss(model: Any, batch: Any) -> Tensor:
        state, action, returns = batch
        logits, value = model(state)
        log = logits.log_softmax(1)
        advantage = (returns - value).detach()
        policy = -(advantage * log.gather(1, action[:, None]).squeeze(1)).mean()
        return policy + 0.5 * F.mse_loss(value, returns) + 0.01 * (log.exp() * log).sum(1).mean()

    return Net(ActorCritic(), loss, (torch.randn(B, 4), tokens(3, B), torch.randn(B)))


class Sets(nn.Module):
    """ρ(Σ φ(x)) (Zaheer et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4))
        self.rho = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.rho(self.phi(x).sum(1))  # type: ignore[no-any-return]


@network("DeepSets", "sets", "written out", "cross entropy")
def deep_sets() -> Net:
    return classified(Sets(), torch.randn(B, 4, 3), 2)
