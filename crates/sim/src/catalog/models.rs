//! Model shapes: the numbers of each published `config.json` that decide speed and memory.

/// The shape of a dense decoder-only transformer with grouped-query attention.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelShape {
    /// The name it was asked for or is published under, without the organisation.
    pub name: String,
    /// Decoder layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Width of one head.
    pub head_dim: u32,
    /// Width of the gated MLP.
    pub intermediate: u32,
    /// Rows of the vocabulary.
    pub vocab: u32,
    /// Whether the input embedding and the output head are one matrix.
    pub tied: bool,
    /// Bytes of one weight of the layers' linear maps (2 for bf16, 1 for fp8).
    pub weight_bytes: f64,
    /// Bytes of one element of the KV cache.
    pub kv_bytes: f64,
    /// Positions that the model was made for.
    pub context: u32,
}

/// Activations, embedding and output head stay in bf16, also in the published FP8 checkpoints.
pub(crate) const BF16_BYTES: f64 = 2.0;

impl ModelShape {
    /// Width of all query heads.
    pub fn query_width(&self) -> f64 {
        f64::from(self.heads) * f64::from(self.head_dim)
    }

    /// Width of all key heads (values are as wide again).
    pub fn kv_width(&self) -> f64 {
        f64::from(self.kv_heads) * f64::from(self.head_dim)
    }

    /// Weights of one layer's linear maps: query, key, value and output projections, and the gate, up
    /// and down maps of the MLP.
    pub fn layer_params(&self) -> f64 {
        let hidden = f64::from(self.hidden);
        let attention = hidden * (2.0 * self.query_width() + 2.0 * self.kv_width());
        attention + 3.0 * hidden * f64::from(self.intermediate)
    }

    /// Weights of the output head.
    pub fn head_params(&self) -> f64 {
        f64::from(self.hidden) * f64::from(self.vocab)
    }

    /// Bytes of all weights.
    pub fn weights_bytes(&self) -> f64 {
        let embeddings = if self.tied { 1.0 } else { 2.0 };
        f64::from(self.layers) * self.layer_params() * self.weight_bytes
            + embeddings * self.head_params() * BF16_BYTES
    }

    /// Bytes of KV cache that one token costs on one rank: `2 · max(1, kv_heads / tp) · head_dim ·
    /// bytes · layers / pp`. Below one head per rank, heads are replicated.
    pub fn kv_bytes_per_token(&self, tp: u32, pp: u32) -> f64 {
        let heads = (f64::from(self.kv_heads) / f64::from(tp)).max(1.0);
        2.0 * heads * f64::from(self.head_dim) * self.kv_bytes * f64::from(self.layers)
            / f64::from(pp)
    }
}

/// One line of the catalogue; names after the first are other checkpoints of the same shape.
struct Entry {
    names: &'static [&'static str],
    /// layers, hidden, heads, kv heads, head dim, intermediate, vocab, context
    size: [u32; 8],
    tied: bool,
}

const fn entry(names: &'static [&'static str], size: [u32; 8], tied: bool) -> Entry {
    Entry { names, size, tied }
}

/// Read from the `config.json` of each checkpoint.
#[rustfmt::skip]
const MODELS: &[Entry] = &[
    entry(&["DeepSeek-R1-Distill-Qwen-32B"], [64, 5120, 40, 8, 128, 27648, 152_064, 131_072], false),
    entry(&["DeepSeek-R1-Distill-Qwen-14B"], [48, 5120, 40, 8, 128, 13824, 152_064, 131_072], false),
    entry(&["DeepSeek-R1-Distill-Qwen-7B"], [28, 3584, 28, 4, 128, 18944, 152_064, 131_072], false),
    entry(&["DeepSeek-R1-Distill-Qwen-1.5B"], [28, 1536, 12, 2, 128, 8960, 151_936, 131_072], false),
    entry(&["Qwen2.5-32B-Instruct", "QwQ-32B"], [64, 5120, 40, 8, 128, 27648, 152_064, 32_768], false),
    entry(&["Qwen2.5-14B-Instruct"], [48, 5120, 40, 8, 128, 13824, 152_064, 32_768], false),
    entry(&["Qwen2.5-7B-Instruct"], [28, 3584, 28, 4, 128, 18944, 152_064, 32_768], false),
    entry(&["Qwen2.5-1.5B-Instruct"], [28, 1536, 12, 2, 128, 8960, 151_936, 32_768], true),
    entry(&["Qwen2.5-0.5B-Instruct"], [24, 896, 14, 2, 64, 4864, 151_936, 32_768], true),
    entry(&["Qwen3-32B"], [64, 5120, 64, 8, 128, 25600, 151_936, 40_960], false),
    entry(&["Qwen3-14B"], [40, 5120, 40, 8, 128, 17408, 151_936, 40_960], false),
    entry(&["Qwen3-8B"], [36, 4096, 32, 8, 128, 12288, 151_936, 40_960], false),
    entry(&["Qwen3-0.6B"], [28, 1024, 16, 8, 128, 3072, 151_936, 40_960], true),
    entry(&["Llama-3.1-8B-Instruct", "Llama-3.1-8B", "Meta-Llama-3.1-8B-Instruct", "Meta-Llama-3.1-8B",
        "DeepSeek-R1-Distill-Llama-8B"], [32, 4096, 32, 8, 128, 14336, 128_256, 131_072], false),
    entry(&["Llama-3.2-1B-Instruct", "Llama-3.2-1B"], [16, 2048, 32, 8, 64, 8192, 128_256, 131_072], true),
    entry(&["Llama-3.2-3B-Instruct", "Llama-3.2-3B"], [28, 3072, 24, 8, 128, 8192, 128_256, 131_072], true),
    entry(&["Llama-3.3-70B-Instruct", "Llama-3.3-70B", "Llama-3.1-70B-Instruct", "Llama-3.1-70B",
        "Meta-Llama-3.1-70B-Instruct", "DeepSeek-R1-Distill-Llama-70B"],
        [80, 8192, 64, 8, 128, 28672, 128_256, 131_072], false),
    entry(&["Llama-2-70b-chat-hf", "Llama-2-70b-hf"], [80, 8192, 64, 8, 128, 28672, 32_000, 4_096], false),
    entry(&["Llama-2-13b-chat-hf", "Llama-2-13b-hf"], [40, 5120, 40, 40, 128, 13824, 32_000, 4_096], false),
    entry(&["Llama-2-7b-chat-hf", "Llama-2-7b-hf"], [32, 4096, 32, 32, 128, 11008, 32_000, 4_096], false),
    entry(&["Mistral-7B-Instruct-v0.3"], [32, 4096, 32, 8, 128, 14336, 32_768, 32_768], false),
    entry(&["SmolLM2-135M-Instruct", "SmolLM2-135M"], [30, 576, 9, 3, 64, 1536, 49_152, 8_192], true),
    entry(&["SmolLM2-360M-Instruct", "SmolLM2-360M"], [32, 960, 15, 5, 64, 2560, 49_152, 8_192], true),
];

