"""A model for own_loss.toml that returns a dataclass with its loss inside, as those of transformers do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Output:
    """What forward returns; the loss is there where there are labels."""

    logits: Tensor
    loss: Tensor | None = None


class Classifier(nn.Module):
    """The mean of the embedded tokens that the mask keeps, and two layers."""

    def __init__(self, vocabulary: int, width: int, labels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Output:
        mask = attention_mask[..., None].to(self.out.weight.dtype)
        mean = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1)
        logits = self.out(torch.tanh(self.hidden(mean)))
        return Output(logits, None if labels is None else F.cross_entropy(logits, labels))


def build(width: int, seed: int) -> nn.Module:
    """The network; `seed` is the case's."""
    torch.manual_seed(seed)
    return Classifier(17, width, 3)


def load(samples: int, seed: int) -> dict[str, Tensor]:
    """Token ids, a mask of those that are no padding, and labels: forward(**batch)."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 17, (samples, 9), generator=random)
    mask = torch.arange(9) < torch.randint(3, 10, (samples, 1), generator=random)
    return {"input_ids": ids * mask, "attention_mask": mask.long(), "labels": ids[:, 0] % 3}
