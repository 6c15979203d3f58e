//! Whether the weights fit, and how many tokens of KV cache the rest of the memory holds.

use crate::catalog::{GpuSpec, ModelShape};
use crate::timing::Layout;

/// Share of a GPU's memory that an engine takes (vLLM's `gpu_memory_utilization` default).
pub const MEMORY_SHARE: f64 = 0.9;
/// Memory per GPU kept for activations and captured graphs.
pub const RESERVED_GIB: f64 = 2.0;

const GIB: f64 = (1_u64 << 30) as f64;

/// Why a model cannot be held.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MemoryError {
    /// The weights alone are too large.
    #[error(
        "{model} needs {needed_gib:.1} GiB of weights per GPU over {gpus} GPUs, but {gpu} has \
         {usable_gib:.1} GiB usable (90 % of its memory)"
    )]
    Weights {
        /// The model.
        model: String,
        /// Weights per GPU.
        needed_gib: f64,
        /// GPUs of the instance.
        gpus: u32,
        /// The GPU.
        gpu: &'static str,
        /// What an engine may take.
        usable_gib: f64,
    },
    /// The weights fit, but nothing useful is left for the cache.
    #[error("{model} on {gpus} x {gpu} leaves no memory for the KV cache")]
    NoCache {
        /// The model.
        model: String,
        /// GPUs of the instance.
        gpus: u32,
        /// The GPU.
        gpu: &'static str,
    },
}

/// Tokens of KV cache of one instance: what is left of 90 % of each GPU after its share of the weights
/// and [`RESERVED_GIB`], over the bytes that a token costs on one rank.
///
/// # Errors
/// When the weights do not fit, or leave nothing.
pub fn kv_tokens(
    model: &ModelShape,
    gpu: &'static GpuSpec,
    layout: Layout,
) -> Result<u64, MemoryError> {
    let usable = gpu.memory_gib * MEMORY_SHARE;
    let weights = model.weights_bytes() / f64::from(layout.gpus()) / GIB;
    if weights > usable {
        return Err(MemoryError::Weights {
            model: model.name.clone(),
            needed_gib: weights,
            gpus: layout.gpus(),
            gpu: gpu.name,
            usable_gib: usable,
        });
    }
    let left = (usable - weights - RESERVED_GIB) * GIB;
    let tokens = left / model.kv_bytes_per_token(layout.tp, layout.pp);
    if tokens >= 1.0 {
        Ok(whole(tokens))
    } else {
        let model = model.name.clone();
        Err(MemoryError::NoCache { model, gpus: layout.gpus(), gpu: gpu.name })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive and far below 2^53: tokens that fit into real memory"
)]
fn whole(tokens: f64) -> u64 {
    tokens.floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{gpu, model};

    fn tokens(id: &str, card: &str, tp: u32, pp: u32) -> Result<u64, MemoryError> {
        kv_tokens(&model(id).unwrap(), gpu(card).unwrap(), Layout { tp, pp, nodes: 1 })
    }

    #[test]
    fn a_70b_does_not_fit_one_h100_and_says_so() {
        let text = tokens("Llama-3.3-70B-Instruct", "H100", 1, 1).unwrap_err().to_string();
        assert!(text.contains("131.4 GiB of weights per GPU over 1 GPUs"), "{text}");
        assert!(tokens("Llama-3.3-70B-Instruct", "H100", 2, 1).is_ok());
    }

    #[test]
    fn cache_is_what_the_weights_leave() {
        // 8B, one H100: 71.6 - 15.0 - 2 GiB over 128 KiB a token.
        let got = tokens("Llama-3.1-8B", "H100", 1, 1).unwrap() as f64;
        assert!((got / 447_000.0 - 1.0).abs() < 0.02, "{got}");
        assert!(tokens("Llama-3.1-8B", "H100", 2, 1).unwrap() as f64 > 2.0 * got);
    }

    #[test]
    fn no_room_beside_the_weights_is_an_error() {
        let error = tokens("Llama-2-13b-hf", "L4", 1, 1);
        assert!(error.is_err());
        assert!(tokens("Qwen3-32B", "A100-SXM-40G", 2, 1).is_ok());
    }
}
