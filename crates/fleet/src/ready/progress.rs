//! How far a bring-up is, as the logs of its processes tell: by host, and counted by role.
//!
//! **Invariants.** A phase is told by a line that an engine is known to write; any other line tells
//! nothing. Logs are read at most once a second, however often somebody asks. A log counts as silent
//! from the last time that it was seen to grow.

use crate::error::Stuck;
use crate::launch::{Held, Spawned};
use scalebeam_model::plan::{DeploymentPlan, Role};
use scalebeam_model::units::Nanos;
use std::collections::BTreeMap;
use std::fmt;

/// Between two looks at the logs.
const LOOK_EVERY: Nanos = Nanos::from_secs(1);
/// Hosts that are told of; more of them do not fit on a line.
const HOSTS: usize = 4;
/// What an instance does that answers requests, by its own word.
const SERVING: &str = "serving";

/// What a process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Phase {
    what: &'static str,
    /// How much of it is done, where the line counts.
    percent: Option<u8>,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        match self.percent {
            Some(percent) => write!(f, " {percent} %"),
            None => Ok(()),
        }
    }
}

/// Lines of engines: all needles stand in the line, in any case. What has ended comes before what it ends.
const PHASES: &[(&[&str], &str)] = &[
    // vLLM, SGLang, Ray Serve (uvicorn); SGLang; llama.cpp; the emulated engine; vLLM's router.
    (&["application startup complete"], SERVING),
    (&["fired up and ready to roll"], SERVING),
    (&["server is listening on"], SERVING),
    (&["listening on http://"], SERVING),
    (&["router ready"], SERVING),
    (&["resolved architecture"], "reading the model's config"),
    (&[" llm engine (v"], "starting the engine"),
    (&["loading weights took"], "weights loaded"),
    (&["model loading took"], "weights loaded"),
    (&["load weight end"], "weights loaded"),
    // vLLM, SGLang (both by tqdm), llama.cpp.
    (&["checkpoint shards"], "loading weights"),
    (&["loading shards"], "loading weights"),
    (&["loading weights"], "loading weights"),
    (&["load weight begin"], "loading weights"),
    (&["starting to load model"], "loading weights"),
    (&["load_tensors"], "loading weights"),
    (&["load_model: loading model"], "loading weights"),
    (&["fetching", "files"], "downloading"),
    (&["downloading"], "downloading"),
    // Not every line on torch.compile: one says that it is off.
    (&["torch.compile took"], "compiling"),
    (&["torch.compile takes"], "compiling"),
    (&["cache directory", "torch.compile"], "compiling"),
    (&["compiling a graph"], "compiling"),
    (&["dynamo bytecode transform"], "compiling"),
    (&["capturing cuda graph"], "capturing CUDA graphs"),
    (&["capture", "graph begin"], "capturing CUDA graphs"),
    (&["capturing batches"], "capturing CUDA graphs"),
    (&["graph capturing finished"], "CUDA graphs captured"),
    (&["kv cache size"], "sizing the KV cache"),
    (&["available kv cache memory"], "sizing the KV cache"),
    (&["memory pool end"], "sizing the KV cache"),
    (&["max_total_num_tokens="], "sizing the KV cache"),
    (&["llama_kv_cache"], "sizing the KV cache"),
    (&["init engine", "took"], "engine is up, starting its server"),
    (&["starting vllm", "server"], "starting to listen"),
    (&["warming up"], "warming up"),
    (&["waiting for", "placement group"], "waiting for Ray's placement group"),
    (&["creating a new placement group"], "waiting for Ray's placement group"),
    (&["ray runtime started"], "Ray is up"),
    (&["local node ip"], "joining Ray"),
    (&["connecting to existing ray cluster"], "joining Ray"),
    (&["started a local ray instance"], "joining Ray"),
    (&["nccl info"], "joining ranks"),
    (&["is using nccl"], "joining ranks"),
    (&["in world size"], "joining ranks"),
    (&["init torch distributed begin"], "joining ranks"),
    (&["[gloo] rank"], "joining ranks"),
    (&["waiting for ready message"], "waiting for other ranks"),
    // Dynamo's workers, once they can be found.
    (&["registered", "endpoint"], "registered"),
    (&["added model"], "registered"),
];

