"""A two-layer GPT for gpt_tokens.toml, written as one writes such models; head and embedding are one matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY, LENGTH, PADDING = 23, 12, 0


class Block(nn.Module):
    """Causal attention and a GELU network, each behind a LayerNorm and beside a residual path."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(-2)
        x = x + self.proj(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Token ids and a mask of those that are no padding to logits of the next token."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(LENGTH, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        length = input_ids.shape[1]
        x = self.tokens(input_ids) + self.positions(torch.arange(length, device=input_ids.device))
        causal = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).tril()
        mask = causal & attention_mask[:, None, None, :].bool()
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


def build(width: int, heads: int, layers: int, seed: int) -> nn.Module:
    """The network; `seed` is the case's."""
    torch.manual_seed(seed)
    model = GPT(width, heads, layers)
    nn.init.normal_(model.tokens.weight, std=0.3)
    return model


def load(samples: int, seed: int) -> dict[str, Tensor]:
    """Sequences of different lengths, each token a sum of the two before it, padded at the end."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (samples, LENGTH), generator=random)
    for t in range(2, LENGTH):
        ids[:, t] = 1 + (ids[:, t - 1] + ids[:, t - 2]) % (VOCABULARY - 1)
    lengths = torch.randint(LENGTH // 2, LENGTH + 1, (samples, 1), generator=random)
    mask = torch.arange(LENGTH) < lengths
    return {"input_ids": torch.where(mask, ids, PADDING), "attention_mask": mask.long()}


def next_token(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean over all tokens that are no padding; each is predicted from those before it."""
    logits = model(**batch)[:, :-1]
    targets = batch["input_ids"][:, 1:].masked_fill(batch["attention_mask"][:, 1:] == 0, -100)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
