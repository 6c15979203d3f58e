"""Turns the SmolLM2 GGUF into a Hugging Face model folder, and makes a tiny random one beside it.

    make_hf_models.py SOURCE.gguf OUT_FOLDER

Writes OUT_FOLDER/smollm2 (bfloat16, for engines that read safetensors) and OUT_FOLDER/tiny. Runs in
the vLLM venv: needs `gguf`, `torch`, `safetensors` and `transformers`, and no network.

SmolLM2 has 9 query heads in 3 groups, which no even tensor-parallel size divides. A fourth group
of zero heads makes it 12 in 4: their columns in the output projection are zero too, so that every
logit stays what it was, and sizes 2 and 4 work.
"""

import json
import pathlib
import sys

import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file
from transformers import AutoTokenizer

PADDED_HEADS = 12
PADDED_KV_HEADS = 4
# vLLM's CPU attention wants heads of 32, 64, ... numbers.
TINY = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 2}

BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hf_name(name):
    """The Hugging Face name of a GGUF tensor."""
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    if name == "output.weight":
        return "lm_head.weight"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{BLOCK_NAMES[part]}.weight"


def unpermute(weights, heads):
    """Undoes the row order that GGUF gives to query and key weights for its rotary embedding."""
    rows, columns = weights.shape
    pairs = weights.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def pad_heads(name, weights, head, heads, kv_heads):
    """Appends zero heads to the attention weights; leaves every other tensor alone."""
    if name.endswith("q_proj.weight"):
        rows = (PADDED_HEADS - heads) * head
        return torch.cat([weights, weights.new_zeros(rows, weights.shape[1])])
    if name.endswith(("k_proj.weight", "v_proj.weight")):
        rows = (PADDED_KV_HEADS - kv_heads) * head
        return torch.cat([weights, weights.new_zeros(rows, weights.shape[1])])
    if name.endswith("o_proj.weight"):
        columns = (PADDED_HEADS - heads) * head
        return torch.cat([weights, weights.new_zeros(weights.shape[0], columns)], dim=1)
    return weights


def read_model(reader):
    """The configuration and the tensors of a GGUF Llama model, heads padded."""

    def value(key):
        return reader.fields[key].contents()

    hidden = value("llama.embedding_length")
    heads = value("llama.attention.head_count")
    kv_heads = value("llama.attention.head_count_kv")
    head = hidden // heads
    if heads // kv_heads != PADDED_HEADS // PADDED_KV_HEADS:
        sys.exit(f"padding keeps groups of {PADDED_HEADS // PADDED_KV_HEADS}; this is {heads}/{kv_heads}")

    tensors = {}
    for tensor in reader.tensors:
        weights = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        name = hf_name(tensor.name)
        if name.endswith("q_proj.weight"):
            weights = unpermute(weights, heads)
        elif name.endswith("k_proj.weight"):
            weights = unpermute(weights, kv_heads)
        weights = pad_heads(name, weights, head, heads, kv_heads)
        tensors[name] = weights.to(torch.bfloat16).contiguous()

    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": value("llama.feed_forward_length"),
        "num_hidden_layers": value("llama.block_count"),
        "num_attention_heads": PADDED_HEADS,
        "num_key_value_heads": PADDED_KV_HEADS,
        "head_dim": head,
        "max_position_embeddings": value("llama.context_length"),
        "rms_norm_eps": value("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": value("llama.rope.freq_base"),
        "vocab_size": tensors["model.embed_tokens.weight"].shape[0],
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": value("tokenizer.ggml.bos_token_id"),
        "eos_token_id": value("tokenizer.ggml.eos_token_id"),
        "torch_dtype": "bfloat16",
    }
    return config, tensors


def random_model(config):
    """A configuration and random tensors of the same kind of model, much smaller."""
    config = config | TINY
    hidden, heads, kv_heads = (
        config[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads")
    )
    head = hidden // heads
    feed_forward = 3 * hidden
    config |= {"head_dim": head, "intermediate_size": feed_forward, "tie_word_embeddings": True}

    generator = torch.Generator().manual_seed(0)

    def weights(*shape):
        return (torch.randn(*shape, generator=generator) * 0.05).to(torch.bfloat16)

    def ones():
        return torch.ones(hidden, dtype=torch.bfloat16)

    tensors = {
        "model.embed_tokens.weight": weights(config["vocab_size"], hidden),
        "model.norm.weight": ones(),
    }
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}"
        tensors |= {
            f"{block}.input_layernorm.weight": ones(),
            f"{block}.self_attn.q_proj.weight": weights(heads * head, hidden),
            f"{block}.self_attn.k_proj.weight": weights(kv_heads * head, hidden),
            f"{block}.self_attn.v_proj.weight": weights(kv_heads * head, hidden),
            f"{block}.self_attn.o_proj.weight": weights(hidden, heads * head),
            f"{block}.post_attention_layernorm.weight": ones(),
            f"{block}.mlp.gate_proj.weight": weights(feed_forward, hidden),
            f"{block}.mlp.up_proj.weight": weights(feed_forward, hidden),
            f"{block}.mlp.down_proj.weight": weights(hidden, feed_forward),
        }
    return config, tensors


def write_model(folder, config, tensors, tokenizer):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokens = {key: config[key] for key in ("bos_token_id", "eos_token_id")}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(tokens, indent=1) + "\n")
    tokenizer.save_pretrained(folder)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    config, tensors = read_model(GGUFReader(source))
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    write_model(out / "smollm2", config, tensors, tokenizer)
    write_model(out / "tiny", *random_model(config), tokenizer)


if __name__ == "__main__":
    main()