/// The phase that `line` tells.
fn phase(line: &str) -> Option<Phase> {
    let lower = line.to_lowercase();
    let of = |needles: &[&str]| needles.iter().all(|needle| lower.contains(needle));
    let (_, what) = PHASES.iter().find(|(needles, _)| of(needles))?;
    let counts = !matches!(*what, SERVING) && !what.ends_with("loaded");
    Some(Phase { what, percent: percent(&lower).filter(|_| counts) })
}

/// `40%`, else `2/5` of tqdm and its like, as a share of a hundred.
fn percent(line: &str) -> Option<u8> {
    let before = line.split('%').next().filter(|before| before.len() < line.len());
    if let Some(before) = before {
        let whole = before.rsplit(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        return whole.split('.').next()?.parse().ok().filter(|p| *p <= 100);
    }
    let fraction = |word: &str| -> Option<u8> {
        let (done, all) = word.split_once('/')?;
        let (done, all) = (done.parse::<u32>().ok()?, all.parse::<u32>().ok()?);
        u8::try_from((u64::from(done) * 100).checked_div(u64::from(all))?).ok()
    };
    line.split(|c: char| c.is_whitespace() || "|[],".contains(c)).find_map(fraction)
}

/// The phase of the last line that tells one.
fn last_phase(lines: &[String]) -> Option<Phase> {
    lines.iter().rev().find_map(|line| phase(line))
}

/// A process, as its log tells.
#[derive(Debug, Clone, Copy)]
struct Told<'a> {
    host: &'a str,
    /// The instance that it belongs to, and what that does.
    instance: Option<(u32, Role)>,
    phase: Option<Phase>,
}

