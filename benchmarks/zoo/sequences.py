"""Recurrent networks: torch's own layers, and cells written out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.registry import Net, classified, network, of_tokens, regressed, supervised, tokens

B, T, V = 6, 4, 7


class Last(nn.Module):
    """A recurrent layer, and a head on its last output."""

    def __init__(self, layer: nn.Module, width: int, out: int = 3) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])  # type: ignore[no-any-return]


@network("LSTM", "sequences", "torch", "cross entropy")
def lstm() -> Net:
    return classified(Last(nn.LSTM(3, 4, batch_first=True), 4), torch.randn(B, T, 3), 3)


@network("LSTM, two layers, both directions", "sequences", "torch", "cross entropy")
def lstm_deep() -> Net:
    return classified(
        Last(nn.LSTM(2, 2, num_layers=2, bidirectional=True, batch_first=True), 4), torch.randn(B, T, 2), 3
    )


@network("LSTM with projection", "sequences", "torch", "cross entropy")
def lstm_projected() -> Net:
    return classified(Last(nn.LSTM(3, 4, proj_size=2, batch_first=True), 2), torch.randn(B, T, 3), 3)


@network("GRU", "sequences", "torch", "cross entropy")
def gru() -> Net:
    return classified(Last(nn.GRU(3, 4, batch_first=True), 4), torch.randn(B, T, 3), 3)


@network("RNN of ReLU", "sequences", "torch", "cross entropy")
def rnn_relu() -> Net:
    return classified(Last(nn.RNN(3, 4, nonlinearity="relu", batch_first=True), 4), torch.randn(B, T, 3), 3)


class LanguageModel(nn.Module):
    """Embedding, recurrent layer, head; the head may be the embedding (Press and Wolf 2017)."""

    def __init__(self, layer: nn.Module, width: int, tied: bool) -> None:
        super().__init__()
        self.table, self.layer, self.head = nn.Embedding(V, width), layer, nn.Linear(width, V)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layer(self.table(ids))[0])  # type: ignore[no-any-return]


@network("RNN language model", "sequences", "torch", "next token")
def rnn_lm() -> Net:
    model = LanguageModel(nn.RNN(3, 3, batch_first=True), 3, tied=False)
    return supervised(model, of_tokens, tokens(V, B, T), tokens(V, B, T))


@network("LSTM language model, tied", "sequences", "torch", "next token")
def lstm_lm() -> Net:
    model = LanguageModel(nn.LSTM(3, 3, batch_first=True), 3, tied=True)
    return supervised(model, of_tokens, tokens(V, B, T), tokens(V, B, T))


class Attended(nn.Module):
    """Sequence to sequence with additive attention (Bahdanau et al. 2015)."""

    def __init__(self, d: int = 3) -> None:
        super().__init__()
        self.table = nn.Embedding(V, d)
        self.encoder, self.decoder = nn.GRU(d, d, batch_first=True), nn.GRUCell(2 * d, d)
        self.query, self.key, self.score = nn.Linear(d, d), nn.Linear(d, d, bias=False), nn.Linear(d, 1)
        self.head = nn.Linear(d, V)

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        source, target = pair
        memory, last = self.encoder(self.table(source))
        state, keys, logits = last[0], self.key(memory), []
        for t in range(target.shape[1]):
            scores = self.score(torch.tanh(self.query(state)[:, None] + keys)).softmax(1)
            state = self.decoder(torch.cat([self.table(target[:, t]), (scores * memory).sum(1)], 1), state)
            logits.append(self.head(state))
        return torch.stack(logits, 1)


@network("Sequence to sequence, additive attention", "sequences", "written out", "next token")
def attended() -> Net:
    return supervised(Attended(), of_tokens, (tokens(V, B, T), tokens(V, B, 3)), tokens(V, B, 3))


class Temporal(nn.Module):
    """Causal dilated convolutions with weight norm and residuals (Bai et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.one, self.two = norm(nn.Conv1d(2, 3, 2)), norm(nn.Conv1d(3, 3, 2, dilation=2))
        self.side, self.head = nn.Conv1d(2, 3, 1), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.one(F.pad(x, (1, 0))))
        h = F.relu(self.two(F.pad(h, (2, 0))))
        return self.head(F.relu(h + self.side(x))[..., -1])  # type: ignore[no-any-return]


@network("Temporal convolutions, weight norm", "sequences", "written out", "squared error")
def temporal() -> Net:
    return regressed(Temporal(), torch.randn(B, 2, 6), 2)


class StateSpace(nn.Module):
    """Diagonal state space, unrolled (Gupta et al. 2022)."""

    def __init__(self, d: int = 3, n: int = 2) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.randn(d, n))
        self.enter, self.leave = nn.Parameter(torch.randn(d, n)), nn.Parameter(torch.randn(d, n))
        self.skip, self.head = nn.Parameter(torch.randn(d)), nn.Linear(d, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], *self.decay.shape, dtype=x.dtype)
        keep = torch.sigmoid(self.decay)
        for t in range(x.shape[1]):
            state = keep * state + self.enter * x[:, t, :, None]
        return self.head(F.gelu((state * self.leave).sum(-1) + self.skip * x[:, -1]))  # type: ignore[no-any-return]


@network("Diagonal state space", "sequences", "written out", "cross entropy")
def state_space() -> Net:
    return classified(StateSpace(), torch.randn(B, T, 3), 2)


class MultiHead(nn.Module):
    """torch's own encoder layer on sequences (Vaswani et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))  # type: ignore[no-any-return]


@network("nn.TransformerEncoder", "sequences", "torch", "cross entropy")
def encoder() -> Net:
    return classified(MultiHead(), torch.randn(B, T, 4), 3)
