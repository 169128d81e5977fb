"""Transformers of text, from transformers: each with its own loss (`labels` in the batch), in eval mode."""

from __future__ import annotations

from dataclasses import replace

import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode import own_loss
from zoo.registry import Net, network, tokens

V, D, HEADS, FF, T, B = 9, 4, 2, 5, 5, 4
"""Vocabulary, width, heads, inner width, length, batch."""


def _causal(model: nn.Module) -> Net:
    ids = tokens(V, B, T)
    return Net(model.eval(), own_loss, {"input_ids": ids, "labels": ids})


def _masked(model: nn.Module) -> Net:
    batch = {"input_ids": tokens(V, B, T), "labels": tokens(V, B, T)}
    return Net(model.eval(), own_loss, batch)


def _classes(model: nn.Module) -> Net:
    return Net(model.eval(), own_loss, {"input_ids": tokens(V, B, T), "labels": tokens(3, B)})


_LLAMA = {
    "vocab_size": V,
    "hidden_size": 8,
    "intermediate_size": FF,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}

_PLAIN = {**_LLAMA, "hidden_size": D, "num_attention_heads": HEADS, "num_key_value_heads": HEADS}


@network("GPT-2", "language", "transformers", "next token")
def gpt2() -> Net:
    config = hf.GPT2Config(
        vocab_size=V,
        n_embd=D,
        n_layer=2,
        n_head=HEADS,
        n_inner=FF,
        n_positions=T,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _causal(hf.GPT2LMHeadModel(config))


@network("Llama", "language", "transformers", "next token")
def llama() -> Net:
    return _causal(hf.LlamaForCausalLM(hf.LlamaConfig(**_LLAMA)))


@network("Mistral", "language", "transformers", "next token")
def mistral() -> Net:
    return _causal(hf.MistralForCausalLM(hf.MistralConfig(**_LLAMA, sliding_window=3)))


@network("Qwen2", "language", "transformers", "next token")
def qwen2() -> Net:
    return _causal(hf.Qwen2ForCausalLM(hf.Qwen2Config(**_LLAMA)))


@network("Qwen3", "language", "transformers", "next token")
def qwen3() -> Net:
    return _causal(hf.Qwen3ForCausalLM(hf.Qwen3Config(**_LLAMA, head_dim=2)))


@network("Gemma", "language", "transformers", "next token, tied head")
def gemma() -> Net:
    return _causal(hf.GemmaForCausalLM(hf.GemmaConfig(**_LLAMA, head_dim=2)))


@network("Mixtral", "language", "transformers", "next token")
def mixtral() -> Net:
    # In float32 the grouped product takes widths of multiples of four alone.
    config = hf.MixtralConfig(
        **{**_PLAIN, "intermediate_size": 8}, num_local_experts=3, num_experts_per_tok=2
    )
    return replace(_causal(hf.MixtralForCausalLM(config)), single=True)


@network("Phi", "language", "transformers", "next token")
def phi() -> Net:
    return _causal(hf.PhiForCausalLM(hf.PhiConfig(**{**_PLAIN, "hidden_size": 8}, partial_rotary_factor=0.5)))


@network("GPT-NeoX", "language", "transformers", "next token")
def gpt_neox() -> Net:
    config = {**_PLAIN, "hidden_size": 8}
    del config["num_key_value_heads"]
    return _causal(hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**config, rotary_pct=0.5)))


