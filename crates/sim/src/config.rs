//! One emulated instance from plain values, checked before anything starts.

use crate::catalog::{self, GpuSpec, ModelShape, nearest};
use crate::emulator::{Emulator, Fixed, Stepped};
use crate::engine::{Engine, EngineConfig};
use crate::memory::{self, MemoryError};
use crate::timing::{Exchange, Fabric, InterNode, Layout, Roofline};
use scalebeam_model::units::Nanos;

/// Tokens of one KV block (vLLM's default).
const BLOCK_SIZE: u64 = 16;

/// How the tokens of an emulated instance are timed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Timing {
    /// By the model's shape on the GPU's roofline, under continuous batching.
    #[default]
    Roofline,
    /// At fixed instants, whatever the load. Model and GPU are then names only.
    Fixed {
        /// Arrival (or start, with slots) to first token.
        ttft: Nanos,
        /// Between tokens.
        itl: Nanos,
        /// Requests served at a time; others wait. `None` is unlimited.
        slots: Option<u64>,
    },
}

/// One emulated instance.
#[derive(Debug, Clone, PartialEq)]
pub struct EmulatedConfig {
    /// The model's id; its last path component is looked up in the catalogue.
    pub model: String,
    /// The model's shape, for a model that the catalogue lacks.
    pub model_shape: Option<ModelShape>,
    /// The GPU, by a name of the catalogue.
    pub gpu: String,
    /// Tensor-parallel ranks.
    pub tp: u32,
    /// Pipeline stages.
    pub pp: u32,
    /// Nodes that the instance spans.
    pub nodes: u32,
    /// Line rate between nodes in Gbit/s.
    pub inter_node_gbps: f64,
    /// Transport between nodes.
    pub inter_node: InterNode,
    /// Sequences that run at the same time.
    pub max_num_seqs: u32,
    /// Tokens that one step computes at most.
    pub max_num_batched_tokens: u32,
    /// Tokens of prompt and answer together.
    pub max_model_len: u32,
    /// Whether a prompt may be computed over several steps.
    pub chunked_prefill: bool,
    /// Tokens of KV cache; `None` is what the memory leaves.
    pub kv_tokens: Option<u64>,
    /// How tokens are timed.
    pub timing: Timing,
    /// Emulated seconds per wall second.
    pub speed: f64,
    /// Seed of everything that is drawn.
    pub seed: u64,
}

impl Default for EmulatedConfig {
    /// A small model on one H100, with vLLM's limits.
    fn default() -> Self {
        Self {
            model: "Qwen/Qwen2.5-0.5B-Instruct".to_owned(),
            model_shape: None,
            gpu: "H100".to_owned(),
            tp: 1,
            pp: 1,
            nodes: 1,
            inter_node_gbps: 100.0,
            inter_node: InterNode::default(),
            max_num_seqs: 256,
            max_num_batched_tokens: 8_192,
            max_model_len: 8_192,
            chunked_prefill: true,
            kv_tokens: None,
            timing: Timing::default(),
            speed: 1.0,
            seed: 0,
        }
    }
}

/// Why an emulated instance cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The catalogue has no such model.
    #[error("no shape is known for model '{name}'; nearest are {nearest}; or give its shape")]
    Model {
        /// As asked for.
        name: String,
        /// Known names.
        nearest: String,
    },
    /// The catalogue has no such GPU.
    #[error("no GPU '{name}' is known; nearest are {nearest}")]
    Gpu {
        /// As asked for.
        name: String,
        /// Known names.
        nearest: String,
    },
    /// A number is outside what makes sense.
    #[error("{field} is {value}, but {rule}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it has to be.
        rule: String,
    },
    /// The model does not fit.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

fn check(
    ok: bool,
    field: &'static str,
    value: impl ToString,
    rule: &str,
) -> Result<(), ConfigError> {
    if ok {
        Ok(())
    } else {
        Err(ConfigError::Value { field, value: value.to_string(), rule: rule.to_owned() })
    }
}