/// `3 of 7 prefill workers serve; node1: loading weights 40 %`; empty where no log tells anything.
fn summary(told: &[Told<'_>]) -> String {
    if told.iter().all(|t| t.phase.is_none()) {
        return String::new();
    }
    let mut parts = Vec::new();
    parts.extend(by_role(told));
    let hosts = by_host(told);
    let more = hosts.len().saturating_sub(HOSTS);
    parts.extend(hosts.into_iter().take(HOSTS));
    if more > 0 {
        parts.push(format!("{more} more hosts"));
    }
    parts.join("; ")
}

/// Counts instances that serve, where there are several. One serves as soon as one of its ranks says so.
fn by_role(told: &[Told<'_>]) -> Option<String> {
    let mut serves: BTreeMap<(Role, u32), bool> = BTreeMap::new();
    for t in told {
        if let Some((index, role)) = t.instance {
            *serves.entry((role, index)).or_default() |= t.phase.is_some_and(|p| p.what == SERVING);
        }
    }
    if serves.len() < 2 {
        return None;
    }
    let mut counts: BTreeMap<Role, (usize, usize)> = BTreeMap::new();
    for ((role, _), serves) in serves {
        let (up, all) = counts.entry(role).or_default();
        *up += usize::from(serves);
        *all += 1;
    }
    let words =
        |(role, (up, all)): (Role, (usize, usize))| format!("{up} of {all} {}", role.name());
    let all: Vec<String> = counts.into_iter().map(words).collect();
    Some(format!("{} workers serve", all.join(", ")))
}

/// What processes that do not serve yet are doing, host by host; of several in one phase the slowest.
fn by_host(told: &[Told<'_>]) -> Vec<String> {
    let mut hosts: BTreeMap<&str, BTreeMap<&str, Vec<Phase>>> = BTreeMap::new();
    for t in told {
        if let Some(phase) = t.phase.filter(|p| p.what != SERVING) {
            hosts.entry(t.host).or_default().entry(phase.what).or_default().push(phase);
        }
    }
    let words = |(host, phases): (&str, BTreeMap<&str, Vec<Phase>>)| {
        let all: Vec<String> = phases.into_values().filter_map(|same| slowest(&same)).collect();
        format!("{host}: {}", all.join(", "))
    };
    hosts.into_iter().map(words).collect()
}

fn slowest(same: &[Phase]) -> Option<String> {
    let first = same.iter().min_by_key(|p| p.percent)?;
    Some(match same.len() {
        1 => first.to_string(),
        n => format!("{first} ({n} processes)"),
    })
}

/// What is known of one log.
#[derive(Debug, Clone, Copy)]
struct Log {
    /// Bytes in it.
    length: u64,
    /// When it was first seen as long as that.
    since: Nanos,
    phase: Option<Phase>,
}

impl Log {
    /// A log that is `length` bytes long now; `told` is the phase that its end tells. Where that tells none,
    /// what was told before still holds.
    fn seen(
        before: Option<Self>,
        length: u64,
        now: Nanos,
        told: impl FnOnce() -> Option<Phase>,
    ) -> Self {
        match before {
            Some(log) if log.length == length => log,
            _ => Self { length, since: now, phase: told().or(before.and_then(|log| log.phase)) },
        }
    }
}

fn in_words(last_line: Option<String>) -> String {
    match last_line {
        Some(line) if !line.is_empty() => format!("last log line: {line}"),
        _ => String::new(),
    }
}

/// Watches the logs of a deployment while it comes up.
#[derive(Debug, Default)]
pub(super) struct Watch {
    looked_at: Option<Nanos>,
    /// By process, in start order.
    logs: Vec<Log>,
    text: String,
}

impl Watch {
    /// The last line of the logs of what a platform holds.
    pub(super) fn look_at(&mut self, held: &Held, now: Nanos) -> &str {
        if self.is_due(now) {
            self.text = in_words(Some(held.last_line()));
        }
        &self.text
    }

    /// Whether it is time for another look; then this is it.
    fn is_due(&mut self, now: Nanos) -> bool {
        let is_due = self.looked_at.is_none_or(|at| now.since(at) >= LOOK_EVERY);
        if is_due {
            self.looked_at = Some(now);
        }
        is_due
    }

    /// How far `processes` of `plan` are; where no log tells that, the last line that one of them wrote.
    pub(super) fn look(
        &mut self,
        plan: &DeploymentPlan,
        processes: &[Spawned],
        now: Nanos,
    ) -> &str {
        if !self.is_due(now) {
            return &self.text;
        }
        self.read(processes, now);
        let role = |index: u32| plan.instances.iter().find(|i| i.index == index).map(|i| i.role);
        let told: Vec<Told<'_>> = processes
            .iter()
            .zip(&self.logs)
            .map(|(process, log)| Told {
                host: &process.plan().host,
                instance: process.plan().instance.and_then(|i| Some((i, role(i)?))),
                phase: log.phase,
            })
            .collect();
        self.text = summary(&told);
        if self.text.is_empty() {
            self.text = in_words(processes.iter().map(Spawned::last_line).rfind(|l| !l.is_empty()));
        }
        &self.text
    }

    /// Who does not serve, the longest silent first.
    pub(super) fn stuck(&mut self, processes: &[Spawned], now: Nanos) -> Vec<Stuck> {
        // How long they are silent nobody knows at a first look.
        let is_known = !self.logs.is_empty();
        self.read(processes, now);
        let mut all: Vec<(&Spawned, Log)> = processes.iter().zip(self.logs.clone()).collect();
        let serves = |log: &Log| log.phase.is_some_and(|p| p.what == SERVING);
        all.sort_by_key(|(process, log)| {
            (process.unreached(now).is_none(), serves(log), log.since)
        });
        let of = |(process, log): (&Spawned, Log)| Stuck {
            process: process.plan().id.clone(),
            place: format!("host {}", process.plan().host),
            unreached: process
                .unreached(now)
                .map(|host| format!("not heard of for {}: {}", now.since(host.since), host.said)),
            phase: log.phase.map(|phase| phase.to_string()),
            silent: is_known.then(|| now.since(log.since)),
            last_line: process.last_line(),
            log: process.log().to_owned(),
        };
        all.into_iter().map(of).collect()
    }

    fn read(&mut self, processes: &[Spawned], now: Nanos) {
        let before = std::mem::take(&mut self.logs);
        let of = |(index, process): (usize, &Spawned)| {
            let told = || last_phase(&process.recent_lines());
            Log::seen(before.get(index).copied(), process.log_length(), now, told)
        };
        self.logs = processes.iter().enumerate().map(of).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of real logs, and what they tell.
    const LINES: &[(&str, &str)] = &[
        (
            "Loading safetensors checkpoint shards:  40% Completed | 2/5 [00:01<00:02,  1.2it/s]",
            "loading weights 40 %",
        ),
        (
            "Multi-thread loading shards: 100% Completed | 5/5 [00:04<00:00]",
            "loading weights 100 %",
        ),
        (
            "(EngineCore pid=7) INFO 11-26 05:12:07 [gpu_model_runner.py:5040] Starting to load model Qwen/Qwen3-8B...",
            "loading weights",
        ),
        (
            "INFO 11-26 05:12:12 [default_loader.py:430] Loading weights took 2.31 seconds",
            "weights loaded",
        ),
        (
            "INFO 11-26 05:12:13 [gpu_model_runner.py:5150] Model loading took 14.2 GiB memory and 3.100000 seconds",
            "weights loaded",
        ),
        (
            "INFO 11-26 05:12:20 [backends.py:1167] Dynamo bytecode transform time: 5.10 s",
            "compiling",
        ),
        ("INFO 11-26 05:12:40 [monitor.py:20] torch.compile took 20.15 s in total", "compiling"),
        (
            "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  57%|█████▋    | 38/67",
            "capturing CUDA graphs 57 %",
        ),
        (
            "INFO 11-26 05:12:43 [kv_cache_utils.py:2327] GPU KV cache size: 412,336 tokens, Maximum concurrency for 4,096 tokens per request: 100.67x",
            "sizing the KV cache",
        ),
        (
            "INFO 11-26 05:12:50 [parallel_state.py:2351] rank 1 in world size 2 is assigned as DP rank 0",
            "joining ranks",
        ),
        ("node1:91:91 [0] NCCL INFO Bootstrap: Using eno1:10.0.0.1<0>", "joining ranks"),
        ("INFO:     Application startup complete.", "serving"),
        ("[2026-11-26 05:12:51 TP0] Load weight begin. avail mem=78.60 GB", "loading weights"),
        (
            "[2026-11-26 05:12:51 TP0] Load weight end. elapsed=9.10 s, type=Qwen3ForCausalLM",
            "weights loaded",
        ),
        (
            "Capturing batches (bs=160 avail_mem=9.52 GB):  30%|███       | 7/23",
            "capturing CUDA graphs 30 %",
        ),
        ("[2026-11-26 05:13:01] The server is fired up and ready to roll!", "serving"),
        (
            "load_tensors: loading model tensors, this can take a while... (mmap = true)",
            "loading weights",
        ),
        (
            "llama_kv_cache: size =   90.00 MiB (  4096 cells,  30 layers,  4/1 seqs)",
            "sizing the KV cache",
        ),
        ("main: server is listening on http://127.0.0.1:8080 - starting the main loop", "serving"),
        ("Ray runtime started.", "Ray is up"),
        (
            "Waiting for creating a placement group of specs for 10 seconds.",
            "waiting for Ray's placement group",
        ),
        ("Fetching 5 files:  40%|████      | 2/5", "downloading 40 %"),
        (
            "(EngineCore pid=30757) INFO 11-26 06:27:19 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='m'",
            "starting the engine",
        ),
        (
            "INFO 11-26 06:26:25 [model.py:733] Resolved architecture: LlamaForCausalLM",
            "reading the model's config",
        ),
        (
            "INFO vllm_router_rs::server: src/server.rs:1192: Router ready | workers: [\"http://127.0.0.1:18422\"]",
            "serving",
        ),
        ("Loading weights 3/7", "loading weights 42 %"),
    ];

    #[test]
    fn real_lines_tell_phases() {
        for (line, want) in LINES {
            assert_eq!(phase(line).map(|p| p.to_string()).as_deref(), Some(*want), "{line}");
        }
        let off =
            "WARNING 11-26 [vllm.py:1703] Enforce eager set, disabling torch.compile, CUDAGraphs";
        assert_eq!(phase(off), None);
        assert_eq!(phase("INFO: 127.0.0.1:1 - \"GET /health HTTP/1.1\" 200 OK"), None);
    }

    fn told<'a>(host: &'a str, instance: u32, role: Role, line: &str) -> Told<'a> {
        Told { host, instance: Some((instance, role)), phase: phase(line) }
    }

    const UP: &str = "Application startup complete.";
    const LOADS: &str = "Loading safetensors checkpoint shards:  40% Completed | 2/5";

    #[test]
    fn instances_are_counted_by_role_and_phases_told_by_host() {
        use Role::{Decode, Prefill};
        let all = [
            told("node0", 0, Prefill, UP),
            told("node0", 1, Prefill, "Loading safetensors checkpoint shards:  80% Completed"),
            told("node1", 2, Prefill, LOADS),
            told("node1", 3, Prefill, "Loading safetensors checkpoint shards:  60% Completed"),
            told("node1", 4, Decode, "Capturing CUDA graphs: 5%"),
        ];
        assert_eq!(
            summary(&all),
            "1 of 4 prefill, 0 of 1 decode workers serve; node0: loading weights 80 %; \
             node1: capturing CUDA graphs 5 %, loading weights 40 % (2 processes)"
        );
    }

    #[test]
    fn one_rank_that_serves_is_enough_and_one_instance_is_not_counted() {
        let all = [
            told("a", 0, Role::Aggregated, UP),
            told("b", 0, Role::Aggregated, "no word of a phase"),
        ];
        assert_eq!(summary(&all), "");
        assert_eq!(summary(&[told("a", 0, Role::Aggregated, LOADS)]), "a: loading weights 40 %");
        assert_eq!(summary(&[told("a", 0, Role::Aggregated, "nothing known")]), "");
    }

    #[test]
    fn a_log_that_grows_without_a_word_of_a_phase_keeps_its_own() {
        let at = Nanos::from_secs;
        let serving = Log::seen(None, 10, at(1), || phase(UP));
        let access = Log::seen(Some(serving), 20, at(2), || phase("GET /v1/models 200"));
        assert_eq!((access.phase, access.since), (phase(UP), at(2)));
        let silent = Log::seen(Some(access), 20, at(9), || phase(LOADS));
        assert_eq!((silent.phase, silent.since), (phase(UP), at(2)), "nothing new to read");
        assert_eq!(Log::seen(Some(silent), 30, at(10), || phase(LOADS)).phase, phase(LOADS));
    }

    #[test]
    fn many_hosts_are_counted() {
        let hosts = ["n0", "n1", "n2", "n3", "n4", "n5"];
        let text = summary(&hosts.map(|host| told(host, 0, Role::Aggregated, LOADS)));
        assert!(text.ends_with("n3: loading weights 40 %; 2 more hosts"), "{text}");
    }
}
