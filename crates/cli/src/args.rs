//! The command line: clap types only.

use crate::selftest::beside::client::Client;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use scalebeam_model::units::{Nanos, parse_duration};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

mod advise;
mod agent;
mod compare;
mod export;
mod import;
mod inside;
mod route;
mod serve;

pub(crate) use advise::AdviseArgs;
pub(crate) use agent::AgentArgs;
pub(crate) use compare::{CompareArgs, FailOn};
pub(crate) use export::ExportArgs;
pub(crate) use import::ImportArgs;
pub(crate) use inside::{InsideArgs, InsideCommand};
pub(crate) use route::RouteArgs;
pub(crate) use serve::{ContentArg, FaultArgs, ServeArgs, TimingArg};

/// Weighs distributed LLM inference deployments against each other.
#[derive(Debug, Parser)]
#[command(
    name = "scalebeam",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  scalebeam run experiments/quickstart.toml\n  \
        scalebeam bench http://localhost:8000 --concurrency 1,8,64 --requests 200\n  \
        scalebeam plan experiments/quickstart.toml --json | jq .points[].id\n\n\
        Exit codes: 0 measured, expectations hold; 1 an expectation failed; 2 wrong command line or \
        file; 3 a point is not trustworthy; 4 could not deploy or reach; 5 a defect; 130 interrupted."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check an experiment file
    #[command(
        after_help = "Examples:\n  scalebeam check experiment.toml\n  scalebeam check experiment.toml --json"
    )]
    Check(FileArgs),
    /// Print everything that a run would do
    #[command(
        after_help = "Examples:\n  scalebeam plan experiment.toml\n  scalebeam plan experiment.toml --deploy tp4 --json\n  \
        scalebeam plan experiment.toml --render manifests"
    )]
    Plan(PlanArgs),
    /// Say whether a file's deployments could work on its hosts, without starting anything
    #[command(after_help = "Examples:\n  scalebeam doctor experiment.toml\n  \
        scalebeam doctor experiment.toml --deploy tp4 --json | jq '.findings[] | select(.status == \"fail\")'\n\n\
        Read-only: this machine by sh, hosts with 'ssh' by the site's own ssh, all at the same time.\n\
        Exit code 0: nothing that stops a deployment failed (warnings are printed); 4: something did.")]
    Doctor(DoctorArgs),
    /// Bring up, load, take down and compare every deployment of a file
    #[command(after_help = "Examples:\n  scalebeam run experiments/quickstart.toml\n  \
        scalebeam run experiment.toml --deploy tp4 --load users --out /data/runs\n  \
        scalebeam run experiment.toml --in-cluster --deploy two --json\n  \
        scalebeam run --resume runs/20260101T000000Z-name\n\n\
        --in-cluster measures in a pod of the deployments' own cluster (params.client_image), so that nothing has to be \
        exposed; the run is fetched to here.")]
    Run(RunArgs),
    /// Load an endpoint that is already there
    #[command(
        after_help = "Examples:\n  scalebeam bench http://localhost:8000 --concurrency 1,8,64\n  \
        scalebeam bench http://localhost:8000 --model m --request-rate 5 --duration 60s --isl 1024 --osl 128\n  \
        scalebeam bench http://localhost:8000 --rate-profile ramp:1/s,50/s,60s --burstiness 0.5 --duration 90s\n  \
        scalebeam bench http://localhost:8000 --concurrency 64 --define vllm\n  \
        scalebeam bench http://localhost:8000 --slo 'ttft.p99<=450ms,tpot.p99<=40ms' --search rate:1..200 --duration 60s\n  \
        scalebeam bench https://api.example.com --api-key-env API_KEY --requests 100 --json"
    )]
    // In a box: it has more flags than all others together.
    Bench(Box<BenchArgs>),
    /// Serve the emulated engine over HTTP
    #[command(
        after_help = "Examples:\n  scalebeam serve --model Qwen/Qwen2.5-7B-Instruct --gpu H100 --tp 2\n  \
        scalebeam serve --ttft 50ms --itl 10ms --truth-log truth.jsonl"
    )]
    Serve(Box<ServeArgs>),
    /// Send each request to a prefill worker and then to a decode worker
    #[command(
        after_help = "Examples:\n  scalebeam route --prefill http://node1:8100 --decode http://node2:8200\n  \
        scalebeam route --port 9000 --prefill http://a:8100 --prefill http://b:8100 --decode http://c:8200\n\n\
        Workers are servers of vLLM with NixlConnector, taken in turn. Chat and text completions go through both, \
        streamed or not; /health lists the workers that answer, /metrics counts."
    )]
    Route(RouteArgs),
    /// Read this machine for a scalebeam elsewhere, which brings and asks it by itself
    #[command(after_help = "Examples:\n  scalebeam agent /tmp/agent\n  \
        scalebeam agent --attach /tmp/agent\n\n\
        A run starts one on each host that it reaches by ssh, and takes it away again. Nothing is written but into \
        its directory. It speaks JSON, an object a line; what it read is in agent.spool.")]
    Agent(AgentArgs),
    /// What a Job of Kubernetes does around a run that it measures inside of its cluster
    #[command(hide = true)]
    Inside(InsideArgs),
    /// Say what the instrument is worth on this machine
    #[command(
        after_help = "Examples:\n  scalebeam selftest\n  scalebeam selftest --streams 64,1000 --json\n  \
        scalebeam selftest --quick\n  scalebeam selftest --full --case paced-256 --rounds 3 --markdown\n  \
        scalebeam selftest --full --case paced-256 --beside 'vllm-rs bench serve --backend openai-chat \
        --base-url {url} --model {model} --tokenizer TOKENIZER --dataset-name random --random-input-len 64 \
        --random-output-len {tokens} --num-prompts {requests} --max-concurrency {streams} --save-result \
        --result-dir {result_dir} --result-filename {result_file}'\n\n\
        A truth server, the load client and a raw reader that parses nothing run in turns, each a process \
        of its own. Errors are what was said minus what the server's log says.\n\
        Of a client named by --beside, what the system and the server know of it is said, and errors where it \
        leaves a JSON file with vLLM's keys in {result}. A case is not for a client whose command lacks {streams} \
        (closed) or {rate} (open); with both, {rate} is inf and {streams} all requests where they do not matter.\n\
        Exit code 3: requests were lost, or TTFT or lateness are off by more than 10 ms at the 99th percentile."
    )]
    Selftest(SelftestArgs),
    /// One process of a selftest
    #[command(hide = true)]
    SelftestPart {
        /// What it does, as JSON
        spec: String,
        /// Connections that it may have
        streams: u64,
    },
    /// Make reports of a run again
    #[command(after_help = "Examples:\n  scalebeam report runs/20260101T000000Z-name\n  \
        scalebeam report runs/20260101T000000Z-name --format png,html --json\n  \
        scalebeam report runs/20260101T000000Z-name --define vllm\n  \
        scalebeam report runs/20260101T000000Z-name --define guidellm,aiperf --json\n  \
        scalebeam report runs/20260101T000000Z-name --percentiles 50,99.9\n  \
        scalebeam report runs/20260101T000000Z-name --histogram ttft_ms,itl_ms > histogram.csv\n  \
        scalebeam report runs/20260101T000000Z-name --records jsonl | jq .finish_reason\n  \
        scalebeam report runs/20260101T000000Z-name --samples > samples.csv\n  \
        scalebeam report runs/20260101T000000Z-name --power-logs logs")]
    Report(ReportArgs),
    /// Hold one deployment that was measured against another
    #[command(
        after_help = "Examples:\n  scalebeam compare runs/20260101T000000Z-old runs/20260102T000000Z-new\n  \
        scalebeam compare old new --margin 3% --fail-on regression\n  \
        scalebeam compare RUN:tp4 RUN:tp8 --metrics output_tps,ttft.p99 --json\n  \
        scalebeam compare --margin 3% runs/*-old -- runs/*-new\n  \
        scalebeam compare vllm-old.json vllm-new.json\n\n\
        What differs between the two is told before any number. The second is held against the first on every \
        level of a load that both met. 'repeats = 3' or more, and interleave = \"bring-ups\", measure what trials and \
        bring-ups differ by; several runs a side measure what runs differ by. Result files of other tools have no \
        verdict, and an interval only where there are several a side.\n\
        Exit code 1: --fail-on found what it names; 2: they were not asked the same; 3: a point is not trustworthy."
    )]
    Compare(CompareArgs),
    /// Say which measured deployment carries a load within an SLO for the least money
    #[command(
        after_help = "Examples:\n  scalebeam advise runs/20260101T000000Z-name --slo \"ttft.p99 <= 450ms\" --rate 30/s --prices prices.toml\n  \
        scalebeam advise RUN:tp4 RUN:tp8 --slo mlperf-llama2-70b --users 500 --plan reserved --headroom 30%\n  \
        scalebeam advise RUN --slo mlperf-llama2-70b --rate 2/s --utilisation 40% --json | jq .choices[0]\n\n\
        Of each deployment: the highest level that was measured and meets the SLO, the copies that carry what is asked, and \
        what they cost; the least cost first. Copies are taken to carry as much side by side as one did alone. Prices: --prices, \
        else price_per_hour, else [prices] of the run's file.\n\
        Exit code 0: there is an answer; 1: nothing meets the SLO; 2: the command line is wrong, or runs were not asked the \
        same; 3: the answer might be another, were points trusted that are not."
    )]
    Advise(AdviseArgs),
    /// Read results and power logs of other tools
    #[command(
        after_help = "Examples:\n  scalebeam import vllm-result.json profile_export_aiperf.json benchmarks.json\n  \
        scalebeam import deepseek_benchmark_*.csv --json\n  \
        scalebeam import power_log_1gpu_20260101_000000.csv\n  \
        scalebeam import power_log_*.csv --results benchmark_gpu_users_results.json\n  \
        scalebeam import gpu_metrics.csv --results result.json --json\n  \
        scalebeam import samples.csv --from 2026-01-01T00:10:00 --to 2026-01-01T00:12:00\n\n\
        Times without a zone are taken as UTC. Each number stands with what speaks against it."
    )]
    Import(ImportArgs),
    /// Write a run in the files of other tools
    #[command(
        after_help = "Examples:\n  scalebeam export runs/20260101T000000Z-name --as vllm\n  \
        scalebeam export runs/20260101T000000Z-name --as genai-perf --deploy tp4 --out artifacts\n  \
        scalebeam export runs/20260101T000000Z-name --as mlflow --out . && mlflow ui --backend-store-uri mlruns\n  \
        scalebeam export runs/20260101T000000Z-name --as openmetrics --json\n\n\
        The numbers of another tool are made from the records under its own definitions. NOTES.md beside the files says \
        in what they may differ still, and which points are not to be trusted; a value that was not measured is absent.\n\
        Exit code 3: written, but a point is not trustworthy."
    )]
    Export(ExportArgs),
    /// Bring one deployment of a file up and leave it running
    #[command(
        after_help = "Examples:\n  scalebeam up experiment.toml --deploy tp4\n  scalebeam down experiment.toml"
    )]
    Up(UpArgs),
    /// Take down whatever scalebeam has left running
    #[command(
        after_help = "Examples:\n  scalebeam down experiment.toml\n  scalebeam down runs/20260101T000000Z-name\n  scalebeam down"
    )]
    Down(DownArgs),
    /// Install a managed engine into the user's cache folder
    #[command(after_help = "Examples:\n  scalebeam setup llama.cpp")]
    Setup(SetupArgs),
    /// Print a JSON schema
    Schema {
        /// Of what
        #[arg(value_enum)]
        of: SchemaOf,
    },
    /// Print shell completions
    Completions {
        /// For which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write man pages into a directory
    Man {
        /// The directory
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// Experiment file
    pub(crate) file: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    /// Write into this folder what brings the deployments up on k8s, lws, kuberay, dgd, modal, slurm and
    /// skypilot, and print the list in place of the plan
    #[arg(long, value_name = "DIR")]
    pub(crate) render: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Only this deployment (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub(crate) deploy: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SelectArgs {
    /// Only this deployment (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub(crate) deploy: Vec<String>,
    /// Only this load (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub(crate) load: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Experiment file
    #[arg(required_unless_present = "resume")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    /// Directory that holds run directories [default: runs, or output.dir of the file]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Continue this interrupted run: measure what is missing, keep what is there
    #[arg(long, value_name = "RUN", conflicts_with_all = ["file", "deploy", "load", "out"])]
    pub(crate) resume: Option<PathBuf>,
    /// Measure in a pod of the cluster that the deployments are in, made from params.client_image, and fetch the run
    #[arg(long, conflicts_with = "resume")]
    pub(crate) in_cluster: bool,
    /// This is that pod, and the run is known by this id
    #[arg(long, value_name = "ID", hide = true, conflicts_with_all = ["resume", "in_cluster"])]
    pub(crate) inside_as: Option<String>,
    /// Print the numbers as another tool defines and names them, in place of the tables; several
    /// separated by commas: vllm, sglang, aiperf, genai-perf, guidellm, inference-perf, llmperf, genai-bench
    #[arg(long, value_delimiter = ',', value_name = "TOOL")]
    pub(crate) define: Vec<String>,
    /// Measure the instrument on this machine first [default: auto, or selftest of the file]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) selftest: Option<SelftestArg>,
    /// Stop after deployments were up this long, as 2h [default: limit.wall of the file]
    #[arg(long, value_name = "SPAN", value_parser = parse_duration)]
    pub(crate) limit_wall: Option<Nanos>,
    /// Stop when deployments have cost so much by their prices [default: limit.spend of the file]
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) limit_spend: Option<f64>,
    /// Start without asking the doctor first; doctor.json says so
    #[arg(long)]
    pub(crate) no_doctor: bool,
    /// Print results.json on stdout in place of the tables
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SelftestArg {
    /// Where the run is planned to last at least ten times as long
    Auto,
    /// Before every run
    Always,
    /// Never: no point is held against a floor
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum ApiArg {
    /// OpenAI: POST /v1/chat/completions
    Chat,
    /// OpenAI: POST /v1/completions
    Completions,
    /// OpenAI: POST /v1/responses
    Responses,
    /// OpenAI: POST /v1/embeddings (no stream, no output length)
    Embeddings,
    /// Anthropic: POST /v1/messages
    Messages,
    /// Text Generation Inference: POST /generate_stream
    Tgi,
    /// SGLang: POST /generate
    Sglang,
    /// Ollama: POST /api/chat
    OllamaChat,
    /// Ollama: POST /api/generate
    OllamaGenerate,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ArrivalArg {
    /// Independent arrivals, exponential gaps
    Poisson,
    /// Equal gaps
    Constant,
    /// Gaps of a gamma distribution, see --burstiness
    Gamma,
    /// When the requests of the --dataset came, see --speed
    Trace,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RangeRatioArg {
    /// [L(1-r), L(1+r)], as vllm bench serve
    Vllm,
    /// [rL, L], as sglang.bench_serving, older vLLM and InferenceX
    Sglang,
}

/// What later turns carry as the answers to earlier ones.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum HistoryArg {
    /// What the server answered.
    Real,
    /// Words of the length that was asked for, or the answers of the dataset.
    Planned,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum CacheArg {
    /// Prompts begin with a mark that no other run, point or trial uses
    Salt,
    /// Prompts as the seed or the file says, whatever the server has seen before
    Keep,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("rates").args(["request_rate", "rate_profile"]))]
pub(crate) struct BenchArgs {
    /// Base URL, as http://localhost:8000 (several: separated by commas)
    #[arg(value_delimiter = ',', required = true)]
    pub(crate) url: Vec<String>,
    /// Model name in requests [default: the first that /v1/models lists]
    #[arg(long, short)]
    pub(crate) model: Option<String>,
    /// Requests in flight; several levels separated by commas [default: 8]
    #[arg(long, short = 'c', value_delimiter = ',', value_name = "N", conflicts_with = "rates")]
    pub(crate) concurrency: Vec<u32>,
    /// Arrivals per second in an open loop; several levels separated by commas
    #[arg(long, value_delimiter = ',', value_name = "R")]
    pub(crate) request_rate: Vec<f64>,
    /// Arrivals that change over time, in place of --request-rate: ramp:FROM,TO,OVER or
    /// sine:MEAN,AMPLITUDE,PERIOD or steps:RATE@SPAN,RATE@SPAN,..
    #[arg(long, value_name = "KIND:..")]
    pub(crate) rate_profile: Option<String>,
    /// Arrival process of an open loop [default: poisson, or gamma where --burstiness is given]
    #[arg(long, value_enum)]
    pub(crate) arrival: Option<ArrivalArg>,
    /// Shape of gamma arrivals: 1 is Poisson, less is burstier, more is more regular
    #[arg(long, value_name = "K", requires = "rates")]
    pub(crate) burstiness: Option<f64>,
    /// How many times faster than the trace its requests are sent
    #[arg(long, value_name = "FACTOR", requires = "dataset")]
    pub(crate) speed: Option<f64>,
    /// Requests per level [default: ten times the concurrency, at least 100]
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) requests: Option<u64>,
    /// Send nothing new after this long, as 30s
    #[arg(long, value_name = "SPAN")]
    pub(crate) duration: Option<String>,
    /// Prompt length in tokens
    #[arg(long, default_value_t = 512, value_name = "N", conflicts_with = "dataset")]
    pub(crate) isl: u32,
    /// Answer length in tokens [default: 128, or as the dataset says]
    #[arg(long, value_name = "N")]
    pub(crate) osl: Option<u32>,
    /// Spread both lengths evenly over a range of this ratio, from 0 to 1
    #[arg(long, value_name = "R", conflicts_with = "dataset")]
    pub(crate) range_ratio: Option<f64>,
    /// What the ratio means
    #[arg(long, value_enum, default_value = "vllm", requires = "range_ratio")]
    pub(crate) range_ratio_as: RangeRatioArg,
    /// Shared tokens before the unique ones of each prompt
    #[arg(long, value_name = "N", conflicts_with = "dataset")]
    pub(crate) prefix: Option<u32>,
    /// Distinct shared prefixes, taken in turn [default: 1]
    #[arg(long, value_name = "N", requires = "prefix")]
    pub(crate) prefix_groups: Option<u32>,
    /// Prompts or lengths from a file: sharegpt:FILE, mooncake:FILE, burstgpt:FILE, azure:FILE, jsonl:FILE
    #[arg(long, value_name = "FORMAT:FILE")]
    pub(crate) dataset: Option<String>,
    /// Requests are turns of sessions, each of which carries those before it: so many turns a session; of
    /// a dataset, at most so many of each conversation
    #[arg(long, value_name = "N")]
    pub(crate) turns: Option<u32>,
    /// Tokens that the user adds in each later turn [default: the prompt length]
    #[arg(long, value_name = "TOKENS", requires = "turns", conflicts_with = "dataset")]
    pub(crate) turn_isl: Option<u32>,
    /// Wait between an answer and the next turn or request: 2s, or exp:2s for exponential ones
    #[arg(long, value_name = "SPAN")]
    pub(crate) think: Option<String>,
    /// What later turns carry as the answers to earlier ones
    #[arg(long, value_enum, default_value = "real", requires = "turns")]
    pub(crate) history: HistoryArg,
    /// What keeps the server's prefix cache from answering for an earlier point
    #[arg(long, value_enum, default_value = "salt")]
    pub(crate) cache: CacheArg,
    /// Post to this path before each measurement, to empty the server's prefix cache, in place of a salt:
    /// /reset_prefix_cache of vLLM in development mode, /flush_cache of SGLang
    #[arg(long, value_name = "PATH", conflicts_with = "cache")]
    pub(crate) cache_reset: Option<String>,
    /// Send requests over HTTP/2: many share a connection
    #[arg(long)]
    pub(crate) http2: bool,
    /// PEM file of certificates to trust beside the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Addresses of this machine to connect from, in turn, separated by commas: each has as many
    /// connections as there are local ports
    #[arg(long, value_delimiter = ',', value_name = "ADDR")]
    pub(crate) source: Vec<IpAddr>,
    /// Let answers end where the model ends them (no ignore_eos)
    #[arg(long)]
    pub(crate) no_force_len: bool,
    /// Which endpoint family to load
    #[arg(long, alias = "endpoint", value_enum, default_value = "chat")]
    pub(crate) api: ApiArg,
    /// Tokenizer directory or tokenizer.json, for token-exact prompts
    #[arg(long, value_name = "DIR")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// What the load must meet: bounds, as ttft.p99<=450ms,tpot.p99<=40ms, or a preset, as
    /// mlperf-llama2-70b-interactive
    #[arg(long, value_delimiter = ',', value_name = "SLO")]
    pub(crate) slo: Vec<String>,
    /// End a level of --request-rate early once its queue surely grows without end
    #[arg(long, requires = "rates")]
    pub(crate) stop_oversaturated: bool,
    /// Search the highest level that meets --slo: rate:1..200 or concurrency:1..512
    #[arg(long, value_name = "KIND:FROM..TO", requires = "slo",
        conflicts_with_all = ["rates", "concurrency", "repeats"])]
    pub(crate) search: Option<String>,
    /// Step from level to level of the search [default: 0.05]
    #[arg(long, value_name = "SHARE", requires = "search")]
    pub(crate) search_precision: Option<f64>,
    /// Trials of the search at most [default: 30]
    #[arg(long, value_name = "N", requires = "search")]
    pub(crate) search_probes: Option<u32>,
    /// Trials of one level at most, where chance may explain its verdict [default: 3]
    #[arg(long, value_name = "N", requires = "search")]
    pub(crate) search_tries: Option<u32>,
    /// Requests before the measurement
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(crate) warmup: u64,
    /// A request is given up after this long
    #[arg(long, default_value = "10m", value_name = "SPAN")]
    pub(crate) timeout: String,
    /// Repeats of each level, with fresh prompts
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) repeats: u32,
    /// Seed of prompts and arrivals
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Sampling temperature [default: the server's]
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f64>,
    /// Send a header whose value is in an environment variable (may be repeated)
    #[arg(long, value_name = "NAME=ENV")]
    pub(crate) header: Vec<String>,
    /// Environment variable that holds the API key
    #[arg(long, value_name = "ENV")]
    pub(crate) api_key_env: Option<String>,
    /// GPUs behind the endpoint, for numbers per GPU
    #[arg(long, value_name = "N")]
    pub(crate) gpus: Option<u32>,
    /// Directory that holds run directories
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print the numbers as another tool defines and names them, in place of the tables; several
    /// separated by commas: vllm, sglang, aiperf, genai-perf, guidellm, inference-perf, llmperf, genai-bench
    #[arg(long, value_delimiter = ',', value_name = "TOOL")]
    pub(crate) define: Vec<String>,
    /// Measure the instrument on this machine first [default: auto]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) selftest: Option<SelftestArg>,
    /// Print results.json on stdout in place of the tables
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// Streams at once; several levels separated by commas
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "64,256")]
    pub(crate) streams: Vec<u32>,
    /// One short round a level
    #[arg(long)]
    pub(crate) quick: bool,
    /// The whole table of the journal in place of --streams: some minutes
    #[arg(long, conflicts_with_all = ["quick", "streams"])]
    pub(crate) full: bool,
    /// Only this case of the whole table (may be repeated)
    #[arg(long, value_name = "NAME", requires = "full")]
    pub(crate) case: Vec<String>,
    /// Rounds of each case [default: 3; 1 with --quick, 5 with --full]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: Option<u32>,
    /// Run another client in the same turns; {host} {port} {url} {requests} {streams} {rate} {tokens} {model}
    /// {result} {result_dir} {result_file} are filled in (may be repeated)
    #[arg(long, value_name = "[NAME=]COMMAND", value_parser = Client::parse)]
    pub(crate) beside: Vec<Client>,
    /// Seconds that such a client may take for a case [default: three times the case's length and a minute]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) beside_limit: Option<u64>,
    /// Print a Markdown table with every number
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn percentile(text: &str) -> Result<f64, String> {
    let p: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=100.0).contains(&p) { Ok(p) } else { Err(format!("{p} is not between 0 and 100")) }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RecordsArg {
    /// A row a request
    Csv,
    /// A JSON object a line, with the arrival of every token
    Jsonl,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Run directory
    pub(crate) run: PathBuf,
    /// Formats to write, separated by commas [default: as the experiment file says]
    #[arg(long, value_delimiter = ',', value_name = "FORMAT")]
    pub(crate) format: Vec<String>,
    /// Also print these percentiles of every distribution, and write them into the results
    #[arg(long, value_delimiter = ',', value_name = "P", value_parser = percentile)]
    pub(crate) percentiles: Vec<f64>,
    /// Print counts in buckets of these metrics as CSV in place of the tables; write no report
    #[arg(long, value_delimiter = ',', value_name = "METRIC", conflicts_with_all = ["format", "define", "records", "percentiles"])]
    pub(crate) histogram: Vec<String>,
    /// Print every request, warm-up included, in place of the tables; write no report
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with_all = ["format", "define", "json", "percentiles"])]
    pub(crate) records: Option<RecordsArg>,
    /// Print what each GPU and each machine did second by second beside what its engine did, as CSV for
    /// fitting a model of power, in place of the tables; write no report
    #[arg(long, conflicts_with_all = ["format", "define", "json", "percentiles", "histogram", "records", "power_logs"])]
    pub(crate) samples: bool,
    /// Write the power of each trial's GPUs as seed 4's power_log files (GPUs and time in their names) into this
    /// directory; write no report
    #[arg(long, value_name = "DIR", conflicts_with_all = ["format", "define", "records", "percentiles", "histogram", "json"])]
    pub(crate) power_logs: Option<PathBuf>,
    /// Print the numbers as another tool defines and names them, in place of the tables; several
    /// separated by commas: vllm, sglang, aiperf, genai-perf, guidellm, inference-perf, llmperf, genai-bench
    #[arg(long, value_delimiter = ',', value_name = "TOOL")]
    pub(crate) define: Vec<String>,
    /// Print results.json on stdout in place of the tables
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Experiment file
    pub(crate) file: PathBuf,
    /// The deployment
    #[arg(long, value_name = "NAME")]
    pub(crate) deploy: String,
    /// Directory that holds run directories
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Start without asking the doctor first; doctor.json says so
    #[arg(long)]
    pub(crate) no_doctor: bool,
    /// Print the endpoints as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Experiment file or run directory [default: every run below --out]
    pub(crate) what: Option<PathBuf>,
    /// Directory that holds run directories
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Also take down a run that is being measured right now
    #[arg(long)]
    pub(crate) force: bool,
    /// Between SIGTERM and SIGKILL [default: as the plan of the run says]
    #[arg(long, value_name = "SPAN")]
    pub(crate) grace: Option<String>,
    /// Print what was done as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// The engine
    #[arg(value_enum)]
    pub(crate) engine: SetupEngine,
    /// Print what is installed as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SetupEngine {
    /// llama.cpp's server with a small model
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SchemaOf {
    /// The experiment file
    Experiment,
    /// plan --json
    Plan,
    /// results.json and bench --json
    Results,
    /// doctor.json and doctor --json
    Doctor,
    /// fingerprint.json
    Fingerprint,
    /// compare --json
    Compare,
    /// advise --json
    Advise,
}

/// Reads the command line, or says what is wrong with it and with which code to end.
pub(crate) fn parse() -> Result<Command, ExitCode> {
    Cli::try_parse().map(|cli| cli.command).map_err(|e| {
        // clap chooses the stream itself; a closed one is no error.
        let _ = e.print();
        u8::try_from(e.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
    })
}

/// The whole command, for completions and man pages.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}
