//! What an engine's own log tells of itself. Pure: text in, facts out.
//!
//! **Invariant:** a number is read from the line that an engine is known to write, and from no other; a
//! line that is not there leaves the fact absent with what to do about it.

use scalebeam_model::fingerprint::{Fact, LogValue};
use scalebeam_model::plan::EngineKind;
use std::collections::{BTreeMap, BTreeSet};

/// A fact of a log.
struct LogFact {
    /// Its name; the end of it is the unit.
    name: &'static str,
    /// Reads it from the lines of a log.
    read: fn(&[&str]) -> Option<LogValue>,
    /// What makes an engine say it, where it does not by itself.
    advice: Option<&'static str>,
}

const fn fact(name: &'static str, read: fn(&[&str]) -> Option<LogValue>) -> LogFact {
    LogFact { name, read, advice: None }
}

/// vLLM, alone or under Dynamo or Ray Serve.
const VLLM: &[LogFact] = &[
    fact("engine_version", vllm_version),
    fact("attention_backend", attention_backend),
    fact("weights_gib", |lines| number(lines, "Model loading took ")),
    fact("kv_cache_tokens", |lines| number(lines, "KV cache size: ")),
    fact("max_concurrency", |lines| {
        let line = last(lines, "Maximum concurrency for ")?;
        leading_number(line.rsplit(": ").next()?)
    }),
    NCCL_VERSION,
    TRANSPORT,
];

const SGLANG: &[LogFact] = &[
    fact("kv_cache_tokens", |lines| number(lines, "max_total_num_tokens=")),
    fact("max_running_requests", |lines| number(lines, "max_running_requests=")),
    fact("context_tokens", |lines| number(lines, "context_len=")),
    NCCL_VERSION,
    TRANSPORT,
];

const LLAMA_CPP: &[LogFact] = &[
    fact("context_tokens", |lines| assigned(lines, "n_ctx")),
    fact("slots", |lines| assigned(lines, "n_slots")),
    fact("engine_version", |lines| {
        let line = last(lines, "build: ")?;
        Some(LogValue::Text(after(line, "build: ")?.split(" with ").next()?.trim().to_owned()))
    }),
];

const NCCL_VERSION: LogFact = fact("nccl_version", |lines| {
    let found = last(lines, "is using nccl==").and_then(|l| after(l, "nccl=="));
    let found = found.or_else(|| after(last(lines, "NCCL version ")?, "NCCL version "));
    Some(LogValue::Text(found?.split_whitespace().next()?.to_owned()))
});

/// What NCCL's ranks talk over, of every channel: `NET/IB, P2P`.
const TRANSPORT: LogFact = LogFact {
    name: "nccl_transport",
    read: transport,
    advice: Some("NCCL says it with NCCL_DEBUG = \"INFO\" in [env]"),
};

const fn facts_of(engine: EngineKind) -> &'static [LogFact] {
    match engine {
        EngineKind::Vllm | EngineKind::DynamoVllm | EngineKind::RayServeLlm => VLLM,
        EngineKind::Sglang | EngineKind::DynamoSglang => SGLANG,
        EngineKind::LlamaCpp => LLAMA_CPP,
        // Of the others no line is known.
        _ => &[],
    }
}

/// What `log` of a process of `engine` tells, by name.
pub(super) fn read(engine: EngineKind, log: &str) -> BTreeMap<String, Fact<LogValue>> {
    let lines: Vec<&str> = log.lines().collect();
    let of = |fact: &LogFact| {
        let absent = || {
            let advice = fact.advice.map_or(String::new(), |advice| format!("; {advice}"));
            Fact::absent(format!("its log does not tell{advice}"))
        };
        (fact.name.to_owned(), (fact.read)(&lines).map_or_else(absent, Fact::Known))
    };
    facts_of(engine).iter().map(of).collect()
}

/// The last line that holds `needle`: an engine that says a thing twice has changed its mind.
fn last<'a>(lines: &[&'a str], needle: &str) -> Option<&'a str> {
    lines.iter().rev().find(|line| line.contains(needle)).copied()
}

fn after<'a>(line: &'a str, needle: &str) -> Option<&'a str> {
    line.split_once(needle).map(|(_, rest)| rest)
}

/// The number right after `needle`.
fn number(lines: &[&str], needle: &str) -> Option<LogValue> {
    leading_number(after(last(lines, needle)?, needle)?)
}

