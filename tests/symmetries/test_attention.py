"""The symmetries of transformers and of attention in its spellings, counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nm_ode.models import vit


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("branch", ["mlp", "glu"])
def test_vit(norm, branch, table_of, normal):
    # dim 32, 4 heads of 8, hidden 64, 16 patches of 4 pixels and a class token.
    table = table_of(vit(depth=1, norm=norm, mlp=branch), normal(4, 1, 8, 8))
    block = "blocks.0."
    attention = block + "attention."
    readers = ("gate", "up") if branch == "glu" else ("up",)
    expected = {
        # Query and key mix within a head, and so do value and output: 4 heads × 8·9/2.
        f"matrix {attention}query → {attention}key": 4 * 36,
        f"matrix {attention}value → {attention}out": 4 * 36,
        f"rescale {attention}query → {attention}key": 32,
        f"rescale {attention}value → {attention}out": 32,
        # A norm's affine pair against all Linears that read it.
        f"rescale {block}norm1 → {attention}query, {attention}key, {attention}value": 32,
        f"rescale {block}norm2 → " + ", ".join(f"{block}mlp.{reader}" for reader in readers): 32,
        "rescale norm → head": 32,
        # The residual stream enters norms only: all that is added to it scales together.
        "scale token, position, … (5)": 1,
        # Softmax: logits; and of a key's bias, which shifts all scores of a query alike.
        "translation head": 32 + 1,
        f"translation {attention}key": 32,
        # Positions take back what is added to the class token or the patches, channel by channel; all channels alike
        # (with a mean subtracted) each of the two may do alone.
        "translation token ↔ position": 31 if norm == "layer" else 32,
        "translation position ↔ embed": 31 if norm == "layer" else 32,
    }
    if branch == "glu":  # linear in the value branch; the gate goes through GELU
        expected[f"rescale {block}mlp.up → {block}mlp.down"] = 64
    if norm == "layer":  # whatever is added to the stream may shift in all 32 coordinates alike
        expected |= {
            "translation embed": 4 + 1,
            "translation token": 1,
            "translation position": 17,
            f"translation {attention}out": 32 + 1,
            f"translation {block}mlp.down": 64 + 1,
        }
    assert table == expected


def test_a_relu_mlp_in_a_vit_has_its_rescale_too(table_of, normal):
    table = table_of(vit(depth=1, activation="relu"), normal(4, 1, 8, 8), "rescale")
    assert table["rescale blocks.0.mlp.up → blocks.0.mlp.down"] == 64


class _Attention(nn.Module):
    """A user's own: one projection for query, key and value, scores written out."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.qkv, self.out, self.head = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 3)
        self.fused = fused

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (z.view(b, t, 2, 4).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
        return self.head(torch.tanh(self.out(mixed.transpose(1, 2).reshape(b, t, c))).mean(1))


class _Torchs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.attention(x, x, x)[0]).mean(1))


@pytest.mark.parametrize(
    ("model", "w", "b", "out"),
    [
        (_Attention(fused=True), "qkv.weight", "qkv.bias", "out"),
        (_Attention(fused=False), "qkv.weight", "qkv.bias", "out"),
        (_Torchs(), "attention.in_proj_weight", "attention.in_proj_bias", "attention.out_proj"),
    ],
    ids=["fused", "written_out", "MultiheadAttention"],
)
def test_each_head_of_any_attention(model, w, b, out, table_of, normal):
    # 2 heads of 4: 2 · 4·5/2 symmetric mixings between query and key, and as many between value and output.
    table = table_of(model, normal(4, 7, 8), "matrix", "translation")
    layer = w.rpartition(".")[0]
    assert table == {
        f"matrix {w}[0:8], {b}[0:8] → {w}[8:16], {b}[8:16]": 20,
        f"matrix {layer} → {out}": 20,
        f"translation {layer}": 8,
        "translation head": 8 + 1,
    }
