//! Tests through the public door: the binary, real servers, real files, real signals.

mod bench;
mod check;
mod e2e_llama;
mod e2e_vllm;
mod interrupt;
mod kill;
mod plan;
mod run;
mod support;
mod truth;