@network("OPT", "language", "transformers", "next token, tied head")
def opt() -> Net:
    config = hf.OPTConfig(
        vocab_size=V,
        hidden_size=D,
        ffn_dim=FF,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        word_embed_proj_dim=D,
        max_position_embeddings=T,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _causal(hf.OPTForCausalLM(config))


@network("BLOOM", "language", "transformers", "next token, tied head")
def bloom() -> Net:
    return _causal(hf.BloomForCausalLM(hf.BloomConfig(vocab_size=V, hidden_size=D, n_layer=1, n_head=HEADS)))


_BERT = {
    "vocab_size": V,
    "hidden_size": D,
    "num_hidden_layers": 1,
    "num_attention_heads": HEADS,
    "intermediate_size": FF,
    "max_position_embeddings": T,
    "pad_token_id": 0,
    "num_labels": 3,
}


@network("BERT", "language", "transformers", "masked tokens, tied head")
def bert() -> Net:
    return _masked(hf.BertForMaskedLM(hf.BertConfig(**_BERT)))


@network("BERT classifier", "language", "transformers", "cross entropy")
def bert_classifier() -> Net:
    return _classes(hf.BertForSequenceClassification(hf.BertConfig(**_BERT)))


@network("RoBERTa", "language", "transformers", "cross entropy")
def roberta() -> Net:
    return _classes(
        hf.RobertaForSequenceClassification(
            hf.RobertaConfig(**{**_BERT, "pad_token_id": 1, "max_position_embeddings": T + 2})
        )
    )


@network("DistilBERT", "language", "transformers", "cross entropy")
def distilbert() -> Net:
    config = hf.DistilBertConfig(
        vocab_size=V, dim=D, hidden_dim=FF, n_layers=1, n_heads=HEADS, max_position_embeddings=T, num_labels=3
    )
    return _classes(hf.DistilBertForSequenceClassification(config))


@network("ALBERT", "language", "transformers", "cross entropy")
def albert() -> Net:
    config = hf.AlbertConfig(**{**_BERT, "num_hidden_layers": 2}, embedding_size=3)
    return _classes(hf.AlbertForSequenceClassification(config))


@network("ELECTRA", "language", "transformers", "replaced tokens")
def electra() -> Net:
    model = hf.ElectraForPreTraining(hf.ElectraConfig(**_BERT, embedding_size=3))
    return Net(model.eval(), own_loss, {"input_ids": tokens(V, B, T), "labels": tokens(2, B, T)})


def _of_two(model: nn.Module) -> Net:
    return Net(model.eval(), own_loss, {"input_ids": tokens(V, B, T), "labels": tokens(V, B, 4)})


@network("T5", "language", "transformers", "next token of the decoder, tied head")
def t5() -> Net:
    config = hf.T5Config(
        vocab_size=V,
        d_model=D,
        d_kv=2,
        d_ff=FF,
        num_layers=1,
        num_heads=HEADS,
        relative_attention_num_buckets=4,
        decoder_start_token_id=0,
        pad_token_id=0,
    )
    return _of_two(hf.T5ForConditionalGeneration(config))


@network("BART", "language", "transformers", "next token of the decoder, tied head")
def bart() -> Net:
    config = hf.BartConfig(
        vocab_size=V,
        d_model=D,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=FF,
        decoder_ffn_dim=FF,
        max_position_embeddings=8,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )
    return _of_two(hf.BartForConditionalGeneration(config))


@network("Mamba", "language", "transformers", "next token, tied head")
def mamba() -> Net:
    config = hf.MambaConfig(
        vocab_size=V,
        hidden_size=D,
        state_size=2,
        num_hidden_layers=1,
        conv_kernel=2,
        time_step_rank=2,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _causal(hf.MambaForCausalLM(config))


@network("RWKV", "language", "transformers", "next token")
def rwkv() -> Net:
    config = hf.RwkvConfig(
        vocab_size=V,
        hidden_size=D,
        attention_hidden_size=D,
        num_hidden_layers=2,
        intermediate_size=FF,
        context_length=8,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    net = _causal(hf.RwkvForCausalLM(config))
    return Net(net.model.train(), net.objective, net.batch)  # in eval mode it writes its weights


class _Adapted(nn.Module):
    """W x + B A x with W frozen (Hu et al. 2022)."""

    def __init__(self, frozen: nn.Linear, rank: int) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.down = nn.Linear(frozen.in_features, rank, bias=False)
        self.up = nn.Linear(rank, frozen.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.frozen.weight, self.frozen.bias) + self.up(self.down(x))


@network("LoRA on Llama", "language", "transformers", "next token; q and v adapted, the rest frozen")
def lora() -> Net:
    net = llama()
    net.model.requires_grad_(False)
    for layer in net.model.model.layers:  # type: ignore[union-attr]
        attention = layer.self_attn
        attention.q_proj = _Adapted(attention.q_proj, 2)
        attention.v_proj = _Adapted(attention.v_proj, 2)
    return net
