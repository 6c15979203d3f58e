//! A roofline over one engine step, stage by stage.
//!
//! With `t` tensor-parallel ranks, `F` the compute peak, `W` the memory bandwidth, `n` tokens:
//!
//! ```text
//! linear maps      pnorm(2·P·n / (t·F·e_c), (P·b_w/t + activations) / (W·e_m)) + GEMM launches
//! prefill attention  4·d_q·Σ c(x + c/2) / (t·F·e_a)      c new tokens after x in the cache
//! decode attention   Σ x · kv bytes per token / (W·e_kv)
//! all-reduces      2 a layer, of n·hidden·2 bytes
//! host             H0 a step + H1 a sequence
//! ```
//!
//! The form is that of Vidur, AIConfigurator and BLIS (arXiv 2405.05465, 2601.06288; BLIS
//! `docs/concepts/roofline.md`); efficiencies come with the GPU ([`crate::catalog::GpuSpec`]).
//! Uncalibrated, such a roofline is about 20 % off on dense models (median 14 %): good for orderings
//! and shapes, not for a purchase by itself.
//!
//! **Pipeline parallelism.** A batch is cut into `m = min(pp, sequences)` microbatches. A step takes the
//! longest of: one microbatch through every stage (the bubble when `m < pp`), all `m` through the
//! slowest stage, and all `m` through the host.

use super::links::{Fabric, Layout};
use super::{BatchShape, Exchange, TimingError, TimingModel};
use crate::catalog::{GpuSpec, ModelShape};
use scalebeam_model::units::Nanos;

/// Exponent of the p-norm between compute and memory time (2 to 3 fit; 1 would forbid overlap).
const P_NORM: f64 = 2.5;
/// GEMMs of one layer: query-key-value, output, gate-up, down.
const GEMMS: f64 = 4.0;
/// Fixed time of one layer: BLIS' global fit of 32 us, of which the GEMM launches are a part.
const LAYER_S: f64 = 32e-6;
/// Host time of one step (schedule, prepare, sample, detokenise) without asynchronous scheduling.
const HOST_STEP_S: f64 = 0.9e-3;
/// Host time of one sequence in a step (BLIS' global fit: 4.4 us).
const HOST_SEQUENCE_S: f64 = 4.4e-6;
/// Bytes of one activation element.
const ACTIVATION_BYTES: f64 = 2.0;

/// The roofline of one model on one layout of one GPU.
#[derive(Debug, Clone)]
pub struct Roofline {
    model: ModelShape,
    gpu: &'static GpuSpec,
    layout: Layout,
    fabric: Fabric,
}

/// One microbatch, as real numbers because a batch rarely divides evenly.
#[derive(Debug, Clone, Copy)]
struct Micro {
    tokens: f64,
    sequences: f64,
    /// Σ c(x + c/2) over prefill chunks.
    attended: f64,
    decode_context: f64,
}

impl Micro {
    fn of(batch: &BatchShape, parts: f64) -> Self {
        let attended = |c: f64, x: f64| c * (x + c / 2.0);
        let prefill = batch.prefill.iter();
        Self {
            tokens: batch.tokens() as f64 / parts,
            sequences: batch.sequences() as f64 / parts,
            attended: prefill
                .map(|chunk| attended(chunk.new_tokens as f64, chunk.context_before as f64))
                .sum::<f64>()
                / parts,
            decode_context: batch.decode_context as f64 / parts,
        }
    }
}

impl Roofline {
    /// The roofline of `model` on `layout` of `gpu`, joined by `fabric`.
    pub fn new(model: ModelShape, gpu: &'static GpuSpec, layout: Layout, fabric: Fabric) -> Self {
        Self { model, gpu, layout, fabric }
    }

    /// Compute peak of the linear maps in flop/s, efficiency included.
    fn linear_flops(&self) -> f64 {
        match self.gpu.fp8_tflops {
            Some(peak) if self.model.weight_bytes <= 1.0 => peak * 1e12 * self.gpu.gemm_eff_fp8,
            _ => self.bf16_flops(),
        }
    }

    fn bf16_flops(&self) -> f64 {
        self.gpu.bf16_tflops * 1e12 * self.gpu.gemm_eff
    }

    fn memory(&self) -> f64 {
        self.gpu.memory_gbps * 1e9
    }

    fn ranks(&self) -> f64 {
        f64::from(self.layout.tp)
    }