/// `412,336 tokens` is 412336, `100.67x` is 100.67.
fn leading_number(text: &str) -> Option<LogValue> {
    let is_of_it = |c: &char| c.is_ascii_digit() || matches!(c, '.' | ',');
    let digits: String = text.trim_start().chars().take_while(is_of_it).collect();
    let digits = digits.replace(',', "");
    let number: f64 = digits.trim_end_matches('.').parse().ok()?;
    Some(LogValue::Number(number))
}

/// `n_ctx         = 4096`, where `name` is a word of its own.
fn assigned(lines: &[&str], name: &str) -> Option<LogValue> {
    lines.iter().rev().find_map(|line| {
        let (before, rest) = line.split_once(name)?;
        let is_apart = before.ends_with([' ', ',', ':']);
        is_apart.then(|| leading_number(rest.trim_start().strip_prefix('=')?)).flatten()
    })
}

/// `Initializing a V1 LLM engine (v0.32.0) with config: ..`, `vLLM API server version 0.32.0`.
fn vllm_version(lines: &[&str]) -> Option<LogValue> {
    let engine = last(lines, " LLM engine (v").and_then(|l| after(l, " LLM engine (v"));
    let engine = engine.and_then(|rest| rest.split(')').next());
    let server = || {
        let rest = after(last(lines, "API server version ")?, "API server version ")?;
        rest.split_whitespace().next()
    };
    Some(LogValue::Text(engine.or_else(server)?.to_owned()))
}

/// `Using FLASH_ATTN attention backend out of ..`, `Using CPU_ATTN backend`; other things have backends too.
fn attention_backend(lines: &[&str]) -> Option<LogValue> {
    lines.iter().rev().find_map(|line| {
        let (name, _) = after(line, "Using ")?.split_once(" backend")?;
        let named = name.strip_suffix(" attention").or_else(|| name.strip_suffix(" Attention"));
        let is_kind = |n: &&str| ["ATTN", "MLA", "FLASH"].iter().any(|kind| n.contains(kind));
        let name = named.or_else(|| Some(name).filter(is_kind))?;
        let is_one_name = !name.is_empty() && !name.contains(char::is_whitespace);
        is_one_name.then(|| LogValue::Text(name.to_owned()))
    })
}

fn transport(lines: &[&str]) -> Option<LogValue> {
    let mut found: BTreeSet<&str> = BTreeSet::new();
    for line in lines.iter().filter(|line| line.contains("NCCL INFO")) {
        let over = after(line, " via ").or_else(|| after(line, "Using network "));
        found.extend(over.and_then(transport_of));
    }
    let words: Vec<&str> = found.into_iter().collect();
    (!words.is_empty()).then(|| LogValue::Text(words.join(", ")))
}

