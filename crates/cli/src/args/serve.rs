//! `scalebeam serve`: what is emulated, and what shape its answers have.

use clap::{Args, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimingArg {
    /// Step times from the model's shape on the GPU, under continuous batching
    Roofline,
    /// --ttft and --itl, whatever the load
    Fixed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContentArg {
    /// delta.content
    Content,
    /// delta.reasoning_content
    Reasoning,
    /// delta.tool_calls
    ToolCalls,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 takes a free one and prints it
    #[arg(long, default_value_t = 8000)]
    pub(crate) port: u16,
    /// Model whose shape is emulated
    #[arg(long, default_value = "Qwen/Qwen2.5-7B-Instruct")]
    pub(crate) model: String,
    /// Name that requests may use besides the model's id (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub(crate) served_model_name: Vec<String>,
    /// Kind of GPU
    #[arg(long, default_value = "H100")]
    pub(crate) gpu: String,
    /// Tensor-parallel degree
    #[arg(long, default_value_t = 1)]
    pub(crate) tp: u32,
    /// Pipeline-parallel degree
    #[arg(long, default_value_t = 1)]
    pub(crate) pp: u32,
    /// Nodes that the instance spans
    #[arg(long, default_value_t = 1)]
    pub(crate) nodes: u32,
    /// Network between nodes, in Gbit/s
    #[arg(long, default_value_t = 100.0)]
    pub(crate) inter_node_gbps: f64,
    /// Requests batched at once
    #[arg(long, default_value_t = 256)]
    pub(crate) max_num_seqs: u32,
    /// Tokens per engine step
    #[arg(long, default_value_t = 8192)]
    pub(crate) max_num_batched_tokens: u32,
    /// Tokens that the key-value cache holds; default: as many as fit beside the weights
    #[arg(long, value_name = "N")]
    pub(crate) kv_tokens: Option<u64>,
    /// Longest context
    #[arg(long, default_value_t = 8192)]
    pub(crate) max_model_len: u32,
    /// How tokens are timed [default: fixed with --ttft or --itl, else roofline]
    #[arg(long, value_enum)]
    pub(crate) timing: Option<TimingArg>,
    /// Time to first token of fixed timing [default: 50ms]
    #[arg(long, value_name = "SPAN")]
    pub(crate) ttft: Option<String>,
    /// Time between tokens of fixed timing [default: 10ms]
    #[arg(long, value_name = "SPAN")]
    pub(crate) itl: Option<String>,
    /// Requests served at once with fixed timing; others wait [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) slots: Option<u64>,
    /// How many times faster than the emulated hardware
    #[arg(long, default_value_t = 1.0)]
    pub(crate) speed: f64,
    /// Seed of texts and lengths
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Answer 503 for this long after the start
    #[arg(long, value_name = "SPAN")]
    pub(crate) startup_delay: Option<String>,
    /// File for the true instants of every request and token, one JSON line a request
    #[arg(long, value_name = "FILE")]
    pub(crate) truth_log: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) faults: FaultArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Shapes and faults of answers, for tests of clients")]
pub(crate) struct FaultArgs {
    /// Tokens in one chunk
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) tokens_per_chunk: u64,
    /// Send the role-only chunk this long after the request, well before the first token
    #[arg(long, value_name = "SPAN")]
    pub(crate) role_after: Option<String>,
    /// Field of the delta that carries the text
    #[arg(long, value_enum, default_value = "content")]
    pub(crate) content: ContentArg,
    /// Send no usage
    #[arg(long)]
    pub(crate) omit_usage: bool,
    /// Send no `[DONE]`
    #[arg(long)]
    pub(crate) omit_done: bool,
    /// End lines with CR LF
    #[arg(long)]
    pub(crate) crlf: bool,
    /// Put no space after "data:"
    #[arg(long)]
    pub(crate) no_space: bool,
    /// Write every byte on its own
    #[arg(long)]
    pub(crate) split_bytes: bool,
    /// Answer without any content
    #[arg(long)]
    pub(crate) empty_output: bool,
    /// Answer a share of requests with an error status, as 429:0.05
    #[arg(long, value_name = "STATUS:SHARE")]
    pub(crate) fail_status: Option<String>,
    /// Break a share of streams after n tokens, as reset:3:0.05 (reset, close, end, error)
    #[arg(long, value_name = "HOW:TOKENS:SHARE")]
    pub(crate) interrupt: Option<String>,
    /// Pause a share of streams after n tokens, as 2s:3:0.05
    #[arg(long, value_name = "SPAN:TOKENS:SHARE")]
    pub(crate) stall: Option<String>,
}
