"""Vision, speech and both: transformers' own models and, where they install, timm's."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode import own_loss
from zoo.registry import Net, network, tokens

B, SIDE, CLASSES = 6, 8, 3
_VIT = {
    "hidden_size": 4,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 5,
    "image_size": SIDE,
    "patch_size": 4,
    "num_channels": 2,
    "num_labels": CLASSES,
}


def _images(model: nn.Module) -> Net:
    return Net(
        model.eval(), own_loss, {"pixel_values": torch.randn(B, 2, SIDE, SIDE), "labels": tokens(CLASSES, B)}
    )


@network("ViT", "vision", "transformers", "cross entropy")
def vit() -> Net:
    return _images(hf.ViTForImageClassification(hf.ViTConfig(**_VIT)))


@network("DeiT", "vision", "transformers", "cross entropy")
def deit() -> Net:
    return _images(hf.DeiTForImageClassification(hf.DeiTConfig(**_VIT)))


@network("Swin", "vision", "transformers", "cross entropy")
def swin() -> Net:
    config = hf.SwinConfig(
        image_size=SIDE,
        patch_size=2,
        num_channels=2,
        embed_dim=4,
        depths=[2],
        num_heads=[2],
        window_size=2,
        mlp_ratio=1.0,
        num_labels=CLASSES,
        drop_path_rate=0.0,
    )
    return _images(hf.SwinForImageClassification(config))


@network("ConvNeXt", "vision", "transformers", "cross entropy")
def convnext() -> Net:
    config = hf.ConvNextConfig(
        num_channels=2,
        patch_size=2,
        hidden_sizes=[3, 4, 4, 4],
        depths=[1, 1, 1, 1],
        num_labels=CLASSES,
        image_size=16,
    )
    net = _images(hf.ConvNextForImageClassification(config))
    batch = {**net.batch, "pixel_values": torch.randn(B, 2, 16, 16)}
    return Net(net.model, net.objective, batch)


@network("RegNet", "vision", "transformers", "cross entropy")
def regnet() -> Net:
    config = hf.RegNetConfig(
        num_channels=2,
        embedding_size=3,
        hidden_sizes=[4],
        depths=[1],
        groups_width=2,
        layer_type="y",
        num_labels=CLASSES,
    )
    net = _images(hf.RegNetForImageClassification(config))
    return Net(net.model.train(), net.objective, net.batch)


@network("CLIP", "vision", "transformers", "contrastive, trained temperature")
def clip() -> Net:
    text = {
        "vocab_size": 9,
        "hidden_size": 4,
        "intermediate_size": 5,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 6,
        "eos_token_id": 8,
        "bos_token_id": 7,
        "pad_token_id": 0,
    }
    vision = {k: v for k, v in _VIT.items() if k != "num_labels"}
    model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=3))

    def loss(model: Any, batch: Any) -> Tensor:
        found = model(**batch, return_loss=True).loss
        assert isinstance(found, Tensor)
        return found

    return Net(
        model.eval(), loss, {"input_ids": tokens(9, B, 5), "pixel_values": torch.randn(B, 2, SIDE, SIDE)}
    )


@network("Whisper", "speech", "transformers", "next token of the decoder, tied head")
def whisper() -> Net:
    config = hf.WhisperConfig(
        vocab_size=9,
        num_mel_bins=3,
        d_model=4,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=5,
        decoder_ffn_dim=5,
        max_source_positions=5,
        max_target_positions=6,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = hf.WhisperForConditionalGeneration(config)
    return Net(model.eval(), own_loss, {"input_features": torch.randn(B, 3, 10), "labels": tokens(9, B, 4)})


@network("wav2vec2", "speech", "transformers", "connectionist temporal classification")
def wav2vec2() -> Net:
    config = hf.Wav2Vec2Config(
        vocab_size=5,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=5,
        conv_dim=(3, 3),
        conv_kernel=(4, 2),
        conv_stride=(2, 2),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
        ctc_loss_reduction="mean",
        mask_time_prob=0.0,
        layerdrop=0.0,
    )
    model = hf.Wav2Vec2ForCTC(config)

    def loss(model: Any, batch: Any) -> Tensor:  # the model's own asks for the largest label
        x, labels = batch
        log = model(x).logits.log_softmax(-1).transpose(0, 1)
        lengths = [torch.full((len(x),), n) for n in (len(log), labels.shape[1])]
        return F.ctc_loss(log, labels, *lengths)

    return Net(model.eval(), loss, (torch.randn(B, 60), torch.randint(1, 5, (B, 3))))
