//! Tests through the public door: the binary, real servers, real files, real signals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod beside;
mod cache;
mod check;
mod cloud;
mod command;
mod compare;
mod doctor;
mod e2e_dynamo;
mod e2e_llama;
mod e2e_llama_router;
mod e2e_sglang;
mod e2e_vllm;
mod e2e_vllm_dp;
mod e2e_vllm_pd;
mod e2e_vllm_ray;
mod e2e_vllm_ray_serve;
mod export;
mod fingerprint;
mod hosts;
mod import;
mod interrupt;
mod kill;
mod kube;
mod limit;
mod machines;
mod plan;
mod power;
mod render;
mod report;
mod route;
mod run;
mod scaling;
mod search;
mod seeds;
mod selftest;
mod sessions;
mod sglang;
mod slurm;
mod ssh;
mod support;
mod transfer;
mod truth;
mod usage;