/// What the published FP8 checkpoints append to the name of the bf16 one.
const FP8_ENDINGS: &[&str] = &["-fp8-dynamic", "-fp8"];

/// The shape published as `id`, matched without case on the last path component; an ending `-FP8` or
/// `-FP8-dynamic` means one byte per weight of the linear maps.
pub fn model(id: &str) -> Option<ModelShape> {
    let last = id.trim_end_matches('/').rsplit('/').next()?;
    let lower = last.to_ascii_lowercase();
    let base = FP8_ENDINGS.iter().find_map(|ending| lower.strip_suffix(ending));
    let wanted = base.unwrap_or(&lower);
    let found = MODELS.iter().find(|m| m.names.iter().any(|n| n.eq_ignore_ascii_case(wanted)))?;
    let [layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, context] = found.size;
    Some(ModelShape {
        name: last.to_owned(),
        layers,
        hidden,
        heads,
        kv_heads,
        head_dim,
        intermediate,
        vocab,
        tied: found.tied,
        weight_bytes: if base.is_some() { 1.0 } else { BF16_BYTES },
        kv_bytes: BF16_BYTES,
        context,
    })
}

/// Every model name of the catalogue, for messages.
pub fn model_names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().flat_map(|m| m.names.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_without_case_on_the_last_component() {
        for id in [
            "qwen/qwen2.5-0.5b-instruct",
            "Qwen2.5-0.5B-Instruct",
            "/models/Qwen2.5-0.5B-Instruct/",
        ] {
            assert_eq!(model(id).unwrap().hidden, 896, "{id}");
        }
        assert!(model("gpt-5").is_none());
        assert!(model("").is_none());
    }

    #[test]
    fn fp8_halves_the_linear_maps_only() {
        let bf16 = model("Qwen/Qwen3-8B").unwrap();
        let fp8 = model("Qwen/Qwen3-8B-FP8").unwrap();
        let saved = f64::from(bf16.layers) * bf16.layer_params();
        assert!((bf16.weights_bytes() - fp8.weights_bytes() - saved).abs() < 1.0);
        assert!(model("RedHatAI/DeepSeek-R1-Distill-Llama-70B-FP8-dynamic").is_some());
    }

    #[test]
    fn weights_are_about_what_the_name_says() {
        for (id, billions) in [
            ("DeepSeek-R1-Distill-Qwen-32B", 32.8),
            ("Qwen2.5-0.5B-Instruct", 0.49),
            ("Qwen2.5-7B-Instruct", 7.6),
            ("Qwen3-8B", 8.2),
            ("Llama-3.1-8B", 8.0),
            ("Llama-2-70b-chat-hf", 69.0),
            ("Llama-3.3-70B-Instruct", 70.6),
            ("SmolLM2-135M", 0.135),
        ] {
            let params = model(id).unwrap().weights_bytes() / BF16_BYTES / 1e9;
            assert!((params / billions - 1.0).abs() < 0.02, "{id}: {params}");
        }
    }

    #[test]
    fn every_name_resolves_and_every_shape_is_whole() {
        for name in model_names() {
            let shape = model(name).unwrap();
            assert_eq!(shape.heads % shape.kv_heads, 0, "{name}");
        }
    }
}