/// `NET/IB/0/GDRDMA` and `IB` are one way.
fn transport_of(said: &str) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 7] = [
        ("NET/IB", "NET/IB"),
        ("NET/Socket", "NET/Socket"),
        ("NET/AWS", "NET/AWS Libfabric"),
        ("IB", "NET/IB"),
        ("Socket", "NET/Socket"),
        ("P2P", "P2P"),
        ("SHM", "SHM"),
    ];
    KNOWN.iter().find(|(head, _)| said.starts_with(head)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of a start over two hosts.
    const VLLM_LOG: &str = "\
(EngineCore pid=71) INFO 11-26 05:12:01 [core.py:134] Initializing a V1 LLM engine (v0.32.0) with config: model='m'
(Worker pid=72) INFO 11-26 05:12:03 [pynccl.py:148] vLLM is using nccl==2.27.5
node0:72:72 [0] NCCL INFO Using network Socket
node0:72:90 [0] NCCL INFO Channel 00/0 : 1[1] -> 2[0] [send] via NET/Socket/0
node0:72:90 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM
(Worker pid=72) INFO 11-26 05:12:06 [layer.py:10] Using TRITON Unquantized MoE backend
(Worker pid=72) INFO 11-26 05:12:07 [cuda.py:507] Using FLASH_ATTN attention backend out of potential backends: ['FLASH_ATTN', 'FLASHINFER'].
(Worker pid=72) INFO 11-26 05:12:13 [gpu_model_runner.py:5150] Model loading took 14.25 GiB memory and 3.100000 seconds
(EngineCore pid=71) INFO 11-26 05:12:43 [kv_cache_utils.py:2327] GPU KV cache size: 412,336 tokens, Maximum concurrency for 4,096 tokens per request: 100.67x
";

    /// Lines of vLLM on a CPU, which has neither NCCL nor a choice of backends.
    const VLLM_CPU_LOG: &str = "\
(APIServer pid=27066) WARNING 11-26 06:26:25 [vllm.py:725] Model Runner V2 requires Triton; using the V1 model runner instead.
(EngineCore pid=30757) INFO 11-26 06:27:19 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='m'
(EngineCore pid=30757) INFO 11-26 06:28:21 [utils.py:347] Using LBHNC KV cache layout.
(EngineCore pid=30757) INFO 11-26 06:28:21 [kv_cache_utils.py:2327] CPU KV cache size: 34,944 tokens, Maximum concurrency for 2,048 tokens per request: 17.06x
";

    const SGLANG_LOG: &str = "[2026-11-26 05:12:58 TP0] max_total_num_tokens=1432610, chunked_prefill_size=8192, max_prefill_tokens=16384, max_running_requests=4096, context_len=40960, available_gpu_mem=12.40 GB\n";

    const LLAMA_LOG: &str = "\
build: 6945 (8b11deea4) with cc (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0 for x86_64-linux-gnu
llama_context: n_seq_max     = 4
llama_context: n_ctx         = 4096
llama_context: n_ctx_per_seq = 1024
srv          init: initializing slots, n_slots = 4
slot         init: id  0 | task -1 | new slot n_ctx_slot = 1024
";

    fn told(engine: EngineKind, log: &str) -> Vec<(String, String)> {
        let words = |fact: Fact<LogValue>| match fact {
            Fact::Known(LogValue::Number(n)) => n.to_string(),
            Fact::Known(LogValue::Text(text)) => text,
            Fact::Absent { absent } => format!("absent: {absent}"),
        };
        read(engine, log).into_iter().map(|(name, fact)| (name, words(fact))).collect()
    }

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn vllm_tells_its_cache_its_backend_and_its_transport() {
        let want = pairs(&[
            ("attention_backend", "FLASH_ATTN"),
            ("engine_version", "0.32.0"),
            ("kv_cache_tokens", "412336"),
            ("max_concurrency", "100.67"),
            ("nccl_transport", "NET/Socket, P2P"),
            ("nccl_version", "2.27.5"),
            ("weights_gib", "14.25"),
        ]);
        assert_eq!(told(EngineKind::Vllm, VLLM_LOG), want);
        assert_eq!(told(EngineKind::DynamoVllm, VLLM_LOG), want);
    }

    #[test]
    fn vllm_on_a_cpu_tells_what_it_has() {
        let told = told(EngineKind::Vllm, VLLM_CPU_LOG);
        let known: Vec<_> = told.into_iter().filter(|(_, v)| !v.starts_with("absent")).collect();
        let want = [
            ("engine_version", "0.32.0"),
            ("kv_cache_tokens", "34944"),
            ("max_concurrency", "17.06"),
        ];
        assert_eq!(known, pairs(&want));
    }

    #[test]
    fn infiniband_is_told_from_sockets() {
        let log = "n:1:1 [0] NCCL INFO Channel 00/0 : 1[1] -> 2[0] [send] via NET/IB/3/GDRDMA\n";
        let told = told(EngineKind::Vllm, log);
        assert!(told.contains(&("nccl_transport".to_owned(), "NET/IB".to_owned())), "{told:?}");
    }

    #[test]
    fn sglang_and_llama_cpp_tell_their_room() {
        let want = [
            ("context_tokens", "40960"),
            ("kv_cache_tokens", "1432610"),
            ("max_running_requests", "4096"),
        ];
        assert_eq!(told(EngineKind::Sglang, SGLANG_LOG)[..3], pairs(&want)[..]);
        let want =
            [("context_tokens", "4096"), ("engine_version", "6945 (8b11deea4)"), ("slots", "4")];
        assert_eq!(told(EngineKind::LlamaCpp, LLAMA_LOG), pairs(&want));
    }

    #[test]
    fn what_a_log_does_not_tell_is_absent_with_what_to_do() {
        let told = told(EngineKind::Vllm, "INFO: Application startup complete.\n");
        assert!(told.iter().all(|(_, fact)| fact.starts_with("absent: its log does not tell")));
        let transport = told.iter().find(|(name, _)| name == "nccl_transport").unwrap();
        assert!(transport.1.ends_with("; NCCL says it with NCCL_DEBUG = \"INFO\" in [env]"));
        assert!(read(EngineKind::Emulated, VLLM_LOG).is_empty());
    }
}