impl EmulatedConfig {
    /// Whether the instance can be built.
    ///
    /// # Errors
    /// Names what is wrong, and the nearest known names where a name is unknown.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.build().map(drop)
    }

    /// The emulator of this instance, in emulated time (`speed` is the business of whoever drives it).
    ///
    /// # Errors
    /// As [`EmulatedConfig::validate`].
    pub fn build(&self) -> Result<Box<dyn Emulator>, ConfigError> {
        self.check_values()?;
        if let Timing::Fixed { ttft, itl, slots } = self.timing {
            check(slots != Some(0), "slots", 0, "at least one is needed")?;
            return Ok(Box::new(Fixed::new(ttft, itl, slots)));
        }
        let (shape, gpu) = (self.shape()?, self.gpu_spec()?);
        self.check_layout(&shape)?;
        let engine = self.engine_config(self.kv_capacity(&shape, gpu)?);
        let timing = self.roofline(shape, gpu);
        Ok(Box::new(Stepped::new(Engine::new(engine, Box::new(timing)))))
    }

    fn roofline(&self, shape: ModelShape, gpu: &'static GpuSpec) -> Roofline {
        let fabric = Fabric { inter_node_gbps: self.inter_node_gbps, inter_node: self.inter_node };
        Roofline::new(shape, gpu, self.layout(), fabric)
    }

    /// What the ranks of the instance spend in moving activations to each other, whatever its memory holds. Nothing
    /// where times are fixed.
    ///
    /// # Errors
    /// When the model or the GPU is in no catalogue, or the layout does not fit the model.
    pub fn exchange(&self) -> Result<Exchange, ConfigError> {
        if matches!(self.timing, Timing::Fixed { .. }) {
            return Ok(Exchange::default());
        }
        self.check_values()?;
        let (shape, gpu) = (self.shape()?, self.gpu_spec()?);
        self.check_layout(&shape)?;
        Ok(self.roofline(shape, gpu).exchange())
    }

    fn layout(&self) -> Layout {
        Layout { tp: self.tp, pp: self.pp, nodes: self.nodes }
    }

    fn engine_config(&self, kv_tokens: u64) -> EngineConfig {
        EngineConfig {
            max_num_seqs: u64::from(self.max_num_seqs),
            max_num_batched_tokens: u64::from(self.max_num_batched_tokens),
            block_size: BLOCK_SIZE,
            kv_tokens,
            chunked_prefill: self.chunked_prefill,
        }
    }

    fn shape(&self) -> Result<ModelShape, ConfigError> {
        self.model_shape.clone().or_else(|| catalog::model(&self.model)).ok_or_else(|| {
            let last = self.model.rsplit('/').next().unwrap_or(&self.model);
            let nearest = nearest(last, catalog::model_names()).join(", ");
            ConfigError::Model { name: self.model.clone(), nearest }
        })
    }

    fn gpu_spec(&self) -> Result<&'static GpuSpec, ConfigError> {
        catalog::gpu(&self.gpu).ok_or_else(|| {
            let nearest = nearest(&self.gpu, catalog::gpu_names()).join(", ");
            ConfigError::Gpu { name: self.gpu.clone(), nearest }
        })
    }

    fn kv_capacity(&self, shape: &ModelShape, gpu: &'static GpuSpec) -> Result<u64, ConfigError> {
        let fits = memory::kv_tokens(shape, gpu, self.layout())?;
        let tokens = self.kv_tokens.unwrap_or(fits) / BLOCK_SIZE * BLOCK_SIZE;
        let rule = format!("the KV cache holds {tokens} tokens; lower it or use more GPUs");
        check(u64::from(self.max_model_len) <= tokens, "max_model_len", self.max_model_len, &rule)?;
        Ok(tokens)
    }

    fn check_values(&self) -> Result<(), ConfigError> {
        let at_least_one = [
            ("tp", self.tp),
            ("pp", self.pp),
            ("nodes", self.nodes),
            ("max_num_seqs", self.max_num_seqs),
            ("max_num_batched_tokens", self.max_num_batched_tokens),
        ];
        for (field, value) in at_least_one {
            check(value > 0, field, value, "at least 1 is needed")?;
        }
        check(
            self.max_model_len > 1,
            "max_model_len",
            self.max_model_len,
            "at least 2 are needed",
        )?;
        let speed = self.speed.is_finite() && self.speed > 0.0;
        check(speed, "speed", self.speed, "a finite number above 0 is needed")
    }

    fn check_layout(&self, shape: &ModelShape) -> Result<(), ConfigError> {
        let (tp, pp, nodes) = (self.tp, self.pp, self.nodes);
        let rule =
            format!("it has to divide the {} attention heads of {}", shape.heads, shape.name);
        check(shape.heads.is_multiple_of(tp), "tp", tp, &rule)?;
        let rule = format!("{} has only {} layers", shape.name, shape.layers);
        check(pp <= shape.layers, "pp", pp, &rule)?;
        let rule = format!("it has to divide the {} GPUs of tp {tp} x pp {pp}", tp * pp);
        check((tp * pp).is_multiple_of(nodes), "nodes", nodes, &rule)?;
        let linked = self.inter_node_gbps.is_finite() && self.inter_node_gbps > 0.0;
        check(
            nodes == 1 || linked,
            "inter_node_gbps",
            self.inter_node_gbps,
            "several nodes need a link",
        )?;
        let chunked = self.chunked_prefill || self.max_num_batched_tokens >= self.max_model_len;
        let rule = "without chunked prefill it has to reach max_model_len";
        check(chunked, "max_num_batched_tokens", self.max_num_batched_tokens, rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(config: EmulatedConfig) -> String {
        config.validate().unwrap_err().to_string()
    }

    fn base() -> EmulatedConfig {
        EmulatedConfig::default()
    }

    #[test]
    fn the_default_builds() {
        base().validate().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        let large = "meta-llama/Llama-3.3-70B-Instruct".to_owned();
        let cases = [
            (
                EmulatedConfig { gpu: "L40".into(), ..base() },
                "no GPU 'L40' is known; nearest are L40S, ",
            ),
            (
                EmulatedConfig { model: "Qwen/Qwen2.5-0.5B".into(), ..base() },
                "no shape is known for model 'Qwen/Qwen2.5-0.5B'; nearest are ",
            ),
            (
                EmulatedConfig { tp: 3, ..base() },
                "tp is 3, but it has to divide the 14 attention heads",
            ),
            (EmulatedConfig { pp: 0, ..base() }, "pp is 0, but at least 1 is needed"),
            (
                EmulatedConfig { tp: 2, nodes: 4, ..base() },
                "nodes is 4, but it has to divide the 2 GPUs",
            ),
            (EmulatedConfig { speed: f64::NAN, ..base() }, "speed is NaN, but a finite number"),
            (EmulatedConfig { model: large, ..base() }, "needs 131.4 GiB of weights per GPU"),
            (EmulatedConfig { kv_tokens: Some(100), ..base() }, "the KV cache holds 96 tokens"),
        ];
        for (config, want) in cases {
            let got = problem(config);
            assert!(got.contains(want), "{got}");
        }
    }

    #[test]
    fn fixed_timing_needs_no_catalogue() {
        let timing = Timing::Fixed { ttft: Nanos(1), itl: Nanos(1), slots: None };
        let config = EmulatedConfig { model: "x".into(), gpu: "y".into(), timing, ..base() };
        config.validate().unwrap();
    }
}
