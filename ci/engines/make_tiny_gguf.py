"""Writes a small GGUF model with random weights and the tokenizer of a real one.

    make_tiny_gguf.py SOURCE.gguf TINY.gguf

A real engine serves it as it serves any Llama model; only the text is nonsense. That makes load,
streaming, usage and metrics tests fast. Needs the packages `gguf` and `numpy`, and no torch.
The weights come from a fixed seed: the same source and versions give the same file.
"""

import sys

import numpy
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import quantize

LAYERS = 4
HIDDEN = 64
HEADS = 4
KV_HEADS = 4
FEED_FORWARD = 192

OVERRIDDEN = {
    "general.name": "tiny-random",
    "llama.block_count": LAYERS,
    "llama.embedding_length": HIDDEN,
    "llama.feed_forward_length": FEED_FORWARD,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.rope.dimension_count": HIDDEN // HEADS,
    "general.file_type": 7,  # mostly Q8_0
}
# Written by GGUFWriter itself, or untrue of the new weights.
LEFT_OUT = {"general.architecture", "general.quantization_version"}


def copy_metadata(reader, writer):
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in LEFT_OUT or name in OVERRIDDEN:
            continue
        item_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], item_type)
    for name, value in OVERRIDDEN.items():
        value_type = GGUFValueType.STRING if isinstance(value, str) else GGUFValueType.UINT32
        writer.add_key_value(name, value, value_type)


def shapes(vocabulary):
    """Every tensor of a Llama model with tied embeddings: name to (rows, columns)."""
    head = HIDDEN // HEADS
    tensors = {"token_embd.weight": (vocabulary, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": (HIDDEN,),
            f"blk.{layer}.attn_q.weight": (HEADS * head, HIDDEN),
            f"blk.{layer}.attn_k.weight": (KV_HEADS * head, HIDDEN),
            f"blk.{layer}.attn_v.weight": (KV_HEADS * head, HIDDEN),
            f"blk.{layer}.attn_output.weight": (HIDDEN, HEADS * head),
            f"blk.{layer}.ffn_norm.weight": (HIDDEN,),
            f"blk.{layer}.ffn_gate.weight": (FEED_FORWARD, HIDDEN),
            f"blk.{layer}.ffn_up.weight": (FEED_FORWARD, HIDDEN),
            f"blk.{layer}.ffn_down.weight": (HIDDEN, FEED_FORWARD),
        }
    return tensors


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = sys.argv[1:]
    reader = GGUFReader(source)
    writer = GGUFWriter(target, "llama")
    copy_metadata(reader, writer)

    vocabulary = len(reader.fields["tokenizer.ggml.tokens"].data)
    random = numpy.random.default_rng(0)
    for name, shape in shapes(vocabulary).items():
        if len(shape) == 1:
            writer.add_tensor(name, numpy.ones(shape, dtype=numpy.float32))
            continue
        weights = random.standard_normal(shape, dtype=numpy.float32) * numpy.float32(0.05)
        kind = GGMLQuantizationType.Q8_0
        writer.add_tensor(name, quantize(weights, kind), raw_dtype=kind)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