    /// Seconds in the linear maps of one layer.
    fn linear(&self, micro: Micro) -> f64 {
        let params = self.model.layer_params() / self.ranks();
        let compute = 2.0 * params * micro.tokens / self.linear_flops();
        let bytes = params * self.model.weight_bytes + micro.tokens * self.activation_bytes();
        p_norm(compute, bytes / (self.memory() * self.gpu.memory_eff))
    }

    /// Bytes that one token's activations move around the four GEMMs of a layer on one rank.
    fn activation_bytes(&self) -> f64 {
        let inner = 2.0 * self.model.query_width()
            + 2.0 * self.model.kv_width()
            + 3.0 * f64::from(self.model.intermediate);
        ACTIVATION_BYTES * (4.0 * f64::from(self.model.hidden) + inner / self.ranks())
    }

    /// Seconds of attention in one layer.
    fn attention(&self, micro: Micro) -> f64 {
        let flops = 4.0 * self.model.query_width() * micro.attended / self.ranks();
        let prefill = flops / (self.gpu.bf16_tflops * 1e12 * self.gpu.attention_eff);
        let per_layer =
            self.model.kv_bytes_per_token(self.layout.tp, 1) / f64::from(self.model.layers);
        prefill + micro.decode_context * per_layer / (self.memory() * self.gpu.kv_eff)
    }

    /// Seconds in which a layer does nothing but start kernels.
    fn launches(&self) -> f64 {
        LAYER_S.max(GEMMS * self.gpu.gemm_us * 1e-6)
    }

    /// Bytes of the activations of `tokens` between two layers.
    fn residual(&self, tokens: f64) -> f64 {
        tokens * f64::from(self.model.hidden) * ACTIVATION_BYTES
    }

    /// Seconds in the all-reduces of one layer.
    fn reduces(&self, tokens: f64) -> f64 {
        2.0 * self.fabric.all_reduce(self.layout, self.gpu, self.residual(tokens))
    }

    /// Seconds of one microbatch in one stage, without the output head.
    fn stage(&self, micro: Micro) -> f64 {
        let reduces = self.reduces(micro.tokens);
        let layer = self.linear(micro) + self.attention(micro) + reduces + self.launches();
        layer * f64::from(self.model.layers) / f64::from(self.layout.pp)
    }

    /// Seconds in which a microbatch of `tokens` is moved between ranks and not computed, through all stages.
    fn moved(&self, tokens: f64) -> f64 {
        let hops = self.fabric.stage_hops(self.layout, self.gpu, self.residual(tokens));
        self.reduces(tokens) * f64::from(self.model.layers) + hops
    }

    /// What ranks spend in moving activations to each other: [`Roofline::step`] has it within.
    pub fn exchange(&self) -> Exchange {
        let step_s = self.moved(0.0);
        Exchange { step_s, token_s: self.moved(1.0) - step_s }
    }

    /// Seconds of the output head, which computes one row a sequence and is bf16 in every checkpoint.
    fn head(&self, micro: Micro) -> f64 {
        let params = self.model.head_params() / self.ranks();
        let compute = 2.0 * params * micro.sequences / self.bf16_flops();
        p_norm(compute, params * ACTIVATION_BYTES / (self.memory() * self.gpu.memory_eff))
    }

    fn seconds(&self, batch: &BatchShape) -> f64 {
        let pp = f64::from(self.layout.pp);
        let parts = pp.min(batch.sequences() as f64);
        let micro = Micro::of(batch, parts);
        let (stage, head) = (self.stage(micro), self.head(micro));
        let host = HOST_STEP_S + HOST_SEQUENCE_S * micro.sequences;
        let hops = self.fabric.stage_hops(self.layout, self.gpu, self.residual(micro.tokens));
        let through = pp * stage + head + hops + host;
        through.max(parts * (stage + head)).max(parts * host)
    }
}

impl TimingModel for Roofline {
    fn step(&self, batch: &BatchShape) -> Result<Nanos, TimingError> {
        let tokens = batch.tokens();
        if tokens == 0 {
            return Err(TimingError::EmptyBatch);
        }
        let seconds = self.seconds(batch);
        let usable = seconds.is_finite() && (1e-9..1e6).contains(&seconds);
        if usable {
            Ok(Nanos::from_secs_f64(seconds))
        } else {
            Err(TimingError::Unusable { seconds, tokens })
        }
    }
}

/// `(a^p + b^p)^(1/p)`: the larger of the two when they differ much, more when they compete.
fn p_norm(a: f64, b: f64) -> f64 {
    (a.powf(P_NORM) + b.powf(P_NORM)).powf(1.0 / P_NORM)
}

#[cfg(test)]
mod tests;
